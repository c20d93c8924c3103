"""`raycls init --check`: every image is decoded once, and all that a training would stop at are named."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from raycls.cli import init
from raycls.config.load import load
from raycls.config.names.builtin import TASKS
from raycls.config.names.recipes import file_of
from raycls.config.sections.data import DataConfig
from raycls.config.sections.run import Run
from raycls.config.sections.types import named
from raycls.config.write import override
from raycls.data.ignore import pattern_of, read_patterns, write_patterns
from raycls.data.label_sets import samples_of
from raycls.data.making.sample import Arrays, made, unexpected
from raycls.data.rows import fetched
from raycls.data.samples import Files, UnfitError
from raycls.data.source import SOURCES, Dataset, Split, open_dataset
from raycls.data.sources.remote.objects import Objects
from raycls.errors import ConfigError, DataError, OutageError, RayclsError
from raycls.plugins import resolve
from raycls.quantities import plural
from raycls.screen.working import Working
from raycls.session.checking.each import Task, each
from raycls.session.data.unfit import NEARLY_ALL

__all__ = ["Bad", "Checked", "check", "check_folder", "look", "report"]

_NAMED = 12
"""More files than that are listed in a file instead of a command."""
_SHOWN = 200
_LIST = "bad_images"


@dataclass(frozen=True)
class Bad:
    """An image that training would stop at."""

    split: str
    key: str
    where: str
    """The file, as messages name it."""
    what: str
    found: str
    entry: str = ""
    """The operation of the config that does not suit it, such as `augment.train[0]`; empty where the image is bad."""
    fix: str = ""
    """How to change that operation."""


@dataclass(frozen=True)
class Checked:
    """What a check looked at and found."""

    data: DataConfig
    counts: dict[str, int]
    """Split -> images."""
    bad: tuple[Bad, ...]
    can_ignore: bool
    """Whether the source can leave out single images."""
    unfit: tuple[Bad, ...] = ()
    """The first image of each operation that suits none, or hardly any; the others of it are not in `bad`."""
    failed: tuple[int, ...] = ()
    """How many images each of these fails on."""
    emptied: tuple[str, ...] = ()
    """Classes of which a split would have no image left, such as `cat (train)`."""


def look(source: str, *, ignore: tuple[str, ...], overrides: Sequence[str]) -> Checked:
    """What `raycls init SOURCE --check` found, where SOURCE is a folder or a config file; it shows how far it is."""
    file = file_of(source, where="SOURCE")
    if file.is_file() and file.suffix.lower() not in (".yaml", ".yml"):
        name = "arrays" if file.suffix.lower() == ".npz" else "manifest"
        raise ConfigError(
            "this is neither a folder of images nor a config",
            where=source,
            valid="a folder, or a config file (.yaml)",
            fix=f"raycls init CONFIG --check data.source.name={name} {override('data.source.path', source)}",
        )
    run = load(source, overrides).run if file.is_file() else None
    if run is not None and ignore:
        instead = override("data.source.args.ignore", list(ignore))
        raise ConfigError("--ignore is for a folder", fix=f"with a config, give {instead}")
    with Working(f"looking at {source}"):
        return check_folder(source, ignore=ignore, overrides=overrides) if run is None else check(run)


def check_folder(path: str, *, ignore: tuple[str, ...] = (), overrides: Sequence[str] = ()) -> Checked:
    """Decode every image of the folder `path`; the arguments are those of `starter.survey`."""
    data, dataset = init.open_folder(path, ignore, overrides)
    return _check(data, dataset, {})


def check(run: Run) -> Checked:
    """Decode every image that `run` uses, and augment it once where the operations are raycls's own."""
    from raycls.data.images import operations as augment
    from raycls.session.setup import make_arrays

    def own(train: bool) -> bool:
        """Whether all that is done to an image is raycls's own: what a plug-in raises is no fault of the image."""
        operations = run.augment.train if train else run.augment.eval
        names = {named(entry)[0] for entry in operations or ()}
        if run.task.name not in TASKS or not names <= set(augment.OPERATIONS):
            return False
        augment.build(operations, train=train, image_size=run.data.image_size)
        return True

    dataset = open_dataset(run.data)
    arrays = make_arrays(run, dataset.classes)
    return _check(run.data, dataset, {name: arrays if own(name == "train") else None for name in dataset.splits})


def report(checked: Checked) -> list[str]:
    """What was found, in lines for a reader, and how to leave it out.

    Where the files are many, a list of them is written to the working directory.
    """
    total = sum(checked.counts.values())
    splits = ", ".join(f"{count:,} {name}" for name, count in checked.counts.items())
    told = [
        line
        for first, count in zip(checked.unfit, checked.failed, strict=True)
        for line in (
            f"{first.entry} fails on {plural(count, 'image')}, such as {first.where}: {first.what} {first.found}",
            f"change {first.entry}, not the images: {first.fix}",
        )
    ]
    looked = f"checked {plural(total, 'image')} ({splits})"
    if told and not checked.bad:
        return [f"{looked}: the augmentation does not suit them", *told]
    if not checked.bad:
        return [f"{looked}: all can be decoded"]
    lines = [f"{looked}: {len(checked.bad):,} cannot be used", *told]
    kinds = Counter(bad.what for bad in checked.bad)
    lines += [f"  {count:>8,}  {what}" for what, count in kinds.most_common()]
    lines += [f"{bad.where}: {bad.found}" for bad in checked.bad[:_SHOWN]]
    if len(checked.bad) > _SHOWN:
        lines.append(f"and {len(checked.bad) - _SHOWN:,} more")
    lines += [f"no image of {name} would be left" for name in checked.emptied[:_NAMED]]
    return lines + _remedy(checked)


def _remedy(checked: Checked) -> list[str]:
    if not checked.can_ignore:
        return ["replace these images, or take them out of the data: its source cannot leave out single ones"]
    args = checked.data.source.args
    patterns = [pattern_of(key) for key in dict.fromkeys(bad.key for bad in checked.bad)]
    if len(patterns) <= _NAMED:
        given = args.get("ignore", [])
        option = override("data.source.args.ignore", [*([given] if isinstance(given, str) else given), *patterns])
        return [f"replace them, or leave out these and no others, in raycls train and raycls init, with {option}"]
    earlier = args.get("ignore_file")
    listed = [*(read_patterns(earlier) if earlier else ()), *patterns]
    file = _free_name()
    init.write(write_patterns(listed, "images that raycls init --check could not use"), file)
    option = override("data.source.args.ignore_file", str(file))
    return [
        f"wrote {file}: these files" + (f", and those of {earlier}" if earlier else ""),
        f"replace them, or leave out these and no others, in raycls train and raycls init, with {option}",
    ]


def _free_name() -> Path:
    """A file that is not there: an earlier list may be in use."""
    names = (Path(f"{_LIST}{f'-{number}' if number > 1 else ''}.txt") for number in range(1, 10**6))
    return next(name for name in names if not name.exists())


def _check(data: DataConfig, dataset: Dataset, arrays: dict[str, Arrays | None]) -> Checked:
    splits = dataset.splits
    counts = {name: len(split) for name, split in splits.items()}
    parameters = inspect.signature(resolve("source", data.source.name, SOURCES)).parameters
    files = all(isinstance(split.reader, Files | Objects) for split in splits.values())
    found: dict[tuple[str, int], Bad] = {}
    for _, bad in each(_Work(splits, arrays), splits, "checking"):
        found.update(bad)
    order = {name: number for number, name in enumerate(splits)}
    found = dict(sorted(found.items(), key=lambda item: (order[item[0][0]], item[0][1])))
    unfit = _unfit(found, counts)
    first = {entry: next(bad for bad in found.values() if bad.entry == entry) for entry in unfit}
    found = {place: bad for place, bad in found.items() if bad.entry not in unfit}
    emptied = tuple(
        line for name, split in splits.items() for line in _emptied(split, [i for s, i in found if s == name])
    )
    can_ignore = files and "ignore" in parameters
    return Checked(
        data, counts, tuple(found.values()), can_ignore, tuple(first.values()), tuple(unfit.values()), emptied
    )


def _unfit(found: Mapping[tuple[str, int], Bad], counts: Mapping[str, int]) -> dict[str, int]:
    """Operations that fail on nearly all images that get to them -> on how many."""
    failures = Counter(bad.entry for bad in found.values() if bad.entry)
    unfit: dict[str, int] = {}
    for entry, count in failures.items():
        splits = [name for name in counts if (name == "train") == entry.startswith("augment.train")]
        tried = sum(counts[name] for name in splits) - sum(
            s in splits and b.entry != entry for (s, _), b in found.items()
        )
        if count > 1 and count >= NEARLY_ALL * tried:
            unfit[entry] = count
    return unfit


def _emptied(split: Split, bad: list[int]) -> list[str]:
    lost = samples_of(split.labels[bad], split.sets, len(split.classes))
    emptied = np.flatnonzero((lost > 0) & (lost == split.counts()))
    return [f"{split.classes[label]} ({split.name})" for label in emptied]


_Found = dict[tuple[str, int], Bad]


@dataclass(frozen=True)
class _Work:
    """What a process needs to look at any image."""

    splits: dict[str, Split]
    arrays: dict[str, Arrays | None]

    def __call__(self, task: Task) -> _Found:
        rows = range(task.start, task.stop)
        with fetched(self.splits[task.split].reader, np.arange(task.start, task.stop)):
            found = {(task.split, index): self._look(task.split, index) for index in rows}
        return {place: bad for place, bad in found.items() if bad is not None}

    def failed(self, task: Task, error: DataError) -> _Found:
        return {(task.split, task.start): self.bad(task.split, task.start, error)}

    def _look(self, name: str, index: int) -> Bad | None:
        split, arrays = self.splits[name], self.arrays.get(name)
        try:
            if arrays is None:
                split.pixels(index)
            else:
                made(arrays, split, index, (0, 0, index), train=name == "train")
        except OutageError:  # no image is at fault
            raise
        except RayclsError as error:
            return self.bad(name, index, error)
        except Exception as error:  # noqa: BLE001 - of a source that is a plug-in
            return self.bad(name, index, unexpected(error))
        return None

    def bad(self, name: str, index: int, error: RayclsError) -> Bad:
        split = self.splits[name]
        bad = Bad(name, split.key(index), split.locate(index), error.what, error.found or "")
        if not isinstance(error, UnfitError):
            return bad
        return replace(bad, entry=error.entry, fix=(error.fix or "").removesuffix(f"; {split.without(index)}"))
