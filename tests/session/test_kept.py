"""Which weights a run keeps, and which of them are evaluated."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from harness.jobs import curve, make_job, train, train_rank_stopped, weights, write_arrays
from harness.ranks import run_ranks
from safetensors.torch import load_file

from raycls.config.load import load
from raycls.errors import ConfigError
from raycls.launch import trainer
from raycls.run import checkpoint
from raycls.run.folder import RunFolder
from raycls.run.model_file import read_model
from raycls.screen.run import Display
from raycls.session import training
from raycls.session.job import World
from raycls.session.messages import Event
from raycls.session.prepare import prepare
from raycls.train.reasons import Reason

# The rate is too high to keep: the third of the six evaluations is the best one.
_OPTIONS = ("data.batch_size=16", "train.micro_batches=2", "train.duration=6ep", "evaluate.metric=loss", "optim.lr=0.4")
_BEST = "evaluate.keep=best"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_arrays(tmp_path_factory.mktemp("data") / "data.npz", train=48, val=20)


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose best weights are not its last."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    train(make_job(folder, data, *_OPTIONS, _BEST))
    return folder


def _json(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text())


def _evaluate(folder: Path, which: str | None = None) -> dict[str, Any]:
    return trainer.evaluate(str(folder), split="val", weights=which, display=Display(io.StringIO()))


def _stopped_in_epoch(epoch: int) -> World:
    """A world that asks to stop after one step of this epoch, from 0: each asks before 3 steps and 2 batches of val."""
    asked = iter([""] * (5 * epoch + 1) + [Reason.SIGINT])
    return World(stop_requested=lambda: next(asked))


def _losses(folder: Path) -> dict[int, float]:
    return {record["step"]: record["loss"] for record in curve(folder) if record["kind"] == "evaluate"}


@pytest.mark.parametrize("ema", ["off", "0.5"])
def test_the_best_weights_are_those_of_a_run_that_ended_there(data: Path, tmp_path: Path, ema: str) -> None:
    option = f"optim.ema={ema}"
    result = train(make_job(tmp_path / "best", data, *_OPTIONS, _BEST, option))
    train(make_job(tmp_path / "last", data, *_OPTIONS, "evaluate.keep=last", option))
    losses = _losses(tmp_path / "best")
    best = min(losses, key=losses.__getitem__)
    assert 3 <= best < 18, "choose a recipe whose last evaluation is not its best one"
    train(make_job(tmp_path / "short", data, *_OPTIONS, "evaluate.keep=last", option, f"train.duration={best}st"))
    assert weights(tmp_path / "best") == weights(tmp_path / "short") != weights(tmp_path / "last")

    info = _json(tmp_path / "best", "model/model.json")["weights"]
    assert (info["name"], info["step"]) == ("best", best) and "val loss" in info["reason"]
    assert result["kept"] == _json(tmp_path / "best", "result.json")["kept"] == {"asked": "best", **info}
    assert result["best"]["loss"] == result["best"]["value"] == losses[best]
    assert {"top1", "f1_macro", "count", "split"} <= result["best"].keys()
    assert (result["final"]["step"], result["final"]["loss"]) == (18, losses[18])
    assert _json(tmp_path / "last", "model/model.json")["weights"]["name"] == "last"
    # what is kept changes nothing that is trained
    one, other = (checkpoint.load(RunFolder(tmp_path / name), 18).trees for name in ("best", "last"))
    for tree in ("model", *(["ema"] if ema != "off" else [])):
        assert one[tree].keys() == other[tree].keys()
        assert all(one[tree][name].equal(other[tree][name]) for name in one[tree])


def test_an_evaluation_says_which_weights_it_is_of(finished: Path) -> None:
    losses, best = _losses(finished), _json(finished, "best.json")["step"]
    found = {which: _evaluate(finished, which) for which in (None, "best", "last", f"step-{best}", "step-18")}
    assert [summary["loss"] for summary in found.values()] == [losses[step] for step in (best, best, 18, best, 18)]
    assert found[None]["weights"] == found["best"]["weights"] == {"name": "best", "step": best}
    assert found["last"]["weights"] == {"name": "last", "step": 18}
    assert found["step-18"]["weights"] == {"name": "step-18", "step": 18}


@pytest.mark.parametrize("which", ["bset", "step-4", "step-", "4", "step-0"])
def test_weights_that_are_not_there_are_told_with_those_that_are(finished: Path, which: str) -> None:
    best = _json(finished, "best.json")["step"]
    with pytest.raises(ConfigError) as caught:
        _evaluate(finished, which)
    assert caught.value.found == f"--weights {which}"
    steps = ", ".join(f"step-{step}" for step in RunFolder(finished).steps())
    assert caught.value.valid == f"best (step {best}), last (step 18), {steps}"


def test_a_run_under_way_is_evaluated_by_its_checkpoints(data: Path, tmp_path: Path) -> None:
    training.train(make_job(tmp_path / "run", data, *_OPTIONS, _BEST), _stopped_in_epoch(1))
    with pytest.raises(ConfigError, match="no finished model") as caught:
        _evaluate(tmp_path / "run")
    assert caught.value.valid == "best (step 3), last (step 4), step-3, step-4"
    assert "--weights best" in str(caught.value.fix)
    assert _evaluate(tmp_path / "run", "step-4")["weights"]["step"] == 4
    assert _evaluate(tmp_path / "run", "best")["loss"] == _losses(tmp_path / "run")[3]


@pytest.mark.parametrize("keep", ["best", "last"])
def test_a_run_that_goes_on_is_not_evaluated_by_what_it_kept_before(data: Path, tmp_path: Path, keep: str) -> None:
    options = (*_OPTIONS, f"evaluate.keep={keep}")
    train(make_job(tmp_path / "run", data, *options, "train.duration=1ep"))
    assert _evaluate(tmp_path / "run")["weights"] == {"name": keep, "step": 3}
    training.train(make_job(tmp_path / "run", data, *options), _stopped_in_epoch(2))
    best, last = _json(tmp_path / "run", "best.json")["step"], RunFolder(tmp_path / "run").steps()[-1]
    assert 3 < best < last
    assert _json(tmp_path / "run", "model/model.json")["weights"]["step"] == 3
    found = _evaluate(tmp_path / "run")
    assert found["weights"] == {"name": keep, "step": {"best": best, "last": last}[keep]}
    assert found["loss"] == _evaluate(tmp_path / "run", keep)["loss"]
    assert _evaluate(tmp_path / "run", "step-3")["loss"] == _losses(tmp_path / "run")[3]


@pytest.mark.slow
def test_the_best_of_an_earlier_start_is_kept_by_other_workers(data: Path, finished: Path, tmp_path: Path) -> None:
    job, best = make_job(tmp_path / "run", data, *_OPTIONS, _BEST), _json(finished, "best.json")["step"]
    training.train(job, _stopped_in_epoch(best // 3))
    assert not (tmp_path / "run" / "model").exists()
    result = run_ranks(2, train_rank_stopped, job, 1000, "sigint")[0]
    assert (result["kept"]["name"], result["kept"]["step"], result["step"]) == ("best", best, 18)
    assert weights(tmp_path / "run") == weights(finished)


@pytest.mark.faults
@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_a_damaged_best_checkpoint_is_told_and_the_last_weights_are_kept(
    data: Path, tmp_path: Path, damage: str
) -> None:
    job = make_job(tmp_path / "run", data, *_OPTIONS, _BEST)
    training.train(job, _stopped_in_epoch(5))
    best = _json(tmp_path / "run", "best.json")["step"]
    file = tmp_path / "run" / "checkpoints" / f"step-{best:08d}" / "model.safetensors"
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-1] + b"\x55")
    said: list[dict[str, Any]] = []
    result = training.train(job, World(post=said.append))
    assert (result["state"], result["kept"]["asked"], result["kept"]["name"]) == ("done", "best", "last")
    assert f"step {best}" in result["kept"]["reason"]
    (warning,) = (one.text for one in said if isinstance(one, Event) and "best" in one.text)
    assert f"step {best}" in warning and "model.safetensors" in warning and "last" in warning
    assert _json(tmp_path / "run", "model/model.json")["weights"]["step"] == 18
    assert _evaluate(tmp_path / "run")["loss"] == _losses(tmp_path / "run")[18]


def test_without_an_evaluation_the_last_weights_are_kept(data: Path, tmp_path: Path) -> None:
    result = train(make_job(tmp_path / "run", data, *_OPTIONS, _BEST, "evaluate.every=off", "train.duration=1ep"))
    assert (result["kept"]["asked"], result["kept"]["name"], result["kept"]["step"]) == ("best", "last", 3)


def test_a_run_that_stops_early_keeps_its_best(data: Path, tmp_path: Path) -> None:
    options = ("train.early_stop.patience=1", "train.duration=30ep", _BEST)
    result = train(make_job(tmp_path / "run", data, *_OPTIONS, *options))
    assert result["state"] == "early" and result["kept"]["name"] == "best"
    assert result["kept"]["step"] == result["best"]["step"] == result["step"] - 3
    assert _evaluate(tmp_path / "run")["loss"] == result["best"]["value"]


def test_what_a_finished_run_keeps_can_be_changed(data: Path, tmp_path: Path) -> None:
    train(make_job(tmp_path / "run", data, *_OPTIONS, _BEST))
    best, before = weights(tmp_path / "run"), _losses(tmp_path / "run")
    result = train(make_job(tmp_path / "run", data, *_OPTIONS, "evaluate.keep=last"))
    assert (result["state"], result["step"], result["kept"]["name"]) == ("done", 18, "last")
    assert weights(tmp_path / "run") != best and _losses(tmp_path / "run") == before
    last = load_file(tmp_path / "run" / "model" / "model.safetensors")
    trained = checkpoint.load(RunFolder(tmp_path / "run"), 18).trees["model"]
    assert all(last[name].equal(trained[name]) for name in trained)
    train(make_job(tmp_path / "run", data, *_OPTIONS, _BEST))
    assert weights(tmp_path / "run") == best


def test_without_checkpoints_a_finished_run_stays_as_it_is(data: Path, tmp_path: Path) -> None:
    train(make_job(tmp_path / "run", data, *_OPTIONS, _BEST, "train.duration=1ep"))
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    run = load(tmp_path / "run" / "config.yaml", ["evaluate.keep=last"]).run
    said: list[str] = []
    assert prepare(run, new=False, command=(), say=said.append).result is not None
    assert len(said) == 1 and "evaluate.keep" in said[0]
    assert read_model(RunFolder(tmp_path / "run"))[1]["weights"]["name"] == "best"
