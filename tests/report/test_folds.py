"""The folds of a cross-validation together, from the files of their runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from raycls.config.load import from_dict
from raycls.config.write import to_yaml
from raycls.errors import ConfigError
from raycls.report.folds import lines, summary
from raycls.report.runs import Told, tell
from raycls.run.folder import RunFolder


def _run(folder: Path, index: int, value: float, *, state: str = "done", of: Any = 3, **more: Any) -> Told:
    """A run that ended with `value` by its best weights and less by the last ones."""
    place = folder / f"cv-{index}-{len([*folder.iterdir()])}"
    place.mkdir()
    data = {"source": {"name": "digits"}, "fold": {"index": index, "of": of}}
    (place / "config.yaml").write_text(to_yaml(from_dict({"data": data, "run": {"name": place.name}, **more})))
    found = {"split": "val", "count": 100 + index, "top1": value}
    result = {"state": state, "best": found, "final": {**found, "top1": 0.1}, "kept": {"name": "best"}}
    (place / "result.json").write_text(json.dumps(result))
    return tell(RunFolder(str(place)))


def _refused(runs: list[Told]) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        summary(runs)
    return caught.value


def test_the_mean_and_its_interval_are_those_of_scipy(tmp_path: Path) -> None:
    values = [0.91, 0.95, 0.94]
    found = summary([_run(tmp_path, index, values[index]) for index in (2, 0, 1)])
    assert (found.metric, found.values, found.counts) == ("top1", (0.91, 0.95, 0.94), (100, 101, 102))
    low, high = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    assert found.together.mean == pytest.approx(np.mean(values))
    assert (found.together.low, found.together.high) == pytest.approx((low, high), abs=1e-5)
    assert lines(found)[1] == "fold 0: 0.9100  (100 images)"
    assert lines(found)[-1] == f"mean of 3 folds: 0.9333, 95 % interval {low:.4f} to {high:.4f}"


def test_runs_that_are_not_all_the_folds_of_one_config_are_refused(tmp_path: Path) -> None:
    first, second = _run(tmp_path, 0, 0.9), _run(tmp_path, 1, 0.9)
    error = _refused([first, second])
    assert (error.what, error.fix) == ("these are not the 3 folds, each once", "train those that are missing: 2")
    assert _refused([first, second, _run(tmp_path, 2, 0.9), second]).what == "these are not the 3 folds, each once"
    other = _refused([first, second, _run(tmp_path, 2, 0.9, optim={"lr": 0.5})])
    assert "optim.lr" in (other.found or "")
    assert _refused([first, second, _run(tmp_path, 2, 0.9, state="budget")]).found == "stopped by train.budget"
    assert _refused([_run(tmp_path, 0, 0.9, of="off")]).what == "a run is no fold of a cross-validation"
