"""How a run ends and what it keeps: best, early stop, plateau, budget, checkpoints by time, skipped steps."""

from __future__ import annotations

import csv
import json
import math
import re
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from harness.errors import raised
from harness.jobs import curve, make_job, train, weights, write_arrays
from safetensors.torch import load_file

from raycls.data import order
from raycls.errors import CheckpointError, TrainError
from raycls.run import checkpoint
from raycls.run.folder import RunFolder, read_json_lines
from raycls.session import training
from raycls.session.job import World
from raycls.tasks.classification import Classification, summarise
from raycls.train import loop
from raycls.train.plan import Plan
from raycls.train.reasons import Reason

_OPTIONS = ("data.batch_size=16", "track.log_every=1st", "train.micro_batches=2")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_arrays(tmp_path_factory.mktemp("data") / "data.npz", train=48, val=20)


def _evaluations(folder: Path) -> list[dict]:
    return [record for record in curve(folder) if record["kind"] == "evaluate"]


def test_run_folder_is_complete(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    result = train(make_job(folder, data, *_OPTIONS, "train.duration=2ep"))
    for name in ("config.yaml", "env.json", "plan.json", "history.jsonl", "history.csv", "curves.svg", "best.json"):
        assert (folder / name).stat().st_size > 0, name
    assert (folder / "events").is_dir()
    written = json.loads((folder / "result.json").read_text())
    assert {key: written[key] for key in ("state", "step", "best", "final")} == {
        key: result[key] for key in ("state", "step", "best", "final")
    }
    info = json.loads((folder / "model" / "model.json").read_text())
    assert info["classes"] == ["0", "1", "2", "3"]
    assert info["preprocessing"]["mean"] == [0.485, 0.456, 0.406]
    rows = list(csv.DictReader((folder / "history.csv").read_text().splitlines()))
    assert [(row["kind"], int(row["step"])) for row in rows] == [
        (record["kind"], record["step"]) for record in curve(folder)
    ]
    plan = json.loads((folder / "plan.json").read_text())
    assert (plan["reduction"], plan["device"], plan["precision"]) == ("exact", "cpu", "off")


def test_best_is_kept(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    options = (*_OPTIONS, "train.duration=6ep", "evaluate.metric=loss", "checkpoint.keep=1", "optim.lr=0.4")
    result = train(make_job(folder, data, *options))
    losses = {record["step"]: record["loss"] for record in _evaluations(folder)}
    best = min(losses, key=losses.__getitem__)
    assert list(losses) == [3, 6, 9, 12, 15, 18]
    assert (result["best"]["step"], result["best"]["value"]) == (best, losses[best])
    assert json.loads((folder / "best.json").read_text())["step"] == best
    assert best != 18, "choose a recipe whose last evaluation is not its best one"
    assert RunFolder(folder).steps() == sorted({best, 18})
    kept = checkpoint.load(RunFolder(folder), best).trees["train"]
    assert kept["best"]["value"] == losses[best]
    # the marks in the history: an evaluation is the best one so far
    lowest = float("inf")
    for record in _evaluations(folder):
        assert record["best"] == (record["loss"] < lowest)
        lowest = min(lowest, record["loss"])


def test_early_stop(data: Path, tmp_path: Path) -> None:
    """A rate of almost nothing: no evaluation after the first can improve on it by 0.5."""
    folder = tmp_path / "run"
    options = (*_OPTIONS, "train.duration=50ep", "optim.lr=1e-9", "train.early_stop={patience: 3, min_delta: 0.5}")
    result = train(make_job(folder, data, *options))
    assert (result["state"], result["step"]) == ("early", 4 * 3)
    assert (folder / "model" / "model.safetensors").exists()
    assert json.loads((folder / "result.json").read_text())["state"] == "early"
    again = train(make_job(folder, data, *options))  # a finished run does not go on
    assert (again["state"], again["step"]) == ("early", 12)
    assert len(_evaluations(folder)) == 4


def test_plateau(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    options = ("evaluate.metric=top1", "optim.lr=1e-9", "schedule={name: plateau, args: {gamma: 0.5, patience: 2}}")
    train(make_job(folder, data, *_OPTIONS, "train.duration=7ep", *options))
    tops = [record["top1"] for record in _evaluations(folder)]
    assert len(set(tops)) == 1, "at this rate no accuracy may change"
    rates = [record["lr"] for record in curve(folder) if record["kind"] == "train"]
    # evaluations at the epochs 1 (the first is the best), 3 and 5 complete two without improvement
    assert rates == pytest.approx([1e-9] * 9 + [5e-10] * 6 + [2.5e-10] * 6, rel=1e-12)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
@pytest.mark.parametrize("metric", ["top1", "loss"])
def test_a_loss_that_is_not_finite_is_never_the_best(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metric: str, loss: float
) -> None:
    """The accuracy rises from evaluation to evaluation, which says nothing where the logits are NaN."""
    hits = iter(range(5, 20))

    def evaluate(model: object, slices: Iterable, *_: object, **__: object) -> dict:
        assert len(list(slices)) == 2
        right = next(hits)
        confusion = np.zeros((4, 4), np.int64)
        confusion[0, :2] = right, 20 - right
        return summarise(confusion, loss if right > 6 else 30.0, 20, list("0123"))

    monkeypatch.setattr(training, "evaluate_model", evaluate)
    options = ("train.duration=9ep", f"evaluate.metric={metric}", "train.early_stop.patience=4")
    schedule = "schedule={name: plateau, args: {gamma: 0.5, patience: 3}}"
    result = train(make_job(tmp_path / "run", data, *_OPTIONS, *options, schedule))
    best = 6 if metric == "top1" else 3  # for the loss the second 1.5 is no improvement
    records = _evaluations(tmp_path / "run")
    assert [record["step"] for record in records if record["best"]] == [3, 6][: best // 3]
    assert result["best"]["step"] == json.loads((tmp_path / "run" / "best.json").read_text())["step"] == best
    assert (result["state"], result["step"]) == ("early", best + 12)
    rates = [record["lr"] for record in curve(tmp_path / "run") if record["kind"] == "train"]
    assert rates[-1] == pytest.approx(rates[0] / 2)


def test_plateau_survives_a_stop(data: Path, tmp_path: Path) -> None:
    options = ("optim.lr=1e-9", "schedule={name: plateau, args: {gamma: 0.5, patience: 2}}", "train.duration=7ep")
    train(make_job(tmp_path / "whole", data, *_OPTIONS, *options))
    for after in (7, 4):
        asked = iter([""] * after + [Reason.SIGINT])
        world = World(stop_requested=lambda asked=asked: next(asked))
        training.train(make_job(tmp_path / "cut", data, *_OPTIONS, *options), world)
    train(make_job(tmp_path / "cut", data, *_OPTIONS, *options))
    assert curve(tmp_path / "cut") == curve(tmp_path / "whole")


def test_a_model_cannot_end_the_command(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Classification, "loss", lambda *_: exit(0))
    with pytest.raises(TrainError, match=r"called sys\.exit"):
        train(make_job(tmp_path / "run", data, *_OPTIONS))


class _Slow:
    """Makes every step take at least this long, so that a time passes in a known number of steps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
        def key(seed: int, step: int, micro: int) -> int:
            time.sleep(seconds if micro == 0 else 0)
            return order.key(seed, step, micro)

        monkeypatch.setattr(loop, "key", key)


def test_budget(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = (*_OPTIONS, "train.duration=8ep")
    train(make_job(tmp_path / "whole", data, *options))
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        _Slow(patch, 0.5)
        result = train(make_job(folder, data, *options, "train.budget=2s"))
    assert result["state"] == "budget"
    assert 1 <= result["step"] <= 5
    assert result["seconds"] >= 2
    assert RunFolder(folder).steps()[-1] == result["step"]
    assert (folder / "model" / "model.safetensors").exists()
    spent = train(make_job(folder, data, *options, "train.budget=2s"))  # the budget counts all starts
    assert (spent["state"], spent["step"]) == ("budget", result["step"])
    assert train(make_job(folder, data, *options))["state"] == "done"
    assert weights(folder) == weights(tmp_path / "whole")
    assert curve(folder) == curve(tmp_path / "whole")


def test_checkpoints_by_time(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _Slow(monkeypatch, 0.1)
    folder = tmp_path / "run"
    options = ("train.duration=12st", "evaluate.every=off", "checkpoint.every=0.5s", "checkpoint.keep=100")
    began = time.monotonic()
    train(make_job(folder, data, *_OPTIONS, *options))
    steps = RunFolder(folder).steps()
    assert steps[-1] == 12
    # twelve steps of 0.1 s or more: two times half a second, and the end
    assert 2 <= len(steps) <= (time.monotonic() - began) / 0.5 + 1
    assert min(later - earlier for earlier, later in zip([0, *steps], steps[:-1], strict=False)) >= 1


def test_not_finite_is_an_error_with_a_way_out(data: Path, tmp_path: Path) -> None:
    options = (*_OPTIONS, "optim.lr=1e30", "train.duration=3ep", "evaluate.every=off")
    first = re.compile(r"a gradient that is not finite \(loss [^()]*\)$")
    with raised(TrainError, what=first, fix=re.compile(r"or train\.non_finite=skip,")):
        train(make_job(tmp_path / "run", data, *options))
    assert not (tmp_path / "run" / "model").exists()


def test_skipped_steps_are_logged_and_keep_the_weights(data: Path, tmp_path: Path) -> None:
    """Once the weights are beyond all bounds every step is skipped, until the run is given up."""
    options = (*_OPTIONS, "optim.lr=1e30", "train.duration=20ep", "evaluate.every=off", "train.non_finite=skip")
    with raised(
        TrainError, what=re.compile(": 10 such steps in a row end the run$"), fix=re.compile("warmup, and start")
    ):
        train(make_job(tmp_path / "run", data, *options))
    skipped = [record.get("skipped_steps", 0) for record in curve(tmp_path / "run")]
    assert skipped[-9:] == [1] * 9  # the tenth in a row ends the run
    noted = read_json_lines(RunFolder(tmp_path / "run").store, RunFolder.NON_FINITE)
    steps = [line["step"] for line in noted]
    assert steps == list(range(steps[-1] - len(steps) + 1, steps[-1] + 1))
    assert len(steps) >= 10
    job = make_job(tmp_path / "other", data, *options)
    order = Plan.from_dict(job.plan).order
    assert [line["ids"] for line in noted] == [order.batch(step - 1).tolist() for step in steps]
    assert all("nan" in line["loss"] + line["grad_norm"] or "inf" in line["loss"] + line["grad_norm"] for line in noted)


def test_moving_average_is_what_is_kept(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(make_job(folder, data, *_OPTIONS, "train.duration=2ep", "optim.ema=0.5"))
    trees = checkpoint.load(RunFolder(folder), 6).trees
    final = load_file(folder / "model" / "model.safetensors")
    for name, value in final.items():
        assert torch.equal(value, trees["ema"][f"module.{name}"])
    assert any(not torch.equal(value, trees["model"][name]) for name, value in final.items())


def test_a_failing_disk_ends_the_run_with_its_reason(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from raycls.run import checkpoint_files

    def full(*args: object, **options: object) -> None:
        raise CheckpointError("no space left", where="there")

    job = make_job(tmp_path / "run", data, *_OPTIONS, "train.duration=4ep", "checkpoint.every=1st")
    monkeypatch.setattr(checkpoint_files, "write", full)
    with pytest.raises(CheckpointError, match="no space left"):
        train(job)
    assert not (tmp_path / "run" / "result.json").exists()
    monkeypatch.undo()
    assert train(make_job(tmp_path / "run", data, *_OPTIONS, "train.duration=4ep"))["state"] == "done"
