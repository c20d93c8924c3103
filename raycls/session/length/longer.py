"""A run that is trained for longer than it was started for: whether it is, to the bit, the run it would have been."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from raycls.config import load as config
from raycls.config.names.builders import bound
from raycls.config.sections.data import AugmentConfig
from raycls.config.sections.duration import Duration
from raycls.config.sections.optim import ScheduleConfig
from raycls.config.sections.run import Run
from raycls.config.sections.train import EvaluateConfig
from raycls.config.write import override
from raycls.errors import ConfigError
from raycls.run.folder import RunFolder
from raycls.session.length.limits import idle
from raycls.train.plan import Plan, make_plan
from raycls.train.schedules import build_schedule

__all__ = ["DURATION", "check_longer", "write_duration"]

DURATION = "train.duration"
_REPLACED = ("run.name", "model.weights", DURATION)
"""Options that the command which starts from the weights sets anew."""


def check_longer(
    before: Run,
    run: Run,
    first: Plan,
    folder: RunFolder,
    *,
    command: Sequence[str],
    say: Callable[[str], None],
) -> None:
    """Whether `before`, whose plan is `first`, may be trained on as `run`, another `train.duration`.

    It may where nothing that was trained or decided hangs on the length. Otherwise ConfigError with what hangs on it,
    and the command that starts another run from the weights; also where it would be shorter.
    """
    old, new = (max(1, item.train.duration.steps(first.steps_per_epoch)) for item in (before, run))
    result = folder.read_json(RunFolder.RESULT) or {}
    change = f"{DURATION}: {before.train.duration} -> {run.train.duration}"
    if new < old:
        raise ConfigError(
            "a run cannot be made shorter than it was started for",
            where=folder.store.describe(RunFolder.CONFIG),
            found=f"{change} ({old} -> {new} steps)",
            fix="use another run.name, undo the change, or start anew with --new (the old run is kept beside it)",
        )
    if result.get("state") == "early":
        say(f"{change} changes nothing: the run ended at step {result['step']} by train.early_stop.patience")
        return
    reasons = _reasons(before, first, folder, result, old, new) if new > old else []
    if reasons:
        raise ConfigError(
            "this run cannot be trained for longer as the run it would have been: other options follow its length",
            where=folder.store.describe(RunFolder.CONFIG),
            found="\n         ".join([change, *reasons]),
            valid="a longer train.duration where schedule and evaluations are counted in epochs or steps",
            fix=_from_weights(before, run, first, folder, command, new - old),
        )
    if new > old:
        say(f"{change}: the run is trained on, to step {new}")


def write_duration(folder: RunFolder, run: Run) -> None:
    """Note in `config.yaml` how long the run is trained now. Under its lock."""
    text = folder.store.read_bytes(RunFolder.CONFIG).decode()
    where = folder.store.describe(RunFolder.CONFIG)
    before = config.load_text(text, where).run
    if before.train.duration != run.train.duration:
        longer = config.load_text(text, where, [f"{DURATION}={run.train.duration}"]).run
        folder.store.write_bytes(RunFolder.CONFIG, config.to_yaml(longer).encode())


def _reasons(before: Run, first: Plan, folder: RunFolder, result: Mapping[str, Any], old: int, new: int) -> list[str]:
    """What of the first `old` steps would have been otherwise in a longer run."""
    stages = [("finetune.unfreeze", time) for time, _ in before.finetune.stages if time.unit == "%"]
    of_schedule = _shares(before.schedule)
    shares = [
        *of_schedule,
        *stages,
        *_evaluated_shares(before.evaluate),
        *_augmented_shares(before.augment),
    ]
    reasons = [f"{path} {value}: per cent of the run" for path, value in shares]
    if before.schedule.name == "cosine":
        reasons.insert(0, "schedule.name: cosine, which falls over the whole run")
    every = before.evaluate.every
    shorter, longer = (
        build_schedule(before.schedule, steps_per_epoch=first.steps_per_epoch, total_steps=total)
        for total in (old, new)
    )
    told = of_schedule or before.schedule.name == "cosine"
    if not told and any(shorter.factor(at) != longer.factor(at) for at in range(old)):
        reasons.append(f"schedule.name: {before.schedule.name}, which follows the length of the run")
    if reasons or isinstance(every, str) or old not in folder.steps():
        return reasons
    if not first.evaluate_rows or old % max(1, every.steps(first.steps_per_epoch)) == 0:
        return []
    # The longer run is not evaluated here; what followed from it?
    what = f"the evaluation at its end, step {old}, which a run with evaluate.every {every} has only there"
    if shorter.plateau is not None:
        return [f"{what}: schedule.name: {before.schedule.name} counted it"]
    if before.train.early_stop.patience != "off":
        return [f"{what}: train.early_stop.patience counted it"]
    if result.get("state") != "done":
        return [f"{what}: it is still to be done"]
    if (folder.read_json(RunFolder.BEST) or {}).get("step") == old:
        return [f"{what}: it is the best one"]
    return []


def _shares(schedule: ScheduleConfig) -> list[tuple[str, Duration]]:
    used = [("schedule.warmup", schedule.warmup)] if schedule.warmup.value else []
    for key, value in bound("schedule", schedule.name, schedule.args).items():
        path = f"schedule.args.{key}"
        items = cast("tuple[Any, ...]", value) if isinstance(value, tuple) else ()
        used += [(path, value)] if isinstance(value, Duration) else [(f"{path}[{at}]", x) for at, x in enumerate(items)]
    return [(path, value) for path, value in used if isinstance(value, Duration) and value.unit == "%"]


def _evaluated_shares(evaluate: EvaluateConfig) -> list[tuple[str, Duration]]:
    every = evaluate.every
    return [("evaluate.every", every)] if isinstance(every, Duration) and every.unit == "%" else []


def _augmented_shares(augment: AugmentConfig) -> list[tuple[str, Duration]]:
    after = augment.off_after
    found = [("augment.off_after", after)] if isinstance(after, Duration) else []
    found += [("augment.progressive", point) for point, _ in augment.sizes() if point.value]
    return [(path, point) for path, point in found if point.unit == "%"]


def _from_weights(before: Run, run: Run, first: Plan, folder: RunFolder, command: Sequence[str], more: int) -> str:
    """The command that trains the `more` steps as a run of its own, from the weights of this one."""
    if not folder.store.exists(RunFolder.WEIGHTS):
        anew = "--new or another run.name starts anew"
        return f"let it end first with {override(DURATION, str(before.train.duration))}; {anew}"
    old, new = before.train.duration, run.train.duration
    whole = old.unit == new.unit and float(old.value).is_integer() and float(new.value).is_integer()
    duration = Duration(new.value - old.value, new.unit) if whole else Duration(more, "st")
    weights = folder.path(RunFolder.WEIGHTS)
    there = "model.safetensors" if weights is None else _short(str(weights))
    values: dict[str, Any] = {"run.name": _free_name(run), "model.weights": there, DURATION: str(duration)}
    values |= _remedies(run, first, duration)
    words = list(command) if len(command) > 2 else ["raycls", "train", folder.store.describe(RunFolder.CONFIG)]
    typed = [shlex.quote(word) for word in words if word.partition("=")[0].strip() not in _REPLACED]
    line = " ".join([*typed, *(override(path, value) for path, value in values.items())])
    copied = "" if weights is not None else f"copy {folder.store.describe(RunFolder.WEIGHTS)} here, and "
    return (
        f"start anew with --new (the old run is kept beside it) or another run.name, or {copied}start another run of "
        f"{duration} from the weights of this one{_repeated(run.schedule)}: {line}"
    )


def _repeated(schedule: ScheduleConfig) -> str:
    """What of the learning rate a run from the weights goes through once more."""
    if schedule.name == "constant" and not schedule.warmup.value:
        return ""
    first = "the warm-up and the full learning rate" if schedule.warmup.value else "the full learning rate"
    return f" (which repeats {first}; a lower optim.lr keeps more of them)"


def _remedies(run: Run, first: Plan, duration: Duration) -> dict[str, Any]:
    """What else has to be set for a run of this length."""
    plan = make_plan(
        seed=run.run.seed,
        samples=first.samples,
        classes=first.classes,
        evaluate_rows=first.evaluate_rows,
        batch_size=run.data.batch_size,
        workers=run.scale.max_workers,
        train=run.train.model_copy(update={"duration": duration}),
        evaluate=run.evaluate,
        checkpoint=run.checkpoint,
        track=run.track,
        augment=run.augment,
    )
    found = idle(run, plan)
    return {path: value for item in found for path, value in item.remedy.items()}


def _free_name(run: Run) -> str:
    """A name beside the run's that no run has."""
    number = 2
    while RunFolder.at(run.run.storage, f"{run.run.name}-{number}").store.list():
        number += 1
    return f"{run.run.name}-{number}"


def _short(path: str) -> str:
    """Relative where it is below the working directory."""
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative
