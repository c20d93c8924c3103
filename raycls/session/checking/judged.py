"""What trained runs say of every image of a data set, and which of the images they were trained on."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import torch

from raycls.data.samples import Keys
from raycls.data.source import Dataset, Split, open_dataset
from raycls.errors import ConfigError, RayclsError
from raycls.progress import progress
from raycls.quantities import cores, first_names
from raycls.session.checking.confident import Suspect, suspects
from raycls.session.data.limited import limit_of
from raycls.session.predictions.compute import Work
from raycls.session.predictions.predict import here, part_rows, told
from raycls.session.setup import device_of, refuse_missing_gpu
from raycls.session.trained.trained import Trained, open_trained

__all__ = ["Judged", "judged", "judges"]

_LISTED = 30
"""Images that are listed where fewer labels are contradicted."""


@dataclass(frozen=True)
class Judged:
    """The labels that are doubted, and by what."""

    runs: tuple[str, ...]
    suspects: tuple[Suspect, ...]
    """The most doubtful first: all that are contradicted, or more."""
    trained_on: np.ndarray
    """Whether an image was judged by a run that was trained on it, `[N] bool`: such a run may know its label by
    heart."""

    @property
    def contradicted(self) -> int:
        """How many labels are contradicted."""
        return sum(suspect.contradicted for suspect in self.suspects)


def judges(dataset: Dataset, folders: Sequence[str]) -> list[Trained]:
    """The runs in `folders`. ConfigError for one that does not tell one of the classes of `dataset` from another."""
    runs = [open_trained(folder) for folder in folders]
    for trained in runs:
        _refuse(trained, dataset)
    return runs


def judged(dataset: Dataset, runs: Sequence[Trained], say: Callable[[str], None]) -> Judged:
    """Predict every image of `dataset` with `runs`, and find the labels that are contradicted.

    An image is judged by the runs that were not trained on it, where there are some: the runs of all folds judge every
    image by what was learned from the others.
    """
    found = [(_probabilities(trained, dataset), _trained_on(trained, dataset, say)) for trained in runs]
    trained_on: np.ndarray = np.asarray(np.stack([seen for _, seen in found]).all(axis=0))
    total, count = np.zeros_like(found[0][0]), np.zeros(len(trained_on))
    for probabilities, seen in found:
        counts = trained_on | ~seen
        total[counts] += probabilities[counts]
        count += counts
    labels = np.concatenate([split.labels for split in dataset.splits.values()])
    known: np.ndarray = np.any(np.isfinite(total), axis=0)
    unknown = [name for name, there in zip(dataset.classes, known.tolist(), strict=True) if not there]
    if unknown:
        say(f"these classes are not judged, as not every run knows them: {first_names(unknown)}")
    mean = np.where(known, total / count[:, None], 0.0)
    return Judged(
        tuple(trained.name for trained in runs),
        tuple(suspects(mean, np.where(known[labels], labels, -1), _LISTED)),
        trained_on,
    )


def _refuse(trained: Trained, dataset: Dataset) -> None:
    several = trained.reading.several or any(split.sets is not None for split in dataset.splits.values())
    shared = [name for name in dataset.classes if name in trained.classes]
    if several or len(shared) < 2:
        raise ConfigError(
            "a run can judge labels only where an image has one class, of which it knows two or more",
            where=f"--run {trained.name}",
            found="images with any number of classes" if several else f"a run of {first_names(trained.classes)}",
            valid=f"a run that was trained on these classes: {first_names(dataset.classes)}",
            fix="leave it out",
        )


def _probabilities(trained: Trained, dataset: Dataset) -> np.ndarray:
    """Of each class of the data set, `[N, C]`: NaN in the columns of classes that the run does not know, and in the
    rows of images that cannot be decoded."""
    refuse_missing_gpu(trained.run)
    device = device_of(trained.run, torch.cuda.is_available())
    columns = [trained.classes.index(name) if name in trained.classes else -1 for name in dataset.classes]
    made: list[np.ndarray] = []
    for split in dataset.splits.values():
        images = replace(trained.split(split.keys, split.reader), name=split.name)
        rows = part_rows(len(split), trained.plan.evaluate_batch)
        precision = trained.precision_on(torch.device(device))
        work = Work(trained, images, 1, True, device, os.getcwd(), rows, precision)
        numbers = range(work.parts)
        with closing(here(work, numbers, cores())) as computed:
            parts = sorted(told(computed, work, numbers), key=lambda part: part.number)
        known = np.concatenate([part.probabilities for part in parts])
        made.append(np.where(np.array(columns) >= 0, known[:, columns], np.nan))
    return np.concatenate(made)


def _trained_on(trained: Trained, dataset: Dataset, say: Callable[[str], None]) -> np.ndarray:
    """Which images are among those that the run was trained on, `[N] bool`: all of them where nobody knows."""
    progress("looking for the images that the run was trained on")
    splits = dataset.splits.values()
    try:
        own = open_dataset(trained.run.data, limit_of(trained.run)).splits["train"]
    except RayclsError as error:
        say(f"the data of {trained.name} cannot be opened, so all images count as trained on: {error.what}")
        return np.ones(sum(map(len, splits)), bool)
    places = frozenset(_places(own))
    return np.array([place in places for split in splits for place in _places(split)], bool)


def _places(split: Split) -> list[str]:
    """What names an image in either data set: the path of a file, or the key."""
    files = getattr(split.reader, "names", None)
    named = isinstance(files, Keys)
    return [os.path.realpath(split.locate(row)) if named else split.key(row) for row in range(len(split))]
