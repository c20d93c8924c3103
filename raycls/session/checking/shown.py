"""`raycls data show`: a few images of each class, as they are decoded and as training sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from raycls.config.sections.run import Run
from raycls.data.images.planes import for_people
from raycls.data.making.sample import made
from raycls.data.order import permutation
from raycls.data.source import Dataset, Split, open_dataset
from raycls.data.volumes.reading import middle_slice
from raycls.errors import ConfigError, DataError
from raycls.progress import counted, progress
from raycls.quantities import first_names, plural
from raycls.report.plots.sheet import Row, Sheet, draw
from raycls.session.checking.looked import shown
from raycls.session.data.limited import limit_of
from raycls.session.prepare import plan_of
from raycls.session.setup import make_arrays, volumes_of

__all__ = ["Asked", "Shown", "show"]

_ROWS = 100
"""Classes of one sheet."""
_NO_EPOCH = -1
"""As an evaluation has it."""


@dataclass(frozen=True)
class Asked:
    """What is to be shown."""

    split: str
    per_class: int
    seed: int
    """Chooses the images."""
    classes: tuple[str, ...] = ()
    """Those that are shown; none given means all."""
    augmented: bool = False
    epoch: int = 0


@dataclass(frozen=True)
class Shown:
    sheet: Sheet
    images: int
    classes: int


def show(run: Run, asked: Asked, say: Callable[[str], None]) -> Shown:
    """Draw the sheet. ConfigError for a split or a class that the data does not have.

    An image that cannot be decoded is told, and another one takes its place.
    """
    progress("opening the data")
    dataset = open_dataset(run.data, limit_of(run))
    for note in dataset.notes:
        say(note)
    split = dataset.splits.get(asked.split)
    if split is None:
        raise ConfigError(
            "the data has no such split", where="--split", found=asked.split, valid=", ".join(dataset.splits)
        )
    labels = _labels(dataset, asked)
    if len(labels) > _ROWS:
        say(f"shown are the first {_ROWS} of {plural(len(labels), 'class')}; --class NAME chooses others")
    seen = _augmented(run, dataset, split, asked.epoch) if asked.augmented else None
    volumes, rows, images = volumes_of(run), list[Row](), 0
    for label in counted(labels[:_ROWS], "drawing the images", len(labels[:_ROWS]), "classes"):
        there = _rows(split, label)
        chosen = there[permutation(len(there), asked.seed, label)]
        pictures = list(_pictures(split, chosen, asked.per_class, lambda row: shown(split, row, volumes), seen, say))
        images += len(pictures) // (1 if seen is None else 2)
        name = split.classes[label] if split.classes else "images"
        rows.append(Row(f"{name} ({len(there):,})", pictures))
    columns = (
        ["as decoded", "as trained" if split.name == "train" else "as evaluated"] if seen else [""]
    ) * asked.per_class
    title = f"{run.run.name}: {plural(len(split), 'image')} of the split {split.name}, width x height in pixels"
    return Shown(draw(title, columns, rows), images, len(rows))


_View = Callable[[int], np.ndarray]


def _labels(dataset: Dataset, asked: Asked) -> list[int]:
    unknown = [name for name in asked.classes if name not in dataset.classes]
    if unknown:
        raise ConfigError(
            "there is no such class", where="--class", found=", ".join(unknown), valid=first_names(dataset.classes)
        )
    return [dataset.classes.index(name) for name in asked.classes] or list(range(max(1, len(dataset.classes))))


def _rows(split: Split, label: int) -> np.ndarray:
    """The images of a class, `[n] int64`."""
    if not split.classes:
        return np.arange(len(split))
    return np.flatnonzero(split.labels == label if split.sets is None else split.sets[split.labels, label])


def _pictures(
    split: Split,
    rows: Sequence[int] | np.ndarray,
    count: int,
    picture: _View,
    seen: _View | None,
    say: Callable[[str], None],
) -> Iterator[tuple[np.ndarray, str]]:
    for row in (int(row) for row in rows):
        if count == 0:
            return
        try:
            pixels = picture(row)
        except DataError as error:
            say(f"left out: {split.locate(row)}: {error.what}: {error.found}")
            continue
        yield pixels, f"{pixels.shape[1]} x {pixels.shape[0]}"
        if seen is not None:
            view = seen(row)
            yield view, f"{view.shape[1]} x {view.shape[0]}"
        count -= 1


def _augmented(run: Run, dataset: Dataset, split: Split, epoch: int) -> _View:
    """What makes the image that the network gets in `epoch`; in splits other than train that of an evaluation."""
    train = split.name == "train"
    arrays = make_arrays(run, dataset.classes, plan_of(run, dataset))

    def view(row: int) -> np.ndarray:
        number = row if split.ids is None else int(split.ids[row])
        found = made(arrays, split, row, (run.run.seed, epoch if train else _NO_EPOCH, number), train=train)
        for array in found.values():
            if array.dtype == np.float32 and array.ndim == 4:
                return middle_slice(array)
            if array.dtype in (np.uint8, np.uint16) and array.ndim == 3 and array.shape[2] == run.data.channels:
                return for_people(array)
        raise ConfigError(
            "the task of this config makes no image that could be shown",
            where="--augmented",
            found=", ".join(f"{name} {array.dtype} {list(array.shape)}" for name, array in found.items()),
            valid="an array uint8 of shape [H, W, 3]",
            fix="leave it out",
        )

    return view
