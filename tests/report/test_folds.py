"""The folds of a cross-validation together, from the files of their runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness.html import parse
from scipy import stats

from raycls.config.load import from_dict
from raycls.config.write import to_yaml
from raycls.errors import ConfigError
from raycls.report.folds import beside, folds_of, page
from raycls.report.runs import Told, tell
from raycls.run.folder import RunFolder
from raycls.run.storage.lock import Lock, user_of
from raycls.screen.trained.folds_text import folds_lines


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _run(
    index: int, value: float | None = None, *, name: str = "", state: str = "done", of: Any = 3, **more: Any
) -> Told:
    """A run that ended with `value` by its best weights and less by the last ones; or one that has not ended."""
    place = Path("runs") / (name or f"cv-{index}")
    place.mkdir(parents=True)
    data = {"source": {"name": "digits"}, "fold": {"index": index, "of": of}}
    (place / "config.yaml").write_text(to_yaml(from_dict({"data": data, "run": {"name": place.name}, **more})))
    (place / "plan.json").write_text(json.dumps({"total_steps": 40}))
    attempt = {"attempt": 1, "step": 0, "workers": 0, "threads": 1, "time": 5.0}
    (place / "attempts.jsonl").write_text(json.dumps(attempt) + "\n")
    (place / "history.jsonl").write_text(json.dumps({"attempt": 1, "time": 6.0, "step": 7, "loss": 1.0}) + "\n")
    if value is not None:
        found = {"split": "val", "count": 100 + index, "top1": value, "loss": 1 - value, "ece": None if index else 0.1}
        result = {"state": state, "best": found, "final": {**found, "top1": 0.1}, "kept": {"name": "best"}}
        (place / "result.json").write_text(json.dumps(result))
    return tell(RunFolder(str(place)))


def _refused(runs: list[Told]) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        folds_of(runs[0].config, "cv.yaml", runs)
    return caught.value


def test_the_mean_and_its_interval_are_those_of_scipy() -> None:
    values = [0.91, 0.95, 0.94]
    runs = [_run(index, values[index]) for index in (2, 0, 1)]
    found = folds_of(runs[0].config, "cv.yaml", runs)
    facts = found.facts()
    assert found.complete and facts["complete"]
    assert [(fold.metrics["top1"], fold.images) for fold in found.folds] == [(0.91, 100), (0.95, 101), (0.94, 102)]
    assert [*facts["metrics"]] == ["top1", "loss"], "what was measured of every fold, evaluate.metric first"
    for name, each in (("top1", values), ("loss", [1 - value for value in values])):
        low, high = stats.t.interval(0.95, 2, loc=np.mean(each), scale=stats.sem(each))
        together = facts["metrics"][name]
        assert (together["mean"], together["std"]) == pytest.approx((np.mean(each), np.std(each, ddof=1)))
        assert (together["low"], together["high"]) == pytest.approx((low, high), abs=1e-5)
    shown = folds_lines(facts)
    assert shown[2].split() == ["0", "done", "cv-0", "100", "0.9100"]
    low, high = facts["metrics"]["top1"]["low"], facts["metrics"]["top1"]["high"]
    assert shown[-1] == f"mean of 3 folds: 0.9333, 95 % interval {low:.4f} to {high:.4f}"


def test_what_is_left_is_told_with_what_to_type() -> None:
    done, stopped = _run(1, 0.9, of=4), _run(3, of=4)
    with Lock(RunFolder(_run(0, of=4).folder.uri), "train"):
        found = folds_of(done.config, "cv.yaml", beside(done.config, [done]))
    assert [(fold.state, fold.run) for fold in found.folds] == [
        ("running", "cv-0"),
        ("done", "cv-1"),
        ("missing", ""),
        ("stopped", "cv-3"),
    ]
    config = f"{stopped.folder.uri}/config.yaml"
    assert [fold.command for fold in found.folds] == [
        "",
        "",
        "raycls train cv.yaml data.fold.index=2 run.name=cv-2",
        f"raycls train {config}",
    ]
    shown = folds_lines(found.facts())
    assert shown[2].startswith("0     running at step 7 of 40  cv-0")
    assert shown[-4:] == [
        "1 of 4 folds are done",
        f"fold 0 is trained by process {os.getpid()} on {os.uname().nodename}, for 0 minutes, to train",
        "train fold 2: raycls train cv.yaml data.fold.index=2 run.name=cv-2",
        f"resume fold 3: raycls train {config}",
    ]
    together = found.facts()["metrics"]["top1"]
    assert (together["n"], together["mean"], together["std"], together["low"]) == (1, 0.9, None, None)
    assert "mean of 1 fold: 0.9000" in shown
    told = parse(page(found, "cv-1").decode())
    assert not told.open and not told.of("script")
    assert "Fold 3, stopped: not finished: raycls train" in told.text
    none = folds_of(done.config, "cv.yaml", [])
    assert [fold.state for fold in none.folds] == ["missing"] * 4 and none.facts()["metrics"] == {}
    assert "0 of 4 folds are done" in folds_lines(none.facts())
    assert "Together" not in parse(page(none, "").decode()).text


def test_other_folds_are_found_beside_and_nothing_else() -> None:
    first = _run(0, 0.9)
    other = _run(1, 0.9, name="other", optim={"lr": 0.5})
    Path("runs/cv-1.old-1").mkdir()
    text = to_yaml(from_dict({"data": {"source": {"name": "digits"}, "fold": {"index": 1, "of": 3}}}))
    Path("runs/cv-1.old-1/config.yaml").write_text(text.replace("name: run", "name: cv-1"))  # --new set it aside
    Path("runs/notes").mkdir()
    Path("runs/notes/config.yaml").write_text("no: config")
    Path("runs/a file").touch()
    assert [told.name for told in beside(first.config, [first])] == ["cv-0"]
    _run(1, 0.8)
    assert [told.name for told in beside(first.config, [])] == ["cv-0", "cv-1"]
    again = _run(1, 0.7, name="again-1")
    with pytest.raises(ConfigError, match="two runs are of the same fold") as caught:
        beside(first.config, [first])
    assert caught.value.fix == "name the runs that belong together, such as raycls folds cv-0 cv-1"
    assert [told.name for told in beside(first.config, [first, again])] == ["cv-0", "again-1"]
    assert "optim.lr" in (_refused([first, other]).found or "")


def test_runs_that_are_no_folds_of_one_config_are_refused() -> None:
    first, second = _run(0, 0.9), _run(1, 0.9)
    assert _refused([first, second, second]).what == "two runs are of the same fold"
    budget = folds_of(first.config, "cv.yaml", [first, second, _run(2, 0.9, state="budget")]).folds[2]
    assert (budget.state, budget.note) == ("stopped", "stopped by train.budget")
    whole = _run(0, 0.9, of="off", name="whole")
    assert _refused([whole]).what == "there are no folds of a cross-validation"
    assert _refused([first, whole]).what == "a run is no fold of a cross-validation"


@pytest.mark.parametrize(
    ("name", "index", "other", "expected"),
    [
        ("cv-0", 0, 2, "cv-2"),
        ("cv", 0, 2, "cv-2"),
        ("cv10", 0, 2, "cv10-2"),
        ("fold7", 7, 10, "fold10"),
        ("3", 3, 1, "3-1"),
    ],
)
def test_a_missing_fold_is_named_as_the_others(name: str, index: int, other: int, expected: str) -> None:
    run = _run(index, 0.9, name=name, of=12)
    command = folds_of(run.config, "c.yaml", [run]).folds[other].command
    assert command == f"raycls train c.yaml data.fold.index={other} run.name={expected}"


def test_a_run_is_in_use_while_its_process_lives() -> None:
    folder = _run(0).folder
    assert user_of(folder) == ""
    code = f"""
import os, sys
from raycls.run.folder import RunFolder
from raycls.run.storage.lock import Lock
with Lock(RunFolder({folder.uri!r}), "train"):
    print("held", flush=True)
    sys.stdin.read()
"""
    words = [sys.executable, "-c", code]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        assert user_of(folder).startswith(f"process {process.pid} on ")
        process.kill()
        process.wait()
    assert Path("runs/cv-0/lock").read_text(), "it was killed, and left its name"
    assert user_of(folder) == ""
    signed = json.loads(Path("runs/cv-0/lock").read_text())
    Path("runs/cv-0/lock").write_text(json.dumps({**signed, "pid": os.getpid(), "time": 1.0}))
    assert user_of(folder) == "", "another process has its number now"
    Path("runs/cv-0/lock").write_text(json.dumps({**signed, "host": "node-7"}))
    assert " on node-7" in user_of(folder), "of another host nothing is known"
