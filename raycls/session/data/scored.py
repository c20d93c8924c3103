"""Which samples an evaluation scores: a split as the run was started with it, or all of other data.

A split is never cut anew: what was added to the data since may be anything, and what the new cut calls `test` may have
been trained on. Other data (`raycls eval RUN --data PATH`) is scored as a whole, matched by the names of its classes.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from raycls.config.names.suggest import suggest
from raycls.config.sections.run import Run
from raycls.data.ignore import ignorer, patterns_of
from raycls.data.label_sets import reordered, samples_of
from raycls.data.source import Dataset, Pool, Split, cut, open_pool
from raycls.errors import DataError
from raycls.quantities import first_names, plural
from raycls.run.folder import RunFolder
from raycls.session.data import record as recorded
from raycls.session.data.limited import limit_of
from raycls.session.data.record import Comparison, Part, Record
from raycls.session.scoring.other import dividing

__all__ = ["LEFT_OUT", "Scored", "find_labels", "find_record", "score"]

LEFT_OUT = (
    "data.source.args.ignore",
    "data.source.args.ignore_file",
    "data.on_bad_image",
    "data.max_bad_fraction",
)
"""Options that take samples away: with other values of these the source is still the same."""
_MOST_MISSING = 0.1
"""Part of a split that a copy of the data may lack and still be taken for one."""


@dataclass(frozen=True)
class Scored:
    """What an evaluation scores: the split `split` of `dataset`, whose classes are those of the model."""

    dataset: Dataset
    split: str
    told: str
    """The samples in words: `split test`, or the path of other data."""
    facts: dict[str, Any]
    """What the summary says beside the numbers."""


def find_record(folder: RunFolder) -> Record | None:
    """The splits that the run was started with; None for a run that was started before they were written down."""
    data = folder.store.find_bytes(RunFolder.SPLITS)
    return None if data is None else recorded.unpack(data, folder.store.describe(RunFolder.SPLITS))


def find_labels(folder: RunFolder) -> np.ndarray | None:
    """The class of each training sample by its id, `[N] int64`, as it was when the run was started; None as above."""
    record = find_record(folder)
    return None if record is None else record.parts["train"].labels


def score(
    folder: RunFolder,
    run: Run,
    *,
    split: str | None,
    moved: bool,
    whole: bool,
    extra_classes: str,
    name: str,
    say: Callable[[str], None],
    about: Sequence[str] = (),
) -> Scored:
    """The samples of an evaluation. `run.data` says where the data is today.

    `moved`: the source is not the one that the run was trained with: it may be a copy of that data or other data.
    `whole`: it is other data. `name` is what the user calls the run. `about` are columns of the data that are asked
    for. DataError where nothing can be scored.
    """
    record = find_record(folder)
    pool = open_pool(run.data, least_classes=1, about=about)
    for note in pool.notes:
        say(note)
    if record is None and not whole:
        made = _unrecorded(folder, run, pool, split, moved=moved, say=say)
        if made is not None:
            return _by_heart(run, made, say)
    if record is not None and not whole:
        wanted = split or ("test" if "test" in record.parts else run.evaluate.split)
        part = record.parts.get(wanted)
        if part is None:
            raise _no_split(wanted, list(record.parts))
        found = _Found(record, wanted, part, pool, run)
        if not moved or found.is_copy:
            return _by_heart(run, found.scored(say, moved=moved, name=name), say)
    if not whole:
        say("this is other data than the run was trained with: it is evaluated as a whole, as --data does")
    return _Whole(folder, record, run, pool, extra_classes, name).scored(split, say)


def _by_heart(run: Run, scored: Scored, say: Callable[[str], None]) -> Scored:
    """`scored`, a split that the run was started with, with what `train.overfit` makes of any split."""
    if run.train.overfit == "off":
        return scored
    count = len(scored.dataset.splits[scored.split])
    say(f"split {scored.split} is the {plural(count, 'image')} that this run was trained on (train.overfit)")
    return replace(scored, facts={**scored.facts, "trained_on": count})


def _no_split(wanted: str, there: Sequence[str]) -> DataError:
    return DataError(f"the data has no {wanted} split", found=", ".join(there), fix="choose one of these with --split")


def _unrecorded(
    folder: RunFolder, run: Run, pool: Pool, split: str | None, *, moved: bool, say: Callable[[str], None]
) -> Scored | None:
    """The split of a run that was started before splits were written down; None for other data."""
    known = (folder.read_json(RunFolder.ENV) or {}).get("data", {})
    try:
        dataset = cut(pool.ordered(known.get("classes", ())), run.data, limit_of(run))
    except DataError:
        if known.get("fingerprint") is None:
            raise
        dataset = None
    if dataset is None or known.get("fingerprint", dataset.fingerprint) != dataset.fingerprint:
        if moved:
            return None
        raise DataError(
            "the data has changed, or is read otherwise than by the earlier version that started this run and did not "
            "write down which samples were in which split",
            where=str(run.data.source.path or run.data.source.name),
            valid="the data that the run was started with",
            fix="restore the data, or evaluate images that were not trained on: raycls eval RUN --data PATH",
        )
    say("this run was started by an earlier version, which did not write down its splits: the data has not changed")
    wanted = split or ("test" if "test" in dataset.splits else run.evaluate.split)
    if wanted not in dataset.splits:
        raise _no_split(wanted, list(dataset.splits))
    return Scored(dataset, wanted, f"split {wanted}", {"split": wanted})


class _Found:
    """The samples of a recorded split that are in the data of today, and what became of the others."""

    def __init__(self, record: Record, wanted: str, part: Part, pool: Pool, run: Run) -> None:
        comparison = recorded.compare(record, pool, limited=limit_of(run) is not None)
        self.record, self.wanted, self.part, self.pool = record, wanted, part, pool
        self.place = str(run.data.source.path or run.data.source.name)
        self.ambiguous = comparison.ambiguous
        rows, relabelled = comparison.rows[wanted], comparison.relabelled[wanted]
        ids = np.flatnonzero((rows >= 0) & ~relabelled)
        labels = part.labels[ids]
        spread = _spread(len(pool.labels), rows[ids], labels)
        there = replace(pool, classes=record.classes, labels=spread, sets=record.sets)
        split = there.split(wanted, rows[ids], run.data)
        differs = recorded.changed(part, ids, split)
        kept = np.flatnonzero(~differs)
        shifted = getattr(pool.reader, "positional", False) and part.digests is None
        untouched = _is_untouched(record, pool, run, comparison)
        self.unknown = (shifted or self.ambiguous) and not (untouched and not relabelled.any())
        self.split = split if len(kept) == len(ids) else there.split(wanted, rows[ids][kept], run.data)
        gone, args = np.flatnonzero(rows < 0), run.data.source.args
        ignored = ignorer(patterns_of(args.get("ignore", ()), args.get("ignore_file")))
        left_out = np.array([ignored(part.name(int(row))) for row in gone], bool)
        self.gone, self.ignored, self.changed = gone[~left_out], gone[left_out], ids[differs]
        self.relabelled, self.new = np.flatnonzero(relabelled), comparison.new

    @property
    def is_copy(self) -> bool:
        """Whether this is the split that was recorded, in another place: nearly all of it, and all of its classes."""
        classes = set(np.unique(self.part.labels).tolist()) == set(np.unique(self.split.labels).tolist())
        return classes and not self.unknown and len(self.split) >= (1 - _MOST_MISSING) * len(self.part)

    def scored(self, say: Callable[[str], None], *, moved: bool, name: str) -> Scored:
        """What is scored of it, with every other sample told. DataError where that is nothing."""
        elsewhere = f"raycls eval {shlex.quote(name)} --data {shlex.quote(self.place)}"
        if self.unknown or not len(self.split):
            raise DataError(
                f"nothing of the split {self.wanted} can be scored: the data is not what the run was started with",
                where=self.place,
                found=", ".join(f"{len(names)} {what}" for what, names in self._changes().items() if len(names))
                or "samples that cannot be told apart by their keys",
                valid=f"the {plural(len(self.part), 'sample')} of that split, as the run wrote them down",
                fix=f"restore the data; {elsewhere} evaluates all images that are there now, trained or not",
            )
        changes: dict[str, Any] = {}
        for what, ids in self._changes().items():
            names = [self.pool.keys[int(row)] if what == "new" else self.part.name(int(row)) for row in ids[:5]]
            changes[what] = {"count": len(ids), "first": names}
            if len(ids):
                of = "" if what == "new" else f" of split {self.wanted}"
                say(f"{plural(len(ids), 'sample')}{of} {_WORDS[what]}: {first_names(names, len(ids))}")
        others = len(self.pool.labels) - len(self.split)
        if moved and others:
            say(
                f"the other {plural(others, 'image')} there are not part of the split {self.wanted} that the run wrote "
                f"down; {elsewhere} evaluates all"
            )
        dataset = Dataset(self.record.classes, {self.wanted: self.split}, "")
        return Scored(dataset, self.wanted, f"split {self.wanted}", {"split": self.wanted, "split_changes": changes})

    def _changes(self) -> dict[str, np.ndarray]:
        return {
            "gone": self.gone,
            "ignored": self.ignored,
            "changed": self.changed,
            "relabelled": self.relabelled,
            "new": self.new,
        }


_WORDS = {
    "gone": "not scored, gone since the run was started",
    "ignored": "not scored, left out by data.source.args.ignore",
    "changed": "not scored, other content than when the run was started",
    "relabelled": "not scored, of another class than when the run was started",
    "new": "not scored, added since the run was started",
}


def _is_untouched(record: Record, pool: Pool, run: Run, comparison: Comparison) -> bool:
    """Whether the samples of today are those of the start, as far as their keys say."""
    limit = limit_of(run)
    if limit is None:
        return not len(comparison.new) and all((found >= 0).all() for found in comparison.rows.values())
    try:
        return cut(pool.ordered(record.classes), run.data, limit).fingerprint == record.fingerprint
    except DataError:
        return False


def _spread(count: int, rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    spread = np.full(count, -1, np.int64)
    spread[rows] = labels
    return spread


class _Whole:
    """All images of other data."""

    def __init__(
        self, folder: RunFolder, record: Record | None, run: Run, pool: Pool, extra_classes: str, name: str
    ) -> None:
        self.folder, self.record, self.run, self.pool = folder, record, run, pool
        self.extra_classes, self.name = extra_classes, name
        self.place = str(run.data.source.path or run.data.source.name)
        known = record.classes if record is not None else (folder.read_json(RunFolder.MODEL_INFO) or {}).get("classes")
        self.classes: tuple[str, ...] = tuple(known or ())

    def scored(self, split: str | None, say: Callable[[str], None]) -> Scored:
        """All of it, or its split `split`. DataError for classes that the model does not know, unless left out."""
        rows = self._rows(split, say)
        labels, sets = self._labels()
        facts: dict[str, Any] = {"split": split or "all", "data": self.place}
        extra = rows[labels[rows] < 0]
        if len(extra):
            facts["left_out_classes"] = self._leave_out(extra, say)
            rows = rows[labels[rows] >= 0]
        if not len(rows):
            raise DataError(
                "there is no image to evaluate",
                where=self.place,
                valid=f"images of {first_names(self.classes)}",
            )
        counts = samples_of(labels[rows], sets, len(self.classes))
        missing = [name for name, count in zip(self.classes, counts, strict=True) if not count]
        if missing:
            names = first_names(missing)
            say(f"{len(missing)} of the {len(self.classes)} classes of the model have no image there: {names}")
        pool = replace(self.pool, classes=self.classes, labels=labels, sets=sets)
        chosen = pool.split(split or "all", rows, self.run.data)
        trained = self._trained_on(chosen)
        if trained is not None:
            facts["trained_on"] = trained
        if trained is None:
            say("which of these images were trained on is not known: an earlier version started the run")
        elif trained:
            say(f"{trained:,} of {plural(len(rows), 'image')} were trained on: the numbers are too good for these")
        dataset = Dataset(self.classes, {chosen.name: chosen}, "")
        return Scored(dataset, chosen.name, f"{self.place}" + (f", split {split}" if split else ""), facts)

    def _labels(self) -> tuple[np.ndarray, np.ndarray | None]:
        """The labels by the classes of the model, and their sets; -1 where a class is none of them."""
        position = {name: index for index, name in enumerate(self.classes)}
        moved, sets = np.array([position.get(name, -1) for name in self.pool.classes], np.int64), self.pool.sets
        if sets is None:
            return moved[self.pool.labels], None
        strange = np.any(sets[:, moved < 0], axis=1)
        return np.where(strange[self.pool.labels], -1, self.pool.labels), reordered(sets, moved, len(self.classes))

    def _rows(self, split: str | None, say: Callable[[str], None]) -> np.ndarray:
        own = {name: np.asarray(rows, np.int64) for name, rows in (self.pool.splits or {}).items() if len(rows)}
        if split is None:
            if own:
                counts = ", ".join(f"{len(rows)} {name}" for name, rows in own.items())
                say(f"this data has splits of its own, all of them are evaluated: {counts} (--split names one)")
            return np.arange(len(self.pool.labels))
        if split not in own:
            raise DataError(
                f"this data has no {split} split",
                where=self.place,
                found=", ".join(own) or "no split of its own",
                fix="choose one of these with --split" if own else "leave --split out: all images are evaluated",
            )
        return np.sort(own[split])

    def _leave_out(self, rows: np.ndarray, say: Callable[[str], None]) -> dict[str, int]:
        counts = zip(self.pool.classes, self.pool.counts(rows).tolist(), strict=True)
        extra = {name: count for name, count in counts if count and name not in self.classes}
        shown = first_names([f"{name} ({count})" for name, count in extra.items()])
        if self.extra_classes == "leave-out":
            say(f"left out: {plural(len(rows), 'image')} of classes that the model does not know: {shown}")
            return extra
        near = {name: suggest(name, self.classes) for name in list(extra)[:5]}
        hints = "".join(f"; did you mean {other} by {name}?" for name, other in near.items() if other)
        several = self.pool.sets is not None and self.run.data.source.name == "manifest"
        divided = dividing(extra, self.classes) if several else ""
        raise DataError(
            "the data has classes that the model does not know",
            where=self.place,
            found=f"{shown}{hints}",
            valid=f"{len(self.classes)} classes: {first_names(self.classes)}",
            fix=f"{divided}rename the classes, or evaluate the other images alone with --extra-classes leave-out",
        )

    def _trained_on(self, split: Split) -> int | None:
        """How many images of `split` the run was trained on, by their content or their place; None: not known."""
        part = None if self.record is None else self.record.parts.get("train")
        if self.record is None or part is None:
            return None
        same = np.zeros(len(split), bool)
        if part.digests is not None:
            size = recorded.sizes(split.reader, len(split))
            alike = np.flatnonzero(np.isin(size, part.sizes))
            if (size >= 0).all() and len(alike) <= recorded.MOST_SAMPLES:
                found = recorded.digests(split, alike)
                same[alike] = np.isin(found, part.digests) & (found != b"")
                if getattr(split.reader, "positional", False):  # other content in the same place is another image
                    return int(same.sum())
        root = getattr(split.reader, "root", None) or recorded.place_of(self.place)
        rows = {os.path.join(root, key): index for index, key in enumerate(split.keys)}
        for key in part.keys.to_pylist():  # a file that was encoded anew is the same image
            index = rows.get(os.path.join(self.record.place, key.decode("utf-8", "surrogateescape")))
            if index is not None:
                same[index] = True
        return int(same.sum())
