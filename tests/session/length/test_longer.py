"""A run that is trained for longer is the run that was started for that long, or is refused with what works."""

from __future__ import annotations

import json
import re
import shlex
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from harness.jobs import curve, make_job, train, weights, write_arrays

from raycls.config.load import from_dict, load
from raycls.config.names.builtin import SCHEDULES
from raycls.config.sections.duration import Duration
from raycls.errors import ConfigError
from raycls.run import checkpoint
from raycls.run.folder import RunFolder
from raycls.run.ledgers import sample_ledger
from raycls.session import training
from raycls.session.job import World
from raycls.session.length.longer import check_longer
from raycls.session.prepare import prepare
from raycls.train.plan import Plan
from raycls.train.reasons import Reason

_OPTIONS = ("data.batch_size=16", "train.micro_batches=2", "track.log_every=1st", "train.ledger=ids")
_BEST = ("evaluate.keep=best", "evaluate.metric=loss")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three steps per epoch."""
    return write_arrays(tmp_path_factory.mktemp("data") / "data.npz", train=48, val=20)


def _state(folder: Path) -> dict[str, Any]:
    """All that a run leaves which says what it trained and decided."""
    run = RunFolder(folder)
    result = json.loads((folder / "result.json").read_text())
    values = checkpoint.load(run, run.steps()[-1]).trees["train"]
    return {
        "result": {name: result[name] for name in ("state", "step", "epochs", "best", "final", "kept")},
        "best": json.loads((folder / "best.json").read_text()) if (folder / "best.json").exists() else None,
        "train": {name: values[name] for name in values if name != "elapsed"},
        "weights": weights(folder),
        "last": {name: value.tolist() for name, value in checkpoint.load(run, run.steps()[-1]).trees["model"].items()},
        "curve": curve(folder),
        "plan": json.loads((folder / "plan.json").read_text()),
        "duration": load(folder / "config.yaml").run.train.duration,
    }


@pytest.mark.parametrize(
    ("short", "options"),
    [
        pytest.param("2ep", (), marks=pytest.mark.slow),
        ("2ep", ("schedule={name: plateau, args: {gamma: 0.5, patience: 1}}", "optim.lr=0.4")),
        pytest.param("3ep", ("schedule={name: step, args: {every: 1ep}, warmup: 1ep}",), marks=pytest.mark.slow),
        ("4ep", ("schedule={name: multistep, args: {milestones: [1ep, 10st]}}", "optim={ema: 0.9, lr: 0.05}")),
        pytest.param(
            "1ep",
            ("schedule={name: exponential, args: {gamma: 0.8}}", "train.early_stop.patience=2", "evaluate.every=1st"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "2ep", ("schedule={name: cosine_restarts, args: {every: 4st, period_factor: 1.5}}",), marks=pytest.mark.slow
        ),
        pytest.param("4st", ("evaluate.every=4st",), marks=pytest.mark.slow),
        ("4st", ("evaluate.every=off", "checkpoint.every=50%")),
    ],
)
def test_it_is_the_run_that_was_started_for_that_long(
    data: Path, tmp_path: Path, short: str, options: tuple[str, ...]
) -> None:
    whole, grown = tmp_path / "whole" / "run", tmp_path / "grown" / "run"
    recipe = (*_OPTIONS, *_BEST, *options)
    train(make_job(whole, data, *recipe, "train.duration=6ep"))
    first = train(make_job(grown, data, *recipe, f"train.duration={short}"))
    assert first["state"] == "done" and first["step"] < 18
    train(make_job(grown, data, *recipe, "train.duration=6ep"))
    assert _state(grown) == _state(whole)
    report = sample_ledger.check(RunFolder(grown))
    assert report.ok and report.steps == _state(whole)["result"]["step"]
    again = prepare(load(grown / "config.yaml").run, new=False, command=(), say=lambda text: None)
    assert again.result is not None and again.result["step"] == report.steps


@pytest.mark.faults
@pytest.mark.parametrize("written", ["config.yaml", "plan.json"])
def test_a_kill_while_the_length_is_written_down_costs_nothing(
    data: Path, tmp_path: Path, written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    grown = tmp_path / "run"
    train(make_job(grown, data, *_OPTIONS, "train.duration=1ep"))
    job = make_job(grown, data, *_OPTIONS, "train.duration=2ep")
    monkeypatch.setattr(training, "write_duration", _killed) if written == "config.yaml" else monkeypatch.setattr(
        RunFolder, "write_json", _killed
    )
    with pytest.raises(KeyboardInterrupt):
        training.train(job, World())
    monkeypatch.undo()
    assert train(make_job(grown, data, *_OPTIONS, "train.duration=2ep"))["step"] == 6
    assert json.loads((grown / "plan.json").read_text())["total_steps"] == 6
    assert str(load(grown / "config.yaml").run.train.duration) == "2ep"


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def _refused(folder: Path, data: Path, *options: str, to: str = "train.duration=6ep") -> ConfigError:
    train(make_job(folder, data, *_OPTIONS, *options, "train.duration=4ep"))
    with pytest.raises(ConfigError) as caught:
        make_job(folder, data, *_OPTIONS, *options, to)
    return caught.value


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (("schedule.name=cosine",), "schedule.name: cosine"),
        (("schedule.warmup=10%",), "schedule.warmup 10%"),
        (("schedule={name: step, args: {every: 50%}}",), "schedule.args.every 50%"),
        (("schedule={name: multistep, args: {milestones: [1ep, 50%]}}",), "schedule.args.milestones[1] 50%"),
        (("schedule={name: cosine_restarts, args: {every: 25%}}",), "schedule.args.every 25%"),
        (("evaluate.every=25%",), "evaluate.every 25%"),
        (("evaluate.every=5st", "schedule={name: plateau, args: {patience: 1}}"), "schedule.name: plateau"),
        (("evaluate.every=5st", "train.early_stop={patience: 2, min_delta: 0.0}"), "train.early_stop.patience"),
        (("evaluate.every=11st", "evaluate.metric=loss", "optim.lr=0.001"), "it is the best one"),
    ],
)
def test_what_follows_from_the_length_is_named_with_the_command_that_works(
    data: Path, tmp_path: Path, options: tuple[str, ...], found: str
) -> None:
    folder = tmp_path / "run"
    error = _refused(folder, data, *options)
    assert found in str(error.found) and "train.duration: 4ep -> 6ep" in str(error.found)
    assert json.loads((folder / "result.json").read_text())["step"] == 12
    assert "--new" in str(error.fix) and "another run.name" in str(error.fix)
    assert ("a lower optim.lr" in str(error.fix)) == any("schedule" in option for option in options)
    assert ("the warm-up" in str(error.fix)) == any("warmup" in option for option in options)
    words = shlex.split(str(error.fix)[str(error.fix).index("raycls train") :])
    assert words[:2] == ["raycls", "train"] and {"run.name=run-2", "train.duration=2ep"} <= set(words)
    other = prepare(load(words[2], words[3:]).run, new=False, command=words, say=lambda text: None)
    assert (other.plan.total_steps, other.folder.store.describe()) == (6, str(tmp_path / "run-2"))
    assert other.run.model.weights == str(folder / "model" / "model.safetensors")


_POLYNOMIAL = "schedule.name: polynomial, which follows the length of the run"
_SCHEDULES: list[tuple[str, str, str | None]] = [
    ("constant", "{}", None),
    ("step", "{every: 1ep}", None),
    ("step", "{every: 25%}", "schedule.args.every 25%: per cent of the run"),
    ("multistep", "{milestones: [1ep, 5st]}", None),
    ("exponential", "{gamma: 0.9}", None),
    ("plateau", "{patience: 1}", None),
    ("cosine", "{}", "schedule.name: cosine, which falls over the whole run"),
    ("cosine_restarts", "{every: 4st, period_factor: 1.5}", None),
    ("polynomial", "{}", _POLYNOMIAL),
    ("polynomial", "{power: 0.5, min_factor: 0.1}", _POLYNOMIAL),
    ("polynomial", "{min_factor: 1}", None),  # 1 at every step
    ("one_cycle", "{}", "schedule.args.peak 30%: per cent of the run"),
    ("one_cycle", "{peak: 4st}", "schedule.name: one_cycle, which follows the length of the run"),
    ("wsd", "{}", "schedule.args.decay 20%: per cent of the run"),
    ("wsd", "{decay: 3st}", "schedule.name: wsd, which follows the length of the run"),
    ("wsd", "{decay: 1st}", None),  # it would fall to 0 behind the last step
    ("range_test", "{}", "schedule.name: range_test, which follows the length of the run"),
]


def test_every_schedule_is_in_the_table() -> None:
    assert {name for name, _, _ in _SCHEDULES} == set(SCHEDULES)


@pytest.mark.parametrize(("name", "args", "reason"), _SCHEDULES)
def test_a_schedule_that_follows_the_length_is_told_once(
    data: Path, tmp_path: Path, name: str, args: str, reason: str | None
) -> None:
    job = make_job(tmp_path / "run", data, *_OPTIONS, f"schedule={{name: {name}, args: {args}}}", "train.duration=4ep")
    before = from_dict(job.config)
    longer = before.model_copy(update={"train": before.train.model_copy(update={"duration": Duration(6, "ep")})})
    plan, folder = Plan.from_dict(job.plan), RunFolder(tmp_path / "run")
    said: list[str] = []
    with nullcontext() if reason is None else pytest.raises(ConfigError) as caught:
        check_longer(before, longer, plan, folder, command=(), say=said.append)
    if caught is None:
        assert said == ["train.duration: 4ep -> 6ep: the run is trained on, to step 18"]
    else:
        assert str(caught.value.found).split("\n         ") == ["train.duration: 4ep -> 6ep", reason]


def test_an_evaluation_that_decided_nothing_stands_in_no_way(data: Path, tmp_path: Path) -> None:
    """At its end, step 5, where the longer run has none: it is not the best one, and nobody counts."""
    for name in ("grown", "whole"):
        options = (*_OPTIONS, *_BEST, "evaluate.every=4st", "optim.lr=2.0")
        if name == "grown":
            train(make_job(tmp_path / name, data, *options, "train.duration=5st"))
            assert json.loads((tmp_path / name / "best.json").read_text())["step"] == 4, "choose another recipe"
        train(make_job(tmp_path / name, data, *options, "train.duration=4ep"))
    grown, whole = (_state(tmp_path / name) for name in ("grown", "whole"))
    assert (grown["weights"], grown["best"], grown["last"]) == (whole["weights"], whole["best"], whole["last"])


def test_a_run_that_ended_early_stays_ended(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    options = (*_OPTIONS, "optim.lr=1e-9", "train.early_stop={patience: 2, min_delta: 0.5}")
    assert train(make_job(folder, data, *options, "train.duration=10ep"))["state"] == "early"
    said: list[str] = []
    run = load(folder / "config.yaml", ["train.duration=20ep"]).run
    assert (prepare(run, new=False, command=(), say=said.append).result or {})["state"] == "early"
    assert any("ended at step 9 by train.early_stop.patience" in line for line in said)


def test_a_run_is_never_made_shorter(data: Path, tmp_path: Path) -> None:
    error = _refused(tmp_path / "run", data, to="train.duration=3ep")
    assert "12 -> 9 steps" in str(error.found)


def test_the_same_length_in_another_unit_is_the_same_run(data: Path, tmp_path: Path) -> None:
    train(make_job(tmp_path / "run", data, *_OPTIONS, "schedule.name=cosine", "train.duration=2ep"))
    run = load(tmp_path / "run" / "config.yaml", ["train.duration=6st"]).run
    assert prepare(run, new=False, command=(), say=lambda text: None).result is not None


def test_a_run_without_weights_yet_is_to_be_ended_first(data: Path, tmp_path: Path) -> None:
    asked = iter([""] * 4 + [Reason.SIGINT])
    options = (*_OPTIONS, "schedule.name=cosine", "evaluate.every=off")
    training.train(make_job(tmp_path / "run", data, *options), World(stop_requested=lambda: next(asked)))
    with pytest.raises(ConfigError) as caught:
        make_job(tmp_path / "run", data, *options, "train.duration=20ep")
    assert re.search(r"let it end first with train\.duration=10ep", str(caught.value.fix))


def test_a_stopped_run_may_become_longer_too(data: Path, tmp_path: Path) -> None:
    asked = iter([""] * 4 + [Reason.SIGINT])
    options = (*_OPTIONS, "evaluate.every=off")
    training.train(
        make_job(tmp_path / "run", data, *options, "train.duration=2ep"), World(stop_requested=lambda: next(asked))
    )
    train(make_job(tmp_path / "run", data, *options, "train.duration=3ep"))
    train(make_job(tmp_path / "whole", data, *options, "train.duration=3ep"))
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")
