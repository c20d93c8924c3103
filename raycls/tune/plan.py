"""What is checked, and derived, before a search starts: its space, its data, its budget of models, its folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from raycls.config import load as config
from raycls.config.names.belongings import searched_notes
from raycls.config.sections.duration import Duration
from raycls.config.sections.run import Run
from raycls.config.sections.search import objective
from raycls.config.space.check import apply, space_of
from raycls.config.space.space import Space
from raycls.config.write import flow, override
from raycls.data.source import Dataset, check_source, open_dataset
from raycls.errors import ConfigError, DataError, RayclsError
from raycls.models import zoo
from raycls.progress import progress
from raycls.quantities import plural
from raycls.run.folder import RunFolder, refuse_lost
from raycls.run.storage.lock import HANDOVER_SECONDS, Lock
from raycls.run.trackers.trackers import check_trackers
from raycls.search.board import Board, Length
from raycls.search.confirm import pair, repeats
from raycls.search.samplers import make_sampler
from raycls.search.trials import TrialLog
from raycls.session.data.limited import limit_of
from raycls.session.data.names import check_names
from raycls.session.data.record import pack
from raycls.session.data.resumed import searched_data
from raycls.session.data.scored import LEFT_OUT
from raycls.session.data.unfit import first_sample
from raycls.session.length.limits import check_acting
from raycls.session.prepare import evaluated_split, plan_of
from raycls.session.setup import make_task
from raycls.tasks.metrics import check_metrics
from raycls.train.schedules import build_schedule
from raycls.tune.donors import keep
from raycls.tune.model_cost import Cost, costs_of, within

__all__ = ["Search", "open_search"]

_CORNERS = 512
_MAY_CHANGE = frozenset(
    {
        "search.trials",
        "search.max_concurrent",
        "search.target",
        "search.budget",
        "search.max_failures",
        "search.gpus_per_trial",
        "search.confirm.seeds",
    }
)
"""How far a search goes, and on what; everything else of it decides which trials there are."""


@dataclass
class Search:
    """A search that may start."""

    run: Run
    folder: RunFolder
    dataset: Dataset
    space: Space
    board: Board
    metric: str
    mode: Literal["max", "min"]
    command: tuple[str, ...]
    record: bytes
    """The splits of `dataset`, as every trial keeps them."""
    cost: Callable[[Mapping[str, Any]], Cost | None]
    """Parameters and operations of the model with values of the space."""

    @property
    def trials(self) -> str:
        """Folder or URI of the trials' run folders."""
        return self.folder.store.sub("trials").uri

    @property
    def budget_seconds(self) -> float:
        budget = self.run.search.budget
        return 0.0 if isinstance(budget, str) else budget.seconds or 0.0

    @property
    def is_done(self) -> bool:
        """Whether there is nothing left to train."""
        ledger, seeds = self.board.ledger, self.run.search.confirm.seeds
        if ledger.end_reason is None or self.board.running:
            return False
        if ledger.end_reason == "target" and self.board.over != "target":
            return False  # search.target was raised
        if not self.board.is_played:
            return False  # so was search.trials, or the line of a trial is lost
        if isinstance(seeds, str):
            return True
        repeated = [repeats(ledger, trial.id) for trial in pair(ledger, self.metric, self.mode)]
        return all(len(trials) >= seeds and all(trial.ended for trial in trials) for trials in repeated)

    def header(self, arithmetic: str) -> list[str]:
        """What the search is, for the screen."""
        search, size = self.run.search, self.space.size()
        combinations = "infinitely many combinations" if size is None else plural(size, "combination")
        scheduler = search.scheduler
        facts = {
            "asha": f"asha, grace {scheduler.grace}, reduction {scheduler.reduction}, brackets {scheduler.brackets}",
            "median": f"median, grace {scheduler.grace}",
            "pbt": f"pbt, interval {scheduler.interval}, quantile {scheduler.quantile:g}",
        }.get(scheduler.name, "none: every trial runs to its end")
        lines = [
            f"search     {self.folder.store.describe()}",
            f"space      {', '.join(self.space.paths)}: {combinations}",
            f"trials     {search.trials}, {search.algorithm}, {self.metric} ({self.mode}), scheduler {facts}",
            f"at a time  {arithmetic}",
        ]
        known = self.board.searched
        if known:
            running = sum(trial.state == "running" for trial in known)
            lines.append(f"resuming   {len(known)} trials are known, {running} of them unfinished")
        return lines

    def rungs_in_epochs(self) -> list[float]:
        """The milestones of the scheduler, for plots; empty where they are times."""
        unit = self.run.search.scheduler.grace.unit
        length = self.board.length({})
        factor = {"ep": 1.0, "st": 1 / length.steps_per_epoch, "%": length.epochs / 100}.get(unit)
        if factor is None:
            return []
        return sorted({milestone * factor for _, milestone, _ in self.board.scheduler.rungs})


@contextmanager
def open_search(
    loaded: config.Loaded, *, new: bool, command: Sequence[str], say: Callable[[str], None]
) -> Iterator[Search]:
    """Check everything, open the search folder and hold its lock for the length of the block."""
    run = loaded.run
    if not run.search.space:
        raise ConfigError(
            "there is nothing to search",
            where="search.space",
            found="empty",
            fix="name paths and their values, for example "
            + override("search.space", {"optim.lr": "loguniform(1e-4, 1)"}),
        )
    space = space_of(run)
    folder = RunFolder.at(run.run.storage, run.run.name)
    refuse_lost(folder.uri)
    check_trackers(run.track, folder)
    _check_names(run, space, loaded.origins)
    folder.store.tell(say)
    folder.store.check()
    progress("opening the data")
    begun = not new and folder.store.exists(TrialLog.FILE)
    dataset = searched_data(run, folder, say) if begun else open_dataset(run.data, limit_of(run))
    record = pack(dataset, run.data.source.path)
    progress("looking at the space")
    for note in dataset.notes:
        say(note)
    _check_splits(run, dataset)
    _check_acting(run, dataset, space, loaded.origins)
    metrics = make_task(run, dataset.classes, None).metrics
    metric, mode = objective(run.search, run.evaluate.metric, metrics)
    cost = costs_of(run, len(dataset.classes), lambda varied: _example(varied, dataset))
    sampler = make_sampler(space, run.search, mode=mode, fits=within(run.search, cost))
    _check_budget(sampler.suggest, loaded.origins)
    for note in (*loaded.notes, *searched_notes(run, space.paths)):
        say(note)
    if new and (moved := folder.set_aside()):
        say(f"the earlier search is now {moved}")
    with Lock(folder, "search", timeout=HANDOVER_SECONDS, say=say):
        _check_same(run, folder, record)
        board = Board(
            TrialLog(folder.store),
            space,
            run.search,
            sampler,
            metric,
            mode,
            lambda chosen: _length(run, dataset, chosen),
            keep=lambda *what: keep(folder, *what),
        )
        for line in _idle(run, board):
            say(line)
        yield Search(run, folder, dataset, space, board, metric, mode, tuple(command), record, cost)


def _example(run: Run, dataset: Dataset) -> tuple[Tensor, ...]:
    task = make_task(run, dataset.classes, torch.device("cpu"))
    return task.example(first_sample(run, dataset, plan_of(run, dataset)))


def _idle(run: Run, board: Board) -> list[str]:
    """What the scheduler was set to and never comes to do, in one line."""
    scheduler, length = run.search.scheduler, board.length({})
    if scheduler.name == "none" or "train.duration" in board.space.paths:
        return []
    unit = scheduler.interval if scheduler.name == "pbt" else scheduler.grace
    what = {"pbt": "no trial ever learns from another"}.get(scheduler.name, "no trial is stopped early")
    option = "interval" if scheduler.name == "pbt" else "grace"
    trial = plural(length.epochs, "epoch")
    whole = {"ep": length.epochs, "st": float(length.steps), "%": 100.0}.get(unit.unit)
    if whole is not None and unit.value >= whole:
        return [f"search.scheduler.{option} {unit} is not below the {trial} of a trial: {what}"]
    every = Duration(1, "ep") if isinstance(run.evaluate.every, str) else run.evaluate.every
    gap = {"ep": every.value, "st": every.value / length.steps_per_epoch, "%": length.epochs * every.value / 100}
    if gap.get(every.unit, 0.0) >= length.epochs:
        return [f"evaluate.every {every}: trials of {trial} are evaluated at their end alone: {what}"]
    return []


def _length(run: Run, dataset: Dataset, chosen: Mapping[str, Any]) -> Length:
    try:
        varied = apply(run, chosen)
    except (
        ConfigError
    ):  # a combination that breaks a rule, beyond those that were looked at: its trial fails and says so
        varied = run
    plan = plan_of(varied, dataset)
    return Length(plan.epochs(plan.total_steps), plan.steps_per_epoch)


def _check_names(run: Run, space: Space, origins: Mapping[str, str]) -> None:
    """Look up every model and augmentation that the space can name, and bind their arguments. Takes no process."""
    check_source(run.data)
    seen: set[str] = set()
    for chosen in space.corners(_CORNERS):
        varied = apply(run, chosen)
        key = flow(
            [
                *(part.model_dump(mode="json") for part in (varied.model, varied.augment, varied.task)),
                varied.data.image_size,
            ]
        )
        if key in seen:
            continue
        seen.add(key)
        try:
            zoo.check(varied.model)
            check_names(varied)
        except RayclsError as error:
            raise _located(error, chosen, origins) from error


def _check_acting(run: Run, dataset: Dataset, space: Space, origins: Mapping[str, str]) -> None:
    """Refuse options that cannot act within some trial: it would fail with the same error when it starts."""
    for chosen in space.corners(_CORNERS):
        varied = apply(run, chosen)
        plan = plan_of(varied, dataset)
        try:
            build_schedule(varied.schedule, steps_per_epoch=plan.steps_per_epoch, total_steps=plan.total_steps)
            check_acting(varied, plan)
        except ConfigError as error:
            about = ("schedule", "optim.ema", "train.", "data.batch_size", "augment.")
            searched = [path for path in chosen if path.startswith(about)]
            if searched:
                error.fix = f"leave such values of {', '.join(searched)} out of the space; {error.fix or ''}".rstrip(
                    "; "
                )
            raise _located(error, {path: chosen[path] for path in searched}, origins, about) from error


def _located(
    error: RayclsError,
    chosen: Mapping[str, Any],
    origins: Mapping[str, str],
    about: tuple[str, ...] = ("model", "augment", "data"),
) -> RayclsError:
    """The same error with the line of the space that leads to it, and the combination."""
    paths = [path for path in chosen if path.startswith(about)]
    lines = [
        f"{origins[f'search.space.{path}']}  search.space.{path}" for path in paths if f"search.space.{path}" in origins
    ]
    error.where = "; ".join([*([error.where] if error.where else []), *lines]) or None
    with_what = ", ".join(f"{path}: {flow(value)}" for path, value in chosen.items())
    error.found = f"{error.found or ''} (in a trial with {with_what})".strip() if with_what else error.found
    return error


def _check_splits(run: Run, dataset: Dataset) -> None:
    evaluated_split(run, dataset)
    check_metrics(make_task(run, dataset.classes, None), run.evaluate, run.search)
    if isinstance(run.search.confirm.seeds, str):
        return
    if run.evaluate.split == "test":
        raise ConfigError(
            "the test split is not untouched: it is evaluated during training",
            where="search.confirm.seeds, evaluate.split",
            found="evaluate.split: test",
            fix="evaluate on val during training, or set search.confirm.seeds=off",
        )
    if not len(dataset.splits.get("test", ())):
        raise DataError(
            "the data has no test split to confirm the winner on",
            where="search.confirm.seeds",
            found=", ".join(f"{name} ({len(split)})" for name, split in dataset.splits.items()),
            fix="give data.split a part for test, or set search.confirm.seeds=off",
        )


def _check_budget(suggest: Callable[[int], Any], origins: Mapping[str, str]) -> None:
    """The first suggestion, asked for here: a budget that no model of the space meets is told before Ray starts."""
    try:
        suggest(1)
    except ConfigError as error:
        options = [name for name in ("search.max_parameters", "search.max_flops") if name in (error.where or "")]
        places = [f"{origins[name]}  {name}" for name in options if name in origins]
        error.where = "; ".join(places) or error.where
        raise


def _check_same(run: Run, folder: RunFolder, record: bytes) -> None:
    """Refuse to go on with another search, or in the folder of a run; a first start notes the config and the splits."""
    where = folder.store.describe(RunFolder.CONFIG)
    if folder.store.exists(RunFolder.ENV) or folder.store.exists(RunFolder.ATTEMPTS):
        raise ConfigError(
            "this folder holds a run and not a search",
            where=folder.store.describe(),
            fix="use another run.name, or set the run aside with --new",
        )
    if not folder.store.exists(TrialLog.FILE):
        folder.store.write_bytes(RunFolder.SPLITS, record)
        folder.store.write_bytes(RunFolder.CONFIG, config.to_yaml(run).encode())
        return
    before = config.load_text(folder.store.read_bytes(RunFolder.CONFIG).decode(), where).run
    split = max(1, before.scale.max_workers) != max(1, run.scale.max_workers) and run.train.micro_batches == "auto"
    changed = [
        item
        for item in config.difference(before, run)
        if not (item.harmless or item.path in LEFT_OUT)
        or (item.path.startswith("search.") and item.path not in _MAY_CHANGE)
        or (item.path == "scale.workers" and split)  # which decides how the batches of trials to come are cut
    ]
    if changed:
        raise ConfigError(
            "this search was started with another config",
            where=where,
            found="\n         ".join(str(item) for item in changed),
            fix="use another run.name, undo the change, or start anew with --new (the old search is kept beside it)",
        )
    if config.to_yaml(before) != config.to_yaml(run):  # how far it goes was changed
        folder.store.write_bytes(RunFolder.CONFIG, config.to_yaml(run).encode())
