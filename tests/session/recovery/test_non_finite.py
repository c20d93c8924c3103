"""After too many steps without a finite gradient the run goes back, leaves out what came since, and stays exact."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from harness.errors import raised
from harness.jobs import curve, make_job, train, train_rank_stopped, weights
from harness.kills import run_killed
from harness.lacking import poisoned, train_rank_poisoned
from harness.ranks import run_ranks

from raycls.config.errors import ConfigProblemsError
from raycls.config.load import load, load_text
from raycls.errors import ConfigError, TrainError
from raycls.run import checkpoint
from raycls.run.folder import RunFolder, read_json_lines
from raycls.run.ledgers.sample_ledger import check
from raycls.run.snapshot import snapshot

_STEPS = (
    "data.batch_size=32",
    "train.micro_batches=3",
    "train.duration=12st",
    "evaluate.every=4st",
    "checkpoint.every=2st",
    "checkpoint.keep=1",
    "track.log_every=1st",
    "train.ledger=ids",
    "optim.ema=0.9",
    "optim.args.momentum=0.9",
)
_REWIND = ("train.non_finite=rewind", "train.rewind.after=3")
_POISON = (4, 5, 6)
"""Three steps after the checkpoint of step 4; in the middle of them another one is due."""
_SCALED = (*_STEPS, *_REWIND, "train.amp=fp16", "train.rewind.after=2", "train.duration=24st")
_SEARCHED = range(4, 22)
"""The scale falls from 2**16 to 1 in sixteen steps, in which checkpoints are due; two more count."""


@pytest.fixture(scope="module")
def rewound(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "rewound"
    with poisoned(_POISON):
        assert train(make_job(folder, data, *_STEPS, *_REWIND))["step"] == 12
    return folder


def test_it_goes_on_with_the_state_of_the_checkpoint(rewound: Path, data: Path, tmp_path: Path) -> None:
    """As a run whose checkpoint of step 4 is said to be that of step 7."""
    expected = tmp_path / "expected"
    train_rank_stopped(0, 1, make_job(expected, data, *_STEPS), 4, "sigterm")
    trees = checkpoint.load(RunFolder(expected), 4).trees
    trees["train"]["step"] = 7
    checkpoint.commit(RunFolder(expected), snapshot(7, trees), keep=1)
    train(make_job(expected, data, *_STEPS))
    assert weights(rewound) == weights(expected)
    assert [record for record in curve(rewound) if record["step"] > 7] == [
        record for record in curve(expected) if record["step"] > 7
    ]


def test_what_was_left_out_is_told(rewound: Path) -> None:
    folder = RunFolder(rewound)
    told = [record for record in curve(rewound) if record["kind"] == "rewind"]
    assert told == [{"kind": "rewind", "step": 7, "epoch": 1.75, "back_to": 4}]
    lines = read_json_lines(folder.store, RunFolder.NON_FINITE)
    assert [line["step"] for line in lines] == [5, 6, 7, 7]
    assert {"back_to": 4, "left_out": [5, 7]}.items() <= lines[-1].items()
    skipped = {record["step"]: record.get("skipped_steps", 0) for record in curve(rewound) if record["kind"] == "train"}
    assert [skipped[step] for step in range(4, 9)] == [0, 1, 1, 1, 0]
    assert check(folder).ok


@pytest.fixture(scope="module")
def scaled(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "scaled"
    with poisoned(_SEARCHED):
        assert train(make_job(folder, data, *_SCALED))["step"] == 24
    return folder


def test_it_goes_back_behind_the_steps_in_which_loss_scaling_searched(scaled: Path) -> None:
    lines = read_json_lines(RunFolder(scaled).store, RunFolder.NON_FINITE)
    assert [line["step"] for line in lines] == [21, 22, 22]
    assert {"back_to": 4, "left_out": [5, 22]}.items() <= lines[-1].items()
    last = checkpoint.load(RunFolder(scaled), 24).trees["train"]
    assert (last["good"], last["scaler"]["scale"]) == (24, 2.0**16), "the scale is not that of the checkpoint"


def test_a_state_among_them_is_none_to_go_back_to_after_a_resume(scaled: Path, data: Path, tmp_path: Path) -> None:
    """Stopped in the evaluation after step 8: whoever resumes does it, and decides then what the checkpoint is."""
    job = make_job(tmp_path / "run", data, *_SCALED)
    with poisoned(_SEARCHED):
        train_rank_stopped(0, 1, job, 1, "sigterm", evaluating=True)
        stopped = checkpoint.load(RunFolder(tmp_path / "run"), 8).trees["train"]
        assert {"unevaluated": True, "skipped_in_a_row": 0, "good": 4}.items() <= stopped.items()
        train(job)
    assert weights(tmp_path / "run") == weights(scaled)
    assert curve(tmp_path / "run") == curve(scaled)


@pytest.mark.slow
def test_killed_among_them_on_three_workers_and_resumed_on_two(scaled: Path, data: Path, tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    assert run_killed(3, train_rank_poisoned, make_job(killed, data, *_SCALED, world=3), _SEARCHED, 15)[0] == -9
    assert run_ranks(2, train_rank_poisoned, make_job(killed, data, *_SCALED, world=2), _SEARCHED)[0]["step"] == 24
    assert weights(killed) == weights(scaled)
    assert curve(killed) == curve(scaled)


@pytest.mark.slow
@pytest.mark.parametrize("die_at", [6, 7, 9])  # among the steps without a gradient; before the state is saved; after
def test_killed_on_three_workers_and_resumed_on_two(die_at: int, rewound: Path, data: Path, tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    job = make_job(killed, data, *_STEPS, *_REWIND, world=3)
    assert run_killed(3, train_rank_poisoned, job, _POISON, die_at)[0] == -9
    job = make_job(killed, data, *_STEPS, *_REWIND, "checkpoint.every=5st", world=2)
    assert run_ranks(2, train_rank_poisoned, job, _POISON)[0]["step"] == 12
    assert weights(killed) == weights(rewound)
    assert curve(killed) == curve(rewound)
    assert check(RunFolder(killed)).ok


@pytest.mark.parametrize("times", [1, 2])
def test_the_next_time_ends_the_run(times: int, data: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path / "run", data, *_STEPS, *_REWIND, f"train.rewind.times={times}")
    with poisoned((*_POISON, 7, 8, 9)):
        if times == 2:
            assert train(job)["step"] == 12
            told = [record for record in curve(tmp_path / "run") if record["kind"] == "rewind"]
            assert [(record["step"], record["back_to"]) for record in told] == [(7, 4), (10, 4)]
            return
        with raised(TrainError, what=re.compile("^step 10 "), found=re.compile(r"; the run went back 1 time before$")):
            train(job)


def test_without_a_checkpoint_before_it_ends(data: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path / "run", data, *_STEPS, *_REWIND)
    with poisoned((0, 1, 2)), raised(TrainError, found=re.compile("; there is no earlier checkpoint to go back to$")):
        train(job)


def test_what_cannot_act_is_refused(data: Path, tmp_path: Path) -> None:
    with raised(ConfigProblemsError, what=re.compile("a step that no clock decides")):
        load_text("", "job.yaml", ["train.non_finite=rewind", "checkpoint.every=5m"])
    with raised(ConfigProblemsError, what=re.compile(r"no effect beside train\.non_finite: error")):
        (tmp_path / "run.yaml").write_text("train: {rewind: {times: 2}}")
        load(tmp_path / "run.yaml")
    with raised(ConfigError, where="checkpoint.every", fix=re.compile("checkpoint.every=4st$")):
        make_job(tmp_path / "run", data, *_STEPS, *_REWIND, "checkpoint.every=12st")
