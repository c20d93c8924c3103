"""Options that cannot act within the run, counted by hand; every remedy is typed and holds."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace

import pytest

from raycls.config.load import load_text
from raycls.config.sections.run import Run
from raycls.errors import ConfigError
from raycls.session.length.limits import check_acting, idle, notes
from raycls.train.plan import Plan, make_plan


def _plan(run: Run) -> Plan:
    """Of 100 samples in batches of 10: 10 steps per epoch."""
    return make_plan(
        seed=0,
        samples=100,
        classes=4,
        evaluate_rows=20,
        batch_size=10,
        workers=1,
        train=run.train,
        evaluate=run.evaluate,
        checkpoint=run.checkpoint,
        track=run.track,
        augment=run.augment,
    )


def _run(*overrides: str) -> Run:
    return load_text("", "run.yaml", ["train.duration=10ep", *overrides]).run


def _idle(*overrides: str) -> list[str]:
    run = _run(*overrides)
    return [item.option for item in idle(run, _plan(run))]


_CASES = [
    ("schedule.warmup", ("schedule.warmup=9ep",), ("schedule.warmup=10ep",), "100 steps"),
    ("schedule.warmup", ("schedule.warmup=99%",), ("schedule.warmup=100%",), "100 steps"),
    (
        "schedule.warmup",
        ("train.duration=51st", "schedule.warmup=5ep"),
        ("train.duration=10st", "schedule.warmup=5ep"),
        "50 steps",
    ),
    (
        "schedule.args.every",
        ("schedule={name: step, args: {every: 99st}}",),
        ("schedule={name: step, args: {every: 100st}}",),
        "100 steps",
    ),
    (
        "schedule.args.every",
        ("schedule={name: step, args: {every: 8ep}, warmup: 19st}",),
        ("schedule={name: step, args: {every: 8ep}, warmup: 2ep}",),
        "80 steps",
    ),
    (
        "schedule.args.every",
        ("schedule={name: cosine_restarts, args: {every: 10ep}}",),
        ("schedule={name: cosine_restarts}",),
        "300 steps",
    ),
    (
        "schedule.args.milestones",
        ("schedule={name: multistep, args: {milestones: [5ep, 99st]}}",),
        ("schedule={name: multistep, args: {milestones: [5ep, 10ep]}}",),
        "10ep (100 steps)",
    ),
    (
        "schedule.args.milestones",
        ("schedule={name: multistep, args: {milestones: [70%]}, warmup: 25%}",),
        ("schedule={name: multistep, args: {milestones: [80%]}, warmup: 25%}",),
        "80% (80 steps)",
    ),
    (
        "schedule.args.patience",
        ("schedule={name: plateau, args: {patience: 9}}",),
        ("schedule={name: plateau, args: {patience: 10}}",),
        "10 evaluations",
    ),
    (
        "schedule.args.patience",
        ("schedule={name: plateau, args: {patience: 3}}", "evaluate.every=3ep"),
        ("schedule={name: plateau, args: {patience: 4}}", "evaluate.every=3ep"),
        "4 evaluations",
    ),
    (
        "train.early_stop.patience",
        ("train.early_stop.patience=9",),
        ("train.early_stop.patience=10",),
        "10 evaluations",
    ),
    (
        "train.early_stop.patience",
        ("train.duration=2ep", "train.early_stop.patience=1"),
        ("train.duration=1ep", "train.early_stop.patience=1"),
        "1 evaluation",
    ),
    (
        "train.early_stop.patience",
        (),
        ("train.duration=1ep", "train.early_stop={patience: 5, min_delta: 0.1}"),
        "1 evaluation",
    ),
    # 0.99 ** 68 is 0.505, and ** 69 is 0.4998: updates after the first one, which copies
    (
        "optim.ema",
        ("train.duration=70st", "optim={ema: 0.99, ema_warmup: off}"),
        ("train.duration=69st", "optim={ema: 0.99, ema_warmup: off}"),
        "50.5%",
    ),
    (
        "optim.ema",
        ("train.duration=6ep", "optim.ema=0.9999"),
        ("train.duration=6ep", "optim={ema: 0.9999, ema_warmup: off}"),
        "99.4%",
    ),
    (
        "optim.ema",
        ("train.duration=1st", "optim={ema: 0.9999, ema_warmup: off}"),
        ("train.duration=2st", "optim={ema: 0.9999, ema_warmup: off}"),
        "100.0%",
    ),
    ("augment.off_after", ("augment.off_after=94%",), ("augment.off_after=95%",), "epoch 10 of 10, the end"),
    ("augment.off_after", ("augment.off_after=5st",), ("augment.off_after=4st",), "epoch 0 of 10, the start"),
    (
        "augment.off_after",
        ("train.duration=11st", "augment.off_after=1ep"),
        ("train.duration=10st", "augment.off_after=1ep"),
        "epoch 1 of 1, the end",
    ),
    (
        "augment.progressive",
        ("augment.progressive={0%: 8, 94%: 12}",),
        ("augment.progressive={0%: 8, 95%: 12}",),
        "12 from epoch 10 on, of 10",
    ),
    (
        "augment.progressive",
        ("augment.progressive={0%: 8, 5st: 12}",),
        ("augment.progressive={0%: 8, 4st: 12}",),
        "12 from epoch 0 on, of 10",
    ),
    (
        "augment.progressive",
        ("augment.progressive={0%: 8, 4ep: 12}", "augment.off_after=5ep"),
        ("augment.progressive={0%: 8, 5ep: 12}", "augment.off_after=5ep"),
        "12 from epoch 5 on, of 5",
    ),
    (
        "augment.progressive",
        ("train.duration=2ep", "augment.progressive={0%: 8, 1ep: 12}"),
        ("train.duration=2ep", "augment.progressive={0%: 8, 1ep: 12, 2ep: 16}"),
        "16 from epoch 2 on, of 2",
    ),
]


@pytest.mark.parametrize(("option", "acting", "late", "found"), _CASES)
def test_what_cannot_act_is_refused_with_what_does(
    option: str, acting: tuple[str, ...], late: tuple[str, ...], found: str
) -> None:
    assert _idle(*acting) == []
    run = _run(*late)
    with pytest.raises(ConfigError) as caught:
        check_acting(run, _plan(run))
    assert caught.value.where == option
    assert found in str(caught.value.found) and f"a run of {_plan(run).total_steps} steps" in str(caught.value.found)
    assert _idle(*late, *_typed(caught.value)) == []


def test_all_options_are_told_at_once_with_one_line_to_paste() -> None:
    late = (
        "train.duration=10st", "schedule={name: multistep, args: {milestones: [25ep, 55ep]}, warmup: 5ep}",
        "train.early_stop={patience: 5, min_delta: 0.01}", "optim={ema: 0.999, ema_warmup: off}",
    )  # fmt: skip
    run = _run(*late)
    with pytest.raises(ConfigError) as caught:
        check_acting(run, _plan(run))
    where = "schedule.warmup, schedule.args.milestones, train.early_stop.patience, optim.ema"
    assert caught.value.where == where
    assert _idle(*late, *_typed(caught.value)) == []


@pytest.mark.parametrize("steps", range(1, 13))
@pytest.mark.parametrize("name", ["step", "multistep", "cosine_restarts", "plateau", "cosine"])
def test_the_remedy_holds_for_every_short_run(name: str, steps: int) -> None:
    """With all that can be too long at once, in a file whose values the typed ones replace."""
    file = f"""
train: {{duration: {steps}st, early_stop: {{patience: 40, min_delta: 0.1}}}}
optim: {{ema: 0.9999, ema_warmup: off}}
schedule: {{name: {name}, warmup: 5ep{", args: {milestones: [25ep, 55ep]}" if name == "multistep" else ""}
  {", args: {patience: 50}" if name == "plateau" else ""}}}
"""
    run = load_text(file, "run.yaml").run
    try:
        check_acting(run, _plan(run))
    except ConfigError as error:
        run = load_text(file, "run.yaml", _typed(error)).run
    check_acting(run, _plan(run))


def test_defaults_never_stop_a_short_run() -> None:
    for name in ("constant", "exponential", "cosine", "plateau"):
        late = f"schedule.name={name}"
        assert _idle("train.duration=1st", late) == [] and _idle("train.duration=10ep", late) == []
    assert _idle("train.duration=1st", "optim.ema=0.9999") == []


def test_what_happens_at_the_end_only_is_told() -> None:
    def told(*overrides: str) -> list[str]:
        run = _run(*overrides)
        return [line.split()[0] for line in notes(run.optim, run.evaluate, run.checkpoint, _plan(run))]

    assert told("train.duration=10st") == []
    assert told("evaluate.every=10ep", "checkpoint.every=100%") == []
    assert told("evaluate.every=11ep", "checkpoint.every=101st") == ["evaluate.every", "checkpoint.every"]
    # of 100 steps the last is update 99: 100 / 109 = 0.917
    assert told("optim.ema=0.91") == [] and told("optim.ema=0.92") == ["optim.ema"]
    assert told("optim.ema=0.92", "optim.ema_warmup=off") == []


def test_the_rate_that_a_rule_makes_is_told() -> None:
    def told(rule: str) -> list[str]:
        run = _run("optim.lr=0.1", "optim.lr_base_batch=25", f"optim.lr_rule={rule}")
        return notes(run.optim, run.evaluate, run.checkpoint, replace(_plan(run), batch_size=100))

    assert told("linear") == ["learning rate 0.4 = 0.1 x 100/25 (optim.lr_rule: linear)"]
    assert told("sqrt") == ["learning rate 0.2 = 0.1 x sqrt(100/25) (optim.lr_rule: sqrt)"]


def _typed(error: ConfigError) -> list[str]:
    """The overrides of the remedy, as the shell hands them on."""
    return [word for word in shlex.split(str(error.fix)) if re.match(r"[a-z_.]+=", word)]
