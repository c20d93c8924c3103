"""What is checked, and derived, before anything starts: names, data, model, the run folder, what fits."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from torch import nn

from raycls.config import load as config
from raycls.config.sections.data import SplitConfig
from raycls.config.sections.run import Run
from raycls.data.source import Dataset, Split, check_source, open_dataset
from raycls.errors import ConfigError, DataError, RayclsError
from raycls.models import zoo
from raycls.models.finetune import Stages, finetuned
from raycls.plugins import no_exit
from raycls.progress import progress
from raycls.randomness import seeded
from raycls.run.folder import RunFolder, refuse_lost, refuse_own_weights
from raycls.run.storage.lock import HANDOVER_SECONDS, Lock
from raycls.run.trackers.trackers import check_trackers
from raycls.run.versions import environment, git_commit
from raycls.session.consistency import fitted, outside_of
from raycls.session.data.checked_task import checked_task
from raycls.session.data.labelled import with_labels
from raycls.session.data.limited import limit_of
from raycls.session.data.names import check_names
from raycls.session.data.preprocessing import differences
from raycls.session.data.record import pack
from raycls.session.data.resumed import Resumed, note_left_out, resumed_data
from raycls.session.data.scored import LEFT_OUT
from raycls.session.data.unfit import first_of, first_sample, first_samples
from raycls.session.length.limits import check_acting, notes
from raycls.session.length.longer import DURATION, check_longer
from raycls.session.plan_file import read_plan
from raycls.session.recovery.memory import check_divisible
from raycls.session.setup import make_arrays
from raycls.tasks.base import Task
from raycls.tasks.build import check_labels
from raycls.tasks.trial import example_of, try_task
from raycls.train.forward.around import check as check_forward
from raycls.train.optimizers.build import build_optimizer
from raycls.train.plan import Plan, make_plan
from raycls.train.schedules import build_schedule

__all__ = ["Prepared", "evaluated_split", "plan_of", "prepare", "reduction_of"]


@dataclass(frozen=True)
class Prepared:
    """A run that may start."""

    run: Run
    dataset: Dataset
    plan: Plan
    folder: RunFolder
    parameters: int
    command: tuple[str, ...]
    """The words that were typed."""
    weights: tuple[str, ...]
    """What was done with the weights of `model.weights`, for the header; empty where the run resumes."""
    result: dict[str, Any] | None
    """What an earlier start left, where it ended for good."""
    left_out: Mapping[str, int] = field(default_factory=dict[str, int])
    """How many samples of each split that are gone since the first start are left out."""


def reduction_of(run: Run, device: str) -> str:
    """The reduction that `train.reduction: auto` means on `device`."""
    if run.train.reduction != "auto":
        return run.train.reduction
    return "exact" if device == "cpu" else "fast"


@no_exit()
def prepare(
    run: Run,
    *,
    new: bool,
    command: Sequence[str],
    say: Callable[[str], None],
    dataset: Dataset | None = None,
    record: bytes | None = None,
    trains: bool = True,
) -> Prepared:
    """Check everything that can be checked here, open the run folder, and make or find the plan.

    `dataset` is what `open_dataset` gave for the same data before, and `record` what `recorded.pack` made of it: trials
    of a search share both; an empty record is not kept. A folder without a checkpoint holds nothing to go on from: what
    is started there may differ from the first try. Without `trains` no step follows, nor a check of micro-batches.
    """
    if run.search.space:
        say("search.space is not used by raycls train: the values beside it are trained (raycls search varies them)")
    check_source(run.data)
    check_names(run)
    folder = RunFolder.at(run.run.storage, run.run.name)
    refuse_lost(folder.uri)
    folder.store.tell(say)
    progress("looking at the run folder")
    folder.store.check()
    check_trackers(run.track, folder)
    _check_folder(run, folder, new=new, trains=trains)
    resumed = not new and _has_begun(folder)
    first = read_plan(folder) if resumed else None
    if resumed:
        _check_same(run, folder, first, command, say)
    else:  # a resumed run needs no weights to start from
        zoo.check(run.model)
    progress("opening the data")
    opened = dataset if resumed or dataset else open_dataset(run.data, limit_of(run))
    found = resumed_data(run, folder, first, say, opened) if resumed or opened is None else Resumed(opened)
    dataset = found.dataset
    _check_splits(run, dataset, say)
    plan = _resumed_plan(run, plan_of(run, dataset, found.left_out, found.left_out_labels), first, trains=trains)
    plan = fitted(run, task := checked_task(run, dataset.classes, plan, say), plan)
    plan = check_divisible(run, task, plan)
    _check_durations(run, plan, say, resumed=resumed)
    progress("building the model")
    model = zoo.build(run.model, len(dataset.classes), run.run.seed, load=False)
    weights = () if resumed else _load_weights(run, task, model, dataset, plan)
    model = task.network(model)
    stages = finetuned(run.finetune, model, plan.classes, plan.steps_per_epoch, plan.total_steps)
    build_optimizer(run.optim, model, stages.rates)
    outside = outside_of(task, folder if resumed else None, say)
    start = None if not trains else max(folder.steps(), default=0) if resumed else 0
    _check_forward(run, task, model, stages, dataset, plan, start)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if resumed:
        note_left_out(run, folder)
    else:
        if new and (moved := folder.set_aside()):
            say(f"the earlier run is now {moved}")
        _write_first(run, dataset, folder, command, say, record, outside)
    ended = _ended(run, plan, folder, say)
    return Prepared(run, dataset, plan, folder, parameters, tuple(command), weights, ended, found.counts)


def _check_splits(run: Run, dataset: Dataset, say: Callable[[str], None]) -> None:
    for note in dataset.notes:
        say(note)
    evaluated_split(run, dataset)
    check_labels(run.task, dataset.splits["train"])
    if {"train", "val"} <= set(dataset.own_splits) and run.data.split != SplitConfig():
        say(f"data.split is not used: the data has splits of its own ({', '.join(dataset.own_splits)})")


def _check_durations(run: Run, plan: Plan, say: Callable[[str], None], *, resumed: bool) -> None:
    build_schedule(run.schedule, steps_per_epoch=plan.steps_per_epoch, total_steps=plan.total_steps)
    if resumed or run.train.fast_dev_run:  # two steps are shorter than what a schedule waits for
        return
    check_acting(run, plan)
    for note in notes(run.optim, run.evaluate, run.checkpoint, plan):
        say(note)


def _load_weights(run: Run, task: Task, model: nn.Module, dataset: Dataset, plan: Plan) -> tuple[str, ...]:
    """Load the first weights as every worker will, so that a file that does not fit is told now; lines about them."""
    loaded = zoo.load(run.model, model, dataset.classes)
    if loaded.moved:
        zoo.check_head(model, len(dataset.classes), task.example(first_sample(run, dataset, plan)))
    return (*loaded.notes, *differences(run, loaded.preprocessing))


def evaluated_split(run: Run, dataset: Dataset) -> Split | None:
    """The split that is evaluated during training; DataError where the data has no such split."""
    split = dataset.splits.get(run.evaluate.split)
    if split is None and run.evaluate.every != "off":
        raise DataError(
            f"the data has no {run.evaluate.split} split to evaluate on",
            where="evaluate.split",
            found=", ".join(f"{name} ({len(split)})" for name, split in dataset.splits.items()),
            fix="set evaluate.split to one of these, give data.split a part for it, or set evaluate.every=off",
        )
    return split


def _check_forward(
    run: Run, task: Task, model: nn.Module, stages: Stages, dataset: Dataset, plan: Plan, start: int | None
) -> None:
    """Run black images through the model, in the sizes and the smallest number of the steps after `start`, if any."""
    progress("trying the model on two images")
    trained, *grown = first_samples(run, dataset, plan)
    evaluated: dict[str, Any] = {}
    if plan.evaluate_rows:
        arrays, split = make_arrays(run, dataset.classes, plan), dataset.splits[run.evaluate.split]
        evaluated = task.part(first_of(run, arrays, split, range(len(split)), train=False))
    example = example_of(run.task.name, task, trained)
    if run.optim.ema != "off":  # before any forward pass, as the average is made: some copies fail only then
        zoo.check_copy(model, run.model.name, example)
    zoo.probe(model, example, task.outputs(2))
    for sample in (*grown, *([evaluated] if evaluated else [])):
        other = example_of(run.task.name, task, sample)
        if [part.shape for part in other] != [part.shape for part in example]:
            zoo.probe(model, other, task.outputs(2))
    if run.task.name != "classification":
        with seeded(0):
            try_task(run.task.name, task, model, trained, evaluated)
    as_last = partial(stages, plan.total_steps - 1)  # the last stage trains the most
    check_forward(run.train, model, as_last, example)
    if start is None or (last := plan.order.fewest_rows(start, plan.total_steps)) >= 2 * plan.micro_batches:
        return
    try:
        zoo.forward_alone(model, example, as_last)
    except ValueError as error:  # batch normalisation over one value
        which = "last" if last == plan.order.rows(plan.steps_per_epoch - 1) else "smallest"
        raise ConfigError(
            "a micro-batch of one image cannot be trained with this model",
            where="data.batch_size, train.micro_batches",
            found=f"{plan.samples} samples in batches of {plan.batch_size}: the {which} batch of an epoch has {last}, "
            f"in {plan.micro_batches} micro-batches; {error}",
            fix="put the images back that are left out, or start anew with --new"
            if plan.left_out
            else "choose a batch size that leaves more images to the last batch, fewer micro-batches, "
            "or a larger data.image_size",
        ) from error
    except RayclsError:
        raise
    except (Exception, SystemExit) as error:  # whatever a plug-in raises
        raise zoo.not_trainable(error, example) from error


def plan_of(run: Run, dataset: Dataset, left_out: tuple[int, ...] = (), left_out_labels: tuple[int, ...] = ()) -> Plan:
    """The plan of a run that starts now, or that is resumed without the samples `left_out` of `left_out_labels`."""
    evaluated = dataset.splits.get(run.evaluate.split)
    plan = make_plan(
        seed=run.run.seed,
        samples=len(dataset.splits["train"]) + len(left_out),
        classes=len(dataset.classes),
        evaluate_rows=0 if evaluated is None else len(evaluated),
        batch_size=run.data.batch_size,
        workers=run.scale.max_workers,
        train=run.train,
        evaluate=run.evaluation,
        checkpoint=run.checkpoint,
        track=run.track,
        augment=run.augment,
    )
    labels = left_out_labels if run.loss.balance != "none" else ()
    sampler = "balanced" if run.loss.balance == "sampler" else ""
    plan = replace(plan, left_out=left_out, left_out_labels=labels, sampler=sampler, repeats=run.data.repeats)
    return with_labels(run, plan, dataset.splits["train"])


def _resumed_plan(run: Run, plan: Plan, first: Plan | None, *, trains: bool) -> Plan:
    plan = plan if trains else replace(plan, micro_batches=1)
    if first is None:
        return plan
    # What decides the bits stays what it was at the first start; how often to save and log may change.
    if trains and run.scale.max_workers > first.micro_batches:
        raise ConfigError(
            "more workers than this run has micro-batches",
            where="scale.workers",
            found=str(run.scale.max_workers),
            valid=f"0 to {first.micro_batches}, fixed when the run was started",
            fix="lower scale.workers, or start anew with --new and a larger train.micro_batches",
        )
    return replace(
        plan,
        micro_batches=first.micro_batches,
        reduction=first.reduction,
        device=first.device,
        precision=first.precision,
        divided=first.divided,
        rewind_every=first.rewind_every,
    )


def _check_folder(run: Run, folder: RunFolder, *, new: bool, trains: bool) -> None:
    if new or not folder.steps():
        refuse_own_weights(folder, run.model.weights, run.run.name)
    if not new:
        _refuse_search(folder)
        _refuse_other_kind(folder, trains=trains)


def _refuse_search(folder: RunFolder) -> None:
    if folder.store.exists(RunFolder.TRIALS):
        raise ConfigError(
            "this folder holds a search and not a run",
            where=folder.store.describe(),
            fix="use another run.name, or set the search aside with --new; "
            "what a search found is trained from its best.yaml",
        )


def _refuse_other_kind(folder: RunFolder, *, trains: bool) -> None:
    """Refuse to train on in a probe, and to probe where another run has weights: one would be taken for the other."""
    probe = folder.command == "probe"
    if trains and probe:
        what, found = "a probe, which trained no step", "a head on features, by `raycls probe`"
    elif not trains and not probe and (folder.steps() or folder.store.exists(RunFolder.WEIGHTS)):
        what, found = "a run that is no probe", "weights that `raycls probe` did not write"
    else:
        return
    raise ConfigError(
        f"this folder holds {what}",
        where=folder.store.describe(),
        found=found,
        fix="use another run.name, or set what is there aside with --new",
    )


def _check_same(
    run: Run, folder: RunFolder, first: Plan | None, command: Sequence[str], say: Callable[[str], None]
) -> None:
    """Refuse to go on with another config than the run was started with; what it takes from the data may change.

    How long it is trained may, too, see `longer`; `first` is the plan it was started with.
    """
    text = folder.store.read_bytes(RunFolder.CONFIG).decode()
    before = config.load_text(text, folder.store.describe(RunFolder.CONFIG)).run
    changed = [item for item in config.difference(before, run) if not item.harmless and item.path not in LEFT_OUT]
    if first and [item.path for item in changed] == [DURATION]:
        check_longer(before, run, first, folder, command=command, say=say)
    elif changed:
        raise ConfigError(
            "this run was started with another config",
            where=folder.store.describe(RunFolder.CONFIG),
            found="\n         ".join(str(item) for item in changed),
            fix="use another run.name, undo the change, or start anew with --new (the old run is kept beside it)",
        )


def _has_begun(folder: RunFolder) -> bool:
    return bool(folder.steps()) or _finished(folder) is not None


def _write_first(
    run: Run,
    dataset: Dataset,
    folder: RunFolder,
    command: Sequence[str],
    say: Callable[[str], None],
    record: bytes | None,
    outside: Mapping[str, Any],
) -> None:
    record = pack(dataset, run.data.source.path) if record is None else record
    # a run before its first checkpoint may be under way there
    with Lock(folder, "start", timeout=HANDOVER_SECONDS, say=say):
        _write_start(run, dataset, folder, command, record, outside)


def _write_start(
    run: Run, dataset: Dataset, folder: RunFolder, command: Sequence[str], record: bytes, outside: Mapping[str, Any]
) -> None:
    folder.store.delete(RunFolder.PLAN)
    if record:
        folder.store.write_bytes(RunFolder.SPLITS, record)
    folder.write_json(RunFolder.ENV, _environment(run, dataset, command, outside))
    folder.store.write_bytes(RunFolder.CONFIG, config.to_yaml(run).encode())


def _environment(run: Run, dataset: Dataset, command: Sequence[str], outside: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **environment(),
        "command": list(command),
        "git": git_commit(os.getcwd()),
        "seed": run.run.seed,
        "time": time.time(),
        "data": {
            "fingerprint": dataset.fingerprint,
            "classes": list(dataset.classes),
            "splits": {name: len(split) for name, split in dataset.splits.items()},
        },
        **({"outside": outside} if outside else {}),
    }


def _ended(run: Run, plan: Plan, folder: RunFolder, say: Callable[[str], None]) -> dict[str, Any] | None:
    """As `_finished`; None too where it is trained for longer now, or `model/` is to hold other weights."""
    result = _finished(folder)
    if result is not None and result["state"] == "done" and result["step"] < plan.total_steps:
        return None
    asked = ((result or {}).get("kept") or {}).get("asked", run.evaluate.keep)
    if asked == run.evaluate.keep:
        return result
    if folder.steps():
        return None
    say(f"evaluate.keep is not used: there are no checkpoints left, and model/ holds the {asked} weights")
    return result


def _finished(folder: RunFolder) -> dict[str, Any] | None:
    result = folder.read_json(RunFolder.RESULT)
    whole = all(folder.store.exists(name) for name in (RunFolder.WEIGHTS, RunFolder.MODEL_INFO))
    return result if result and result["state"] in ("done", "early") and whole else None
