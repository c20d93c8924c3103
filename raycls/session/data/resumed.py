"""The data of a run that is resumed: the splits it was started with, without what is gone since.

A damaged image must not cost the run: removed, or listed in `data.source.args.ignore`, it is left out from then on, and
every other sample keeps its place in the order of each epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from raycls.config import load as config
from raycls.config.sections.run import Run
from raycls.data.ignore import patterns_of
from raycls.data.source import Dataset, Pool, Split, cut, fingerprint, open_dataset, open_pool
from raycls.data.splits.weighted import Weights
from raycls.errors import DataError
from raycls.quantities import first_names, plural
from raycls.run.folder import RunFolder
from raycls.session.data import record as recorded
from raycls.session.data.limited import limit_of
from raycls.session.data.record import Comparison, Part, Record
from raycls.session.data.scored import find_record
from raycls.train.plan import Plan

__all__ = ["Resumed", "note_left_out", "resumed_data", "searched_data"]

_MOST_GONE = 0.5
"""Part of the training samples that may be gone: where more are, it is another folder, or one that is not mounted."""
_ANEW = "restore the data, or start anew with --new"


@dataclass(frozen=True)
class Resumed:
    """What a resumed run goes on with."""

    dataset: Dataset
    left_out: tuple[int, ...] = ()
    """Ids of the training samples that are left out, ascending."""
    left_out_labels: tuple[int, ...] = ()
    """The classes that they had at the start."""
    counts: Mapping[str, int] = field(default_factory=dict[str, int])
    """How many samples of each split are left out, where some are."""


def resumed_data(
    run: Run,
    folder: RunFolder,
    first: Plan | None,
    say: Callable[[str], None],
    dataset: Dataset | None = None,
) -> Resumed:
    """The data of the run in `folder`, whose plan is `first`; `dataset` was opened before, with the same
    config.

    A sample that was left out once stays left out; what holds other content than at the start is told. DataError where
    this is not the data that the run was started with.
    """
    before = (folder.read_json(RunFolder.ENV) or {}).get("data", {})
    left = first.left_out if first else ()
    if dataset is not None and not left and before.get("fingerprint") in (None, dataset.fingerprint):
        return Resumed(dataset)
    record = find_record(folder)
    resumed = _resumed(run, record, before, left, say)
    if record is not None and dataset is None:
        _tell_changed(record, resumed.dataset, say)
    return resumed


def _resumed(
    run: Run, record: Record | None, before: Mapping[str, Any], left: tuple[int, ...], say: Callable[[str], None]
) -> Resumed:
    """What is found today of `record`; `before` is what the run's environment says of its data."""
    pool = open_pool(run.data, least_classes=1).ordered(before.get("classes", ()))
    try:
        dataset = cut(pool, run.data, limit_of(run))
    except DataError:  # what a cut of today makes impossible need not be
        if record is None:
            raise
    else:
        if not left and before.get("fingerprint") in (None, dataset.fingerprint):
            return Resumed(dataset)
    if record is None or getattr(pool.reader, "positional", False):
        raise _other(run, pool.classes, tuple(before.get("classes", pool.classes)))
    return _Found(run, record, pool).resumed(left, say)


def searched_data(run: Run, folder: RunFolder, say: Callable[[str], None]) -> Dataset:
    """The data of the search in `folder`: the splits that it was started with, without what is gone since.

    A search that starts now, or that an earlier version started, has the data of today. DataError as for a run.
    """
    record = find_record(folder)
    if record is None:
        return open_dataset(run.data, limit_of(run))
    pool = open_pool(run.data, least_classes=1)
    try:
        dataset = cut(pool, run.data, limit_of(run))
    except DataError:
        dataset = None
    if dataset is not None and dataset.fingerprint == record.fingerprint:
        return dataset
    if getattr(pool.reader, "positional", False):
        raise _other(run, pool.classes, record.classes)
    dataset = _Found(run, record, pool).resumed((), say).dataset
    splits = {name: replace(split, ids=None) for name, split in dataset.splits.items()}  # for trials that start now
    return replace(dataset, splits=splits, fingerprint=fingerprint(dataset.classes, splits))


def note_left_out(run: Run, folder: RunFolder) -> None:
    """Add what `run` leaves out of the data to the config in `folder`, for its evaluations and its next starts."""
    text = folder.store.read_bytes(RunFolder.CONFIG).decode()
    before = config.load_text(text, folder.store.describe(RunFolder.CONFIG)).run
    then, now = (patterns_of(source.args.get("ignore", ())) for source in (before.data.source, run.data.source))
    file = run.data.source.args.get("ignore_file", before.data.source.args.get("ignore_file"))
    args = dict(before.data.source.args)
    if added := [pattern for pattern in now if pattern not in then]:
        args["ignore"] = [*then, *added]
    if file is not None:
        args["ignore_file"] = file
    bad = {"on_bad_image": run.data.on_bad_image, "max_bad_fraction": run.data.max_bad_fraction}
    if args != before.data.source.args or any(getattr(before.data, name) != value for name, value in bad.items()):
        values = config.to_dict(before)
        values["data"]["source"]["args"] = args
        values["data"].update(bad)
        folder.store.write_bytes(RunFolder.CONFIG, config.to_yaml(config.from_dict(values)).encode())


def _tell_changed(record: Record, dataset: Dataset, say: Callable[[str], None]) -> None:
    for name, split in dataset.splits.items():
        part = record.parts.get(name)
        ids = np.arange(len(split)) if split.ids is None else split.ids
        if part is None or (split.ids is None and len(part) != len(split)):
            continue
        changed = ids[recorded.changed(part, ids, split)]
        if len(changed):
            names = first_names([part.name(int(index)) for index in changed[:5]], len(changed))
            say(
                f"{plural(len(changed), 'sample')} of the split {name} with other content than when the run was "
                f"started, used as now: {names}"
            )


def _other(run: Run, classes: Sequence[str], before: Sequence[str]) -> DataError:
    if tuple(classes) != tuple(before):
        return DataError(
            "the classes of the data are not those that this run was started with",
            found=_listed(classes, before),
            valid=f"{len(before)} classes: {', '.join(before[:8])}{' ...' if len(before) > 8 else ''}",
            fix=_ANEW,
        )
    return DataError(
        "the data is not the data that this run was started with: files were added, removed or relabelled",
        where=str(run.data.source.path or run.data.source.name),
        fix=_ANEW,
    )


def _listed(found: Sequence[str], before: Sequence[str]) -> str:
    more = sorted(set(found) - set(before))
    less = sorted(set(before) - set(found))
    words = [f"{len(found)} classes"]
    words += [f"new: {', '.join(more[:5])}"] if more else []
    words += [f"missing: {', '.join(less[:5])}"] if less else []
    return "; ".join(words)


class _Found:
    """The samples of the record in the data of today."""

    def __init__(self, run: Run, record: Record, pool: Pool) -> None:
        self.run, self.record, self.pool = run, record, pool
        self.place = str(run.data.source.path or run.data.source.name)
        self.found: Comparison = recorded.compare(record, pool, limited=limit_of(run) is not None)

    def resumed(self, left: tuple[int, ...], say: Callable[[str], None]) -> Resumed:
        if self.found.ambiguous:
            raise _other(self.run, self.pool.classes, self.record.classes)
        self._refuse_relabelled()
        gone = {name: np.flatnonzero(rows < 0) for name, rows in self.found.rows.items()}
        out = np.union1d(gone["train"], np.array(left, np.int64))
        self._refuse_lost(gone["train"], out)
        splits: dict[str, Split] = {}
        for name in self.record.parts:
            split = self._split(name, out if name == "train" else gone[name])
            if len(split):
                splits[name] = split
        if self.run.evaluate.split not in splits and self.run.evaluate.split in self.record.parts:
            raise DataError(
                f"all samples of the split {self.run.evaluate.split}, which this run evaluates on, are gone",
                where=self.place,
                found=first_names(self._names(self.run.evaluate.split, gone[self.run.evaluate.split]), len(gone)),
                fix=_ANEW,
            )
        self._tell(gone, left, say)
        counts = {name: len(ids) for name, ids in {**gone, "train": out}.items() if len(ids)}
        dataset = Dataset(self.record.classes, splits, "", tuple(self.pool.splits or ()), self.pool.notes)
        labels = self.record.parts["train"].labels[out].tolist()
        return Resumed(dataset, tuple(out.tolist()), tuple(labels), counts)

    def _split(self, name: str, out: np.ndarray) -> Split:
        part = self.record.parts[name]
        ids = np.setdiff1d(np.arange(len(part)), out)
        rows = self.found.rows[name][ids]
        labels = np.full(len(self.pool.labels), -1, np.int64)
        labels[rows] = part.labels[ids]
        there = replace(self.pool, classes=self.record.classes, labels=labels, sets=self.record.sets)
        split = there.split(name, rows, self.run.data)
        return replace(split, ids=ids if len(out) else None, weights=self._weights(split, part, ids))

    def _weights(self, split: Split, part: Part, ids: np.ndarray) -> Weights | None:
        """Those of today, which must be those of the start: only the others of then make their mean."""
        if split.weights is None or part.weights is None:
            return split.weights
        changed = ids[split.weights.values != part.weights[ids]]
        if len(changed):
            first, row = int(changed[0]), int(np.searchsorted(ids, changed[0]))
            raise DataError(
                f"{plural(len(changed), 'training sample')} with another weight than when this run was started",
                where=f"data.weight: {split.weights.column}",
                found=f"{first_names(self._names(split.name, changed), len(changed))}; the first had "
                f"{part.weights[first]:g} and has {split.weights.values[row]:g}",
                valid="the weights that the run was started with",
                fix="put the weights back, or start anew with --new",
            )
        return replace(split.weights, mean=float(part.weights.mean()))

    def _names(self, split: str, ids: np.ndarray) -> list[str]:
        return [self.record.parts[split].name(int(index)) for index in ids[:5]]

    def _refuse_relabelled(self) -> None:
        for name, relabelled in self.found.relabelled.items():
            ids = np.flatnonzero(relabelled)
            if not len(ids):
                continue
            row, first = int(self.found.rows[name][ids[0]]), int(ids[0])
            was = self.record.label_names[self.record.parts[name].labels[first]]
            now = self.pool.label_names[self.pool.labels[row]]
            raise DataError(
                f"{plural(len(ids), 'sample')} of the split {name} were relabelled since this run was started",
                where=self.place,
                found=f"{first_names(self._names(name, ids), len(ids))}; the first was {was} and is {now}",
                valid="the labels that the run was started with",
                fix="put the labels back, or start anew with --new",
            )

    def _refuse_lost(self, gone: np.ndarray, out: np.ndarray) -> None:
        count = len(self.record.parts["train"])
        if len(out) < count and len(gone) <= _MOST_GONE * count:
            return
        names = first_names(self._names("train", gone), len(gone))
        raise DataError(
            "the data is not the data that this run was started with: most of what it trains on is gone",
            where=self.place,
            found=f"{len(gone)} of {count} training samples are gone: {names}",
            valid="the same files; single ones may be left out",
            fix=_ANEW,
        )

    def _tell(self, gone: Mapping[str, np.ndarray], left: tuple[int, ...], say: Callable[[str], None]) -> None:
        for name, ids in gone.items():
            fresh = np.setdiff1d(ids, np.array(left, np.int64)) if name == "train" else ids
            if len(fresh):
                say(
                    f"{plural(len(fresh), 'sample')} of the split {name} gone or ignored since the run was started, "
                    f"left out from now on: {first_names(self._names(name, fresh), len(fresh))}"
                )
        back = np.setdiff1d(np.array(left, np.int64), gone["train"])
        if len(back):
            names = first_names(self._names("train", back), len(back))
            say(f"{plural(len(back), 'sample')} left out before, there again, still left out: {names}")
        if len(self.found.new):
            names = [self.pool.keys[int(row)] for row in self.found.new[:5]]
            say(
                f"{plural(len(self.found.new), 'sample')} added since the run was started, in none of its splits and "
                f"not trained: {first_names(names, len(self.found.new))}"
            )
