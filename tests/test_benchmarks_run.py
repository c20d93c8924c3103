"""The benchmarks run: each with sizes that measure nothing, and what it writes is the JSON that the page promises."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

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


@pytest.mark.nightly
def test_loop(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    found = run("loop")
    assert [case["micro_batches"] for case in found["cases"]] == [1, 2]
    assert all(_is_ratio(case["cpu_against_bare"]) and _is_ratio(case["wall_against_bare"]) for case in found["cases"])
    assert all(case["cpu_against_bare"]["n"] == 3 for case in found["cases"])
    assert "cores of" in capsys.readouterr().out.splitlines()[0]


@pytest.mark.nightly
def test_loop_recipe(run: Any) -> None:
    found = run("loop_recipe", "--peer", "timm", "bare")
    assert [case["peer"] for case in found["cases"]] == ["timm", "bare"]
    assert all(_is_ratio(case["cpu_against_peer"]) and _is_ratio(case["wall_against_peer"]) for case in found["cases"])


@pytest.mark.nightly
def test_crf(run: Any) -> None:
    found = run("crf")
    assert [case["seed"] for case in found["cases"]] == [0, 1] and found["gain"]["low"] <= found["gain"]["mean"]
    assert all(case["val"]["with"] >= case["val"]["without"] for case in found["cases"])


@pytest.mark.nightly
def test_volumes(run: Any) -> None:
    found = run("volumes")
    assert [case["executor"] for case in found["cases"]] == ["inline", "processes"]
    assert all(case["reads_per_volume_and_epoch"] == 1 and case["peak_bytes"] > 10**8 for case in found["cases"])


@pytest.mark.nightly
def test_packed(run: Any) -> None:
    found = run("packed")["variants"]
    packed = {f"{form} {stored}" for form in ("arrow", "parquet") for stored in ("JPEG", "raw")}
    fast = {f"{name}, fast" for name in ("files", "arrow JPEG", "arrow raw", "without reading")}
    assert found.keys() == {"reference", "files", "without reading", *packed, *fast}
    assert all(_is_ratio(variant["against_reference"]) for variant in found.values())


@pytest.mark.nightly
def test_executors_without_ray(run: Any) -> None:
    (case,) = run("executors", "--executors", "inline")["slices"].values()
    assert set(case) == {"plain", "inline"}
    assert case["plain"]["images_per_cpu_second_against"]["plain"] == {"median": 1.0, "min": 1.0, "max": 1.0, "n": 1}
    assert case["plain"]["runs"][0]["images"] == case["inline"]["runs"][0]["images"] == 8
    assert all(_is_ratio(variant["images_per_cpu_second_against"]["plain"]) for variant in case.values())


@pytest.mark.nightly
def test_decoding(run: Any) -> None:
    found = run("decoding", "--before", str(Path(__file__).parents[1]))["variants"]
    assert {"raycls", "raycls, resampling: fast", "raycls before", "torchvision.io + v2", "timm"} <= set(found)
    assert all(_is_ratio(variant["images_per_cpu_second_against"]["raycls before"]) for variant in found.values())


@pytest.mark.nightly
def test_reduction(run: Any) -> None:
    (case,) = run("reduction")["cases"]
    assert case["wall_exact_against_fast"]["n"] == 2
    assert _is_ratio(case["wall_exact_against_fast"]) and _is_ratio(case["cpu_exact_against_fast"])


@pytest.mark.nightly
def test_startup_in_process(run: Any) -> None:
    (found,) = run("startup")["runs"]["workers 0"]
    assert found["processes"][0][0] == "the command"
    assert 0 < found["first_line"] <= found["wall_seconds"]["ended"]
    for seconds in (found["wall_seconds"], found["cpu_seconds"]):
        moments = list(seconds.values())
        assert list(seconds) == ["checked", "attempt", "first step", "last step", "ended"]
        assert moments == sorted(moments) and moments[0] > 0


@pytest.mark.nightly
def test_many_files(run: Any) -> None:
    found = run("many_files")
    assert set(found["files"]) == {"200", "400"}
    for (start,) in found["files"].values():
        assert 0 < start["listed_cpu_s"] <= start["first_step_cpu_s"]
        assert 0 < start["imports_mib"] <= start["most_mib"]
    assert _is_ratio(found["resident_against_fewer"]["400"])


@pytest.mark.nightly
def test_boundary_without_ray(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from raycls.run import checkpoint
    from raycls.session.recording.recorder import Recorder

    monkeypatch.setattr(checkpoint, "commit", checkpoint.commit)  # which the script clocks
    monkeypatch.setattr(Recorder, "save", Recorder.save)
    found = run("boundary", "--executors", "inline")
    epochs = found["epochs"]["inline"]
    assert epochs["steps"] == 3
    assert 0 <= epochs["first_wait_s"] <= epochs["longest_wait_s"]
    assert epochs["longest_wait_of_median_step"] == pytest.approx(epochs["longest_wait_s"] / epochs["median_step_s"])
    assert _is_ratio(found["checkpoints"]["cpu_against_none"]) and len(found["checkpoints"]["clocked_share"]) == 1
    assert found["checkpoints"]["clocked_share"][0] > 0


@pytest.mark.nightly
def test_predict(run: Any) -> None:
    found = run("predict")["models"]["tiny_cnn"]
    assert _is_ratio(found["ratio"]) and found["ratio"]["n"] == 1
    assert found["same_class"] > 0.9
    assert all(run["images"] > 0 and run["seconds"] > 0 for runs in found["runs"].values() for run in runs)


@pytest.mark.nightly
def test_cifar_plain(run: Any) -> None:
    (plain,) = run("cifar")["plain"]
    assert plain["steps"] == 3  # 40 images in batches of 16
    assert 0 <= plain["test_accuracy"] <= 1
    assert plain["seconds_after_the_mark"] > 0


@pytest.mark.nightly
@pytest.mark.timeout(400)
def test_cifar_whole(run: Any) -> None:
    found = run("cifar_whole", "--before", sys.executable)
    assert {name: len(runs) for name, runs in found["runs"].items()} == {"raycls": 1, "plain": 1, "before": 1}
    assert all(_is_ratio(found["ratios"][name][kind]) for name in ("plain", "before") for kind in ("wall", "cpu"))
    assert 0 <= found["runs"]["raycls"][0]["data_wait"] <= 1


@pytest.mark.nightly
@pytest.mark.timeout(400)
def test_cifar_fast(run: Any) -> None:
    found = run("cifar_fast")
    assert {name: len(runs) for name, runs in found["runs"].items()} == {"plain": 1, "quick": 1}
    assert all(run["cpu_seconds"] > 0 for runs in found["runs"].values() for run in runs)
    assert _is_ratio(found["cpu_against_plain"]["quick"])


@pytest.mark.nightly
@pytest.mark.timeout(400)
def test_finetune(run: Any) -> None:
    found = run("finetune")
    assert {name: len(values) for name, values in found["accuracy"].items()} == {
        "fine-tuned": 1,
        "from scratch": 1,
        "small": 1,
    }


def test_an_interval_is_that_of_the_mean_by_student(monkeypatch: pytest.MonkeyPatch) -> None:
    """n = 3: t = 4.3027 with two degrees of freedom, standard error 1 / sqrt(3)."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    measure = importlib.import_module("measure")
    assert measure.interval([1.0, 2.0, 3.0]) == pytest.approx((2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), abs=1e-4)
    sys.modules.pop("measure", None)


@pytest.mark.nightly
def test_prune(run: Any) -> None:
    found = run("prune")
    assert set(found["accuracy"]) == {"before", "pruned", "fine-tuned"}
    assert 0.2 < found["pruned"]["after"]["flops"] / found["pruned"]["before"]["flops"] < 0.3


@pytest.mark.nightly
@pytest.mark.ray
@pytest.mark.timeout(400)
def test_search(run: Any) -> None:
    found = run("search", "quality", "overhead", "many")
    (pair,) = found["quality"]["repetitions"]
    assert pair["random_epochs"] == 4  # two trials of two epochs
    assert pair["evaluations_in_both"] == pair["the_same_to_the_bit"] == pair["asha_epochs"] >= 3
    assert pair["random_to_near"] is not None
    assert set(found["overhead"]["runs"]) == {"plain", "raycls"}
    assert all(found["overhead"]["runs"]["raycls"][0][part] > 0 for part in ("training", "all"))
    functions = {row["function"] for row in found["overhead"]["profile"]["functions"]}
    assert {"session/training.py:train", "train/loop.py:train"} <= functions
    assert found["many"]["ledger_lines_per_trial"] == {"trial": 1, "result": 1, "end": 1}
    assert set(found["many"]["groups"]) >= {"driver", "trials", "raylet"}
    assert max(sample["trials"]["processes"] for sample in found["many"]["samples"]) >= 1


@pytest.mark.nightly
def test_asha_played_on_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four trials one after another, reduction 4, one rung, after 3 of 6 epochs: by hand."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    quality = importlib.import_module("search_quality")
    monkeypatch.setattr(quality, "slots", lambda: 1)
    curves = {
        trial: [quality.Point(trial, epoch, level + epoch / 1000, float(epoch)) for epoch in range(1, 7)]
        for trial, level in enumerate((0.5, 0.6, 0.4, 0.9), 1)
    }
    played = quality._played(curves, list(curves), 6, 0)
    # The first two and the last are the best that came so far; the third is not, after its third epoch.
    assert [(point.trial, point.epoch) for point in played] == [
        (trial, epoch) for trial in (1, 2, 3, 4) for epoch in range(1, 4 if trial == 3 else 7)
    ]
    assert quality._ratio(played, 0.9, 24) == pytest.approx(16 / 24)  # six, six, three, and the first of the last
    assert quality._ratio(played, 0.95, 24) is None
    assert quality._spread([0.2, None, 0.5]) == {
        "median": 0.5,
        "min": 0.2,
        "max": None,
        "n": 3,
        "not_reached": 1,
        "within_target": 1,
        "all": [0.2, None, 0.5],
    }
    for name in ("search_quality", "searching", "measure"):
        sys.modules.pop(name, None)


@pytest.mark.nightly
def test_recipe_is_that_of_the_config(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from raycls.config.load import load

    cifar = importlib.import_module("cifar")
    config, recipe = load(cifar.CONFIG).run, cifar.Recipe.read(None)
    assert recipe.lr == config.optim.lr and recipe.weight_decay == config.optim.weight_decay
    assert recipe.batch == config.data.batch_size and recipe.mean == config.augment.mean
    assert recipe.epochs == config.train.duration.value and recipe.warmup_epochs == config.schedule.warmup.value
    assert (
        config.optim.args["momentum"] == 0.9
        and config.loss.args == {"label_smoothing": 0}
        and config.model.init == "default"
    )
    sys.modules.pop("cifar", None)


@pytest.mark.nightly
def test_remote(run: Any) -> None:
    found = run("remote")
    assert found["away_for_a_while"] == {"exit": 0, "told": True, "same_weights": True}
    gone = found["away_for_good"]
    assert (gone["exit"], gone["named"], gone["same_weights"]) == (4, True, True) and gone["resumed_from"] > 0
    assert all(_is_ratio(ratio) for ratio in found["against_folder"].values())
