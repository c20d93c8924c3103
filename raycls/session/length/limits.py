"""Options that cannot act within the run: longer than it, or waiting for more evaluations than it has.

Such a run would train, without a word, another schedule than the one that was asked for: so it is an error before the
start, with values that act. What only says how often something happens (`evaluate.every`, `checkpoint.every`) happens
at the end of a shorter run too, and is told in a line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from raycls.config.names.builders import bound
from raycls.config.sections.data import AugmentConfig
from raycls.config.sections.duration import Duration
from raycls.config.sections.optim import OptimConfig, ScheduleConfig
from raycls.config.sections.run import Run
from raycls.config.sections.train import CheckpointConfig, EarlyStopConfig, EvaluateConfig
from raycls.config.write import override
from raycls.errors import ConfigError
from raycls.quantities import plural
from raycls.train.plan import Plan
from raycls.train.schedules import Steps, warmup_steps
from raycls.train.state import ema_decay, ema_share

__all__ = ["Idle", "check_acting", "idle", "notes"]

_MOST_OF_THE_FIRST = 0.5
"""Share of a moving average that what was before the training may have at its end."""
_PERIODS = 5
"""How many times longer than the window of a proposed moving average, 1 / (1 - decay) steps, the run is."""


@dataclass(frozen=True)
class Idle:
    """One option that cannot act, and what to set instead."""

    option: str
    why: str
    remedy: dict[str, Any]
    """{path: value} of options with which it acts, or is off."""


def check_acting(run: Run, plan: Plan) -> None:
    """ConfigError that names all options which cannot act within `plan`, with one line of overrides that do."""
    found = idle(run, plan)
    if not found:
        return
    remedy = {path: value for item in found for path, value in item.remedy.items()}
    raise ConfigError(
        "options cannot act within a run as short as this one"
        if len(found) > 1
        else "an option cannot act within a run as short as this one",
        where=", ".join(item.option for item in found),
        found="\n         ".join([f"a run of {_length(plan)}", *(item.why for item in found)]),
        fix=f"train longer, or add {' '.join(override(path, value) for path, value in remedy.items())}",
    )


def idle(run: Run, plan: Plan) -> list[Idle]:
    """The options that cannot act. One for which no value could, in a run of a step or two, is not among them."""
    schedule, optim, total = run.schedule, run.optim, plan.total_steps
    found: list[Idle] = []
    warmup = warmup_steps(schedule, steps_per_epoch=plan.steps_per_epoch, total_steps=total)
    if warmup > 1 and warmup >= total:
        why = f"schedule.warmup {schedule.warmup}: {warmup} steps, so optim.lr is reached at the end or never"
        found.append(Idle("schedule.warmup", why, {"schedule.warmup": f"{total // 10}st"}))
        warmup = total // 10
    found += _idle_schedule(schedule, plan, total - warmup)
    found += _idle_patience(schedule, run.train.early_stop, plan)
    if not isinstance(optim.ema, str):
        share = ema_share(optim.ema, optim.ema_warmup, total)
        if share > _MOST_OF_THE_FIRST:
            why = f"optim.ema {optim.ema}: the average would be {share:.1%} the weights after the first step"
            window = min(total / 2, _PERIODS)
            found.append(Idle("optim.ema", why, {"optim.ema": round(1 - window / total, len(str(total)) + 2)}))
    if run.train.non_finite == "rewind" and total > 1 and plan.rewind_every >= total:
        why = f"train.non_finite rewind: with checkpoint.every {run.checkpoint.every} the one checkpoint is the last"
        found.append(Idle("checkpoint.every", why, {"checkpoint.every": f"{max(1, total // 3)}st"}))
    return found + _idle_off_after(run.augment, plan) + _idle_progressive(plan)


def notes(optim: OptimConfig, evaluate: EvaluateConfig, checkpoint: CheckpointConfig, plan: Plan) -> list[str]:
    """What acts otherwise than its value says, by a rule or because the run is short: a line for each."""
    lines: list[str] = []
    total = plan.total_steps
    if optim.lr_rule != "none":
        ratio = f"{plan.batch_size}/{optim.lr_base_batch}"
        rate, times = optim.scaled(plan.batch_size).lr, ratio if optim.lr_rule == "linear" else f"sqrt({ratio})"
        lines.append(f"learning rate {rate:.6g} = {optim.lr:.6g} x {times} (optim.lr_rule: {optim.lr_rule})")
    if not isinstance(optim.ema, str) and total > 1:
        last = ema_decay(optim.ema, optim.ema_warmup, total - 1)
        if last < optim.ema:
            lines.append(
                f"optim.ema {optim.ema} is for longer runs: in these {total} steps its decay rises to {last:.4g} "
                "(optim.ema_warmup: ramp)"
            )
    whole = Duration(1, "ep")
    if evaluate.every != whole and plan.evaluate_every > total:
        lines.append(f"evaluate.every {evaluate.every} is longer than the run: it is evaluated at its end alone")
    if checkpoint.every != whole and plan.checkpoint_every > total:
        lines.append(
            f"checkpoint.every {checkpoint.every} is longer than the run: its one checkpoint is that of its end"
        )
    return lines


def evaluations(plan: Plan) -> int:
    """How many times the run is evaluated."""
    return -(-plan.total_steps // plan.evaluate_every) if plan.evaluate_every else 0


def _idle_schedule(schedule: ScheduleConfig, plan: Plan, left: int) -> list[Idle]:
    """Of periods and milestones, where `left` steps follow the warm-up."""
    if left < 2:
        return []
    total, args = plan.total_steps, bound("schedule", schedule.name, schedule.args)
    steps_of = Steps(plan.steps_per_epoch, total)
    after = f"{left} steps after the warm-up" if left < total else f"{left} steps"
    if schedule.name in ("step", "cosine_restarts"):
        every = steps_of.count(args["every"], "every")
        if every > left or (every == left and schedule.name == "step"):
            what = "the rate never falls" if schedule.name == "step" else "not even the first period ends"
            why = f"schedule.args.every {args['every']}: {every} steps, and there are {after}: {what}"
            return [Idle("schedule.args.every", why, {"schedule.args.every": f"{max(1, left // 3)}st"})]
    for name, option in (("wsd", "decay"), ("one_cycle", "peak")):
        if schedule.name == name and (count := steps_of.count(args[option], option)) > left:
            why = f"schedule.args.{option} {args[option]}: {count} steps, and there are {after}"
            return [Idle(f"schedule.args.{option}", why, {f"schedule.args.{option}": f"{max(1, left // 3)}st"})]
    if schedule.name == "multistep":
        counted = [
            (item, steps_of.count(item, f"milestones[{index}]", least=0))
            for index, item in enumerate(args["milestones"])
        ]
        late = [f"{item} ({steps} steps)" for item, steps in counted if steps >= left]
        if late:
            kept = [str(item) for item, steps in counted if steps < left]
            kept = kept or [f"{step}st" for step in sorted({left // 2, 3 * left // 4})]
            why = f"schedule.args.milestones {', '.join(late)}: there are {after}"
            return [Idle("schedule.args.milestones", why, {"schedule.args.milestones": kept})]
    return []


def _idle_patience(schedule: ScheduleConfig, early_stop: EarlyStopConfig, plan: Plan) -> list[Idle]:
    """Of what waits for evaluations without improvement."""
    count, total = evaluations(plan), plan.total_steps
    told = plural(count, "evaluation")
    more = {"evaluate.every": f"{total // 3}st"} if count < 3 <= total else {}
    shorter = max(1, (count - 1) // 2)
    found: list[Idle] = []
    waits = bound("schedule", schedule.name, schedule.args).get("patience", 0) if schedule.name == "plateau" else 0
    if waits >= count and waits and (count >= 3 or more):
        why = f"schedule.args.patience {waits}: the run has {told}"
        found.append(Idle("schedule.args.patience", why, {**more, "schedule.args.patience": shorter}))
    patience = early_stop.patience
    if patience != "off" and patience >= count:
        why = f"train.early_stop.patience {patience}: the run has {told}"
        if count >= 3:
            remedy: dict[str, Any] = {"train.early_stop.patience": shorter}
        elif more and (early_stop.min_delta or found):  # min_delta would have no effect beside off
            remedy = {**more, "train.early_stop.patience": 1}
        else:
            remedy = {"train.early_stop.patience": "off"}
        found.append(Idle("train.early_stop.patience", why, remedy))
    return found


def _idle_off_after(augment: AugmentConfig, plan: Plan) -> list[Idle]:
    """Of a switch between two epochs that comes before the first step or after the last one."""
    if isinstance(augment.off_after, str) or 0 < plan.off_epoch * plan.steps_per_epoch < plan.total_steps:
        return []
    epochs = -(-plan.total_steps // plan.steps_per_epoch)
    when = f"epoch {plan.off_epoch} of {epochs}, " + ("the end" if plan.off_epoch else "the start")
    last = f"{epochs - max(1, epochs // 10)}ep" if epochs > 1 else "off"
    return [Idle("augment.off_after", f"augment.off_after {augment.off_after}: {when}", {"augment.off_after": last})]


def _idle_progressive(plan: Plan) -> list[Idle]:
    """Of sizes that begin with one epoch, or behind the last one that is augmented."""
    epochs = plan.off_epoch or -(-plan.total_steps // plan.steps_per_epoch)
    firsts = [first for first, _ in plan.sizes]
    if not firsts or all(one < other for one, other in zip(firsts, [*firsts[1:], epochs], strict=True)):
        return []
    sizes = ", ".join(f"{size} from epoch {first} on" for first, size in plan.sizes)
    return [Idle("augment.progressive", f"augment.progressive: {sizes}, of {epochs}", {"augment.progressive": {}})]


def _length(plan: Plan) -> str:
    return f"{plural(plan.total_steps, 'step')}, {plan.steps_per_epoch} per epoch"
