"""A step without enough memory is done again: the run is the one with so many micro-batches, and stays it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from harness.errors import raised
from harness.jobs import curve, ledger, make_job, train, train_rank_stopped, weights
from harness.kills import run_killed
from harness.lacking import TEXT, Small, train_rank_lacking
from harness.tasks import setting

from raycls.config.load import load_text
from raycls.data.order import Order
from raycls.errors import ConfigError, TrainError
from raycls.run.folder import RunFolder
from raycls.run.ledgers.sample_ledger import check
from raycls.session.recovery.memory import check_divisible
from raycls.tasks.classification import Classification
from raycls.train import loop
from raycls.train.plan import Plan
from raycls.train.recovery.divided import Divided, divided_from, parts_at

_STEPS = (
    "data.batch_size=32",
    "train.duration=8st",
    "evaluate.every=4st",
    "checkpoint.every=2st",
    "track.log_every=1st",
)
_SPLIT = (*_STEPS, "train.micro_batches=3", "train.on_out_of_memory=split", "train.ledger=pixels")


def _plan(folder: Path) -> dict[str, object]:
    return json.loads((folder / "plan.json").read_text())


def _trained(folder: Path) -> list[dict[str, object]]:
    return [record for record in curve(folder) if record["kind"] != "divided"]


@pytest.mark.parametrize(
    ("passes", "backward", "options"),
    [
        (1, False, ("optim.ema=0.9", "augment.batch=[mixup]", "optim.args.momentum=0.9")),
        (1, True, ("train.reduction=fast", "model.args={width: 8, dropout: 0.3}")),
        (1, True, ("optim.sam=0.05",)),
        (4, False, ("optim.sam=0.05",)),  # in the second pass through the step, whose weights are others
    ],
)
def test_from_the_first_step_it_is_the_run_with_more_micro_batches(
    passes: int, backward: bool, options: tuple[str, ...], data: Path, tmp_path: Path
) -> None:
    """Three, then six, then twelve micro-batches: 32 images in parts of 2 and 3."""
    options = (*options, "train.duration=4st")
    with Small(0, 3, backward=backward, passes=passes).memory():
        train(make_job(tmp_path / "run", data, *_SPLIT, *options))
    train(make_job(tmp_path / "whole", data, *_STEPS, "train.micro_batches=12", *options))
    assert _plan(tmp_path / "run")["divided"] == [[0, 4]]
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")
    assert _trained(tmp_path / "run") == curve(tmp_path / "whole")
    assert _plan(tmp_path / "run")["micro_batches"] == 3
    assert {(step, micro) for _, step, micro in ledger(tmp_path / "run")} == set(product(range(1, 5), range(3)))


@pytest.mark.slow
def test_a_lack_on_one_worker_is_met_by_all_and_kept_by_whoever_resumes(data: Path, tmp_path: Path) -> None:
    """Killed after the division and before the next checkpoint, and resumed on fewer workers with enough memory."""
    job = make_job(tmp_path / "run", data, *_SPLIT, world=3)
    assert run_killed(3, train_rank_lacking, job, Small(5, 6, ranks=(1,)), 6)[0] == -9
    folder = RunFolder(tmp_path / "run")
    assert folder.steps()[-1] in (2, 4)  # it is written beside the training
    assert _plan(tmp_path / "run")["divided"] == [[5, 2]]
    assert train(make_job(tmp_path / "run", data, *_SPLIT[:-2], _SPLIT[-1], world=2), 2)["step"] == 8
    expected = tmp_path / "expected"
    train_rank_stopped(0, 1, make_job(expected, data, *_SPLIT), 5, "sigterm")
    (expected / "plan.json").write_text(json.dumps({**_plan(expected), "micro_batches": 6}))
    train(make_job(expected, data, *_SPLIT))
    assert weights(tmp_path / "run") == weights(expected)
    assert _trained(tmp_path / "run") == curve(expected)
    told = [record for record in curve(tmp_path / "run") if record["kind"] == "divided"]
    assert [(record["step"], record["micro_batches"]) for record in told] == [(6, 6)]
    assert check(folder).ok


def test_an_error_says_what_to_type(data: Path, tmp_path: Path) -> None:
    options = (*_STEPS, "train.micro_batches=2")
    with Small(4, 8).memory():
        with raised(
            TrainError,
            what="step 5 needs more memory than there is",
            found=f"a micro-batch of 16 images (2 micro-batches); {TEXT}",
            fix=re.compile(r"^rerun with train\.activation_checkpointing=on: .* train\.on_out_of_memory=split: "),
        ):
            train(make_job(tmp_path / "run", data, *options))
        assert RunFolder(tmp_path / "run").steps() == [2, 4]
        split = ("train.on_out_of_memory=split", "train.activation_checkpointing=on")
        result = train(make_job(tmp_path / "run", data, *options, *split))
    assert (result["state"], _plan(tmp_path / "run")["divided"]) == ("done", [[4, 2]])
    order = Order(0, 99, 32, 2)
    assert max(len(order.divided(2).micro(step, micro)) for step in range(4) for micro in range(4)) == 8


def test_one_image_cannot_be_divided(data: Path, tmp_path: Path) -> None:
    with Small(2, 0).memory(), raised(TrainError, found=re.compile(r"^a micro-batch of 1 image \(48 micro-batches\)")):
        train(make_job(tmp_path / "run", data, *_SPLIT))
    assert RunFolder(tmp_path / "run").steps() == [2]


def test_another_exception_is_nobodys_lack(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*parts: object) -> None:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(loop, "ordered", broken)
    with pytest.raises(RuntimeError, match="shapes differ"):
        train(make_job(tmp_path / "run", data, *_SPLIT))
    assert "divided" not in _plan(tmp_path / "run")


@pytest.mark.parametrize(
    ("options", "fix"),
    [
        (("train.reduction=fast",), "train.on_out_of_memory=error, or train.reduction=exact"),
        (("train.micro_batches=2", "train.batch_norm=sync"), "train.on_out_of_memory=error"),
        (("task.name=simclr",), "train.on_out_of_memory=error and a smaller network or data.image_size"),
    ],
)
def test_what_cannot_be_divided_is_refused(options: tuple[str, ...], fix: str, data: Path, tmp_path: Path) -> None:
    with raised(ConfigError, where=re.compile(r"^train\.on_out_of_memory"), fix=fix):
        make_job(tmp_path / "run", data, *_SPLIT, *options, world=2)


def test_on_several_workers_the_reduction_is_exact(data: Path, tmp_path: Path) -> None:
    run = load_text("", "job.yaml", [*_SPLIT, "scale.workers=2"]).run
    plan = Plan.from_dict({**make_job(tmp_path / "run", data, *_SPLIT).plan, "reduction": ""})
    task = Classification(setting(classes=4))
    assert check_divisible(run, task, plan).reduction == "exact"
    with raised(ConfigError, found="split, fast (as the run was started)", fix="train.on_out_of_memory=error"):
        check_divisible(run, task, replace(plan, reduction="fast"))


@pytest.mark.parametrize(
    ("before", "step", "parts", "after"),
    [
        ((), 3, 2, ((3, 2),)),
        (((3, 2),), 3, 4, ((3, 4),)),
        (((3, 2),), 9, 4, ((3, 2), (9, 4))),
        (((5, 2), (9, 4)), 3, 2, ((3, 2), (9, 4))),
        (((5, 2), (9, 4)), 3, 8, ((3, 8),)),
    ],
)
def test_divisions_only_go_further(before: Divided, step: int, parts: int, after: Divided) -> None:
    assert divided_from(before, step, parts) == after
    assert [parts_at(after, at) for at in (0, step)] == [1, parts]
