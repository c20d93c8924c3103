"""The benchmarks run: each with sizes that measure nothing, and what it writes is the JSON that the page promises."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.slow

SCRIPTS = Path(__file__).parent / "benchmarks"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call a script's `main` with `--quick` in this process; its JSON, read back from the file."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()

    def call(name: str, *options: str) -> dict[str, Any]:
        file = tmp_path / f"{name}.json"
        returned = importlib.import_module(name).main(["--quick", "--json", str(file), *options])
        found = json.loads(file.read_text())
        assert found == json.loads(json.dumps(returned))
        assert found["benchmark"] == name
        assert found["hardware"]["cores"] >= 1
        return found

    yield call
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)
    for name in (*(path.stem for path in SCRIPTS.glob("*.py")),):
        sys.modules.pop(name, None)


def _is_ratio(found: dict[str, float]) -> bool:
    return found["n"] >= 1 and 0 < found["min"] <= found["median"] <= found["max"]


def test_loop(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    found = run("loop")
    assert [case["micro_batches"] for case in found["cases"]] == [1, 2]
    assert all(_is_ratio(case["cpu_against_bare"]) and _is_ratio(case["wall_against_bare"]) for case in found["cases"])
    assert all(case["cpu_against_bare"]["n"] == 3 for case in found["cases"])
    assert "cores of" in capsys.readouterr().out.splitlines()[0]


def test_executors_without_ray(run: Any) -> None:
    (case,) = run("executors", "--executors", "inline")["slices"].values()
    assert set(case) == {"plain", "inline"}
    assert case["plain"]["images_per_cpu_second_against"]["plain"] == {"median": 1.0, "min": 1.0, "max": 1.0, "n": 1}
    assert case["plain"]["runs"][0]["images"] == case["inline"]["runs"][0]["images"] == 8
    assert all(_is_ratio(variant["images_per_cpu_second_against"]["plain"]) for variant in case.values())


def test_reduction(run: Any) -> None:
    (case,) = run("reduction")["cases"]
    assert case["wall_exact_against_fast"]["n"] == 2
    assert _is_ratio(case["wall_exact_against_fast"]) and _is_ratio(case["cpu_exact_against_fast"])


def test_startup_in_process(run: Any) -> None:
    (stages,) = run("startup")["runs"]["0"]
    for seconds in stages.values():
        moments = list(seconds.values())
        assert list(seconds) == ["checked", "attempt", "first step", "last step", "ended"]
        assert moments == sorted(moments) and moments[0] > 0


def test_cifar_plain(run: Any) -> None:
    (plain,) = run("cifar")["plain"]
    assert plain["steps"] == 3  # 40 images in batches of 16
    assert 0 <= plain["test_accuracy"] <= 1
    assert plain["seconds_after_the_mark"] > 0


def test_recipe_is_that_of_the_config(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from raycls.config.load import load

    cifar = importlib.import_module("cifar")
    config, recipe = load(cifar.CONFIG).run, cifar.Recipe.read(None)
    assert recipe.lr == config.optim.lr and recipe.weight_decay == config.optim.weight_decay
    assert recipe.batch == config.data.batch_size and recipe.mean == config.augment.mean
    assert recipe.epochs == config.train.duration.value and recipe.warmup_epochs == config.schedule.warmup.value
    assert config.optim.momentum == 0.9 and config.loss.label_smoothing == 0 and config.model.init == "default"
    sys.modules.pop("cifar", None)
