"""`raycls data check`: what there is to know of a data set before it is trained on, as plain facts."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from raycls.config.sections.run import Run
from raycls.data.samples import text_of
from raycls.data.source import Dataset
from raycls.progress import progress
from raycls.session.checking.copies import Copies, Same, copies
from raycls.session.checking.groups import Shared, opened, shared_groups
from raycls.session.checking.judged import Judged, judged, judges
from raycls.session.checking.looked import Looked, Unreadable, Work, look, look_on
from raycls.session.computing.parted import Join
from raycls.session.setup import volumes_of

__all__ = ["Checked", "Image", "check"]


Opened = Callable[[Dataset], None]


@dataclass(frozen=True)
class Image:
    """One image by its place among all: those of the first split, then those of the next."""

    split: str
    row: int


@dataclass(frozen=True)
class Checked:
    """What was found. Images are named by their positions among all."""

    run: Run
    dataset: Dataset
    looked: dict[str, Looked]
    copies: Copies
    judged: Judged | None = None
    groups: tuple[Shared, ...] | None = None
    """Those in two splits; None where there are no groups."""

    @cached_property
    def unreadable(self) -> dict[int, Unreadable]:
        """Position -> why the image cannot be used."""
        starts = dict(zip(self.dataset.splits, self._starts, strict=False))
        return {
            starts[name] + row: why for name, looked in self.looked.items() for row, why in sorted(looked.bad.items())
        }

    @property
    def clean(self) -> bool:
        """Whether nothing must be looked at."""
        found = self.copies
        doubted = self.judged is not None and self.judged.contradicted
        return not (
            self.unreadable or found.exact or found.near or found.conflicts or found.leaks or self.groups or doubted
        )

    @cached_property
    def _starts(self) -> list[int]:
        return np.cumsum([0, *map(len, self.dataset.splits.values())]).tolist()

    def image(self, position: int) -> Image:
        which = int(np.searchsorted(self._starts, position, side="right")) - 1
        return Image(list(self.dataset.splits)[which], position - self._starts[which])

    def size(self, position: int) -> tuple[int, int]:
        """Width and height in pixels; zeros where it cannot be decoded."""
        image = self.image(position)
        width, height = self.looked[image.split].sizes[image.row].tolist()
        return width, height

    def entry(self, position: int) -> dict[str, Any]:
        """An image as plain JSON."""
        image = self.image(position)
        split = self.dataset.splits[image.split]
        return {
            "split": image.split,
            "key": text_of(split.key(image.row)),
            "path": text_of(split.locate(image.row)),
            "label": split.label(image.row),
        }

    def facts(self) -> dict[str, Any]:
        """All of it as plain JSON; docs/data-check.md says what each entry is."""
        doubted = self.judged
        return {
            "clean": self.clean,
            "images": self._starts[-1],
            "classes": list(self.dataset.classes),
            "fingerprint": self.dataset.fingerprint,
            "splits": {name: self._split(name) for name in self.dataset.splits},
            **self._files(),
            "unreadable": [self.entry(place) | why._asdict() for place, why in self.unreadable.items()],
            "exact_duplicates": [self._same(same) for same in self.copies.exact],
            "near_duplicates": self._near(),
            "label_conflicts": [self._same(same) for same in self.copies.conflicts],
            "leaks": [self._same(same) for same in self.copies.leaks],
            "groups_in_two_splits": None if self.groups is None else [self._group(each) for each in self.groups],
            "labels": None if doubted is None else self._doubts(doubted),
        }

    def _near(self) -> list[dict[str, Any]] | None:
        if volumes_of(self.run) is not None:
            return None
        return [self._same(same) | {"distance": same.distance} for same in self.copies.near]

    def _group(self, shared: Shared) -> dict[str, Any]:
        return {"group": shared.group, "images": [self.entry(place) for place in shared.images]}

    def _same(self, same: Same) -> dict[str, Any]:
        return {"kinds": list(same.kinds), "images": [self.entry(place) for place in same.images]}

    def _split(self, name: str) -> dict[str, Any]:
        split = self.dataset.splits[name]
        counts = dict(zip(split.classes, split.counts().tolist(), strict=True))
        return {"images": len(split), "own": name in self.dataset.own_splits, "class_counts": counts}

    def _files(self) -> dict[str, Any]:
        sizes = np.concatenate([looked.sizes for looked in self.looked.values()])
        decoded = sizes[sizes[:, 0] > 0]
        turns = np.concatenate([looked.turns for looked in self.looked.values()]).tolist()
        formats = Counter(name for looked in self.looked.values() for name in looked.formats if name)
        told: dict[str, Any] | None = None
        if len(decoded):
            measures = (("min", np.min), ("median", np.median), ("max", np.max))
            told = {name: of(decoded, axis=0).tolist() for name, of in measures}
            told["different"] = len(np.unique(decoded, axis=0))
        return {
            "bytes": int(sum(looked.lengths.sum() for looked in self.looked.values())),
            "sizes": told,
            "formats": dict(formats.most_common()),
            "exif_orientation": {str(turn): count for turn, count in sorted(Counter(turns).items()) if turn != 1},
        }

    def _doubts(self, judged: Judged) -> dict[str, Any]:
        classes = self.dataset.classes
        return {
            "runs": list(judged.runs),
            "trained_on": int(judged.trained_on.sum()),
            "contradicted": judged.contradicted,
            "suspects": [
                self.entry(each.image)
                | {
                    "suggested": classes[each.suggested],
                    "probability_of_label": round(each.of_label, 6),
                    "probability_of_suggested": round(each.of_suggested, 6),
                    "contradicted": each.contradicted,
                    "trained_on": bool(judged.trained_on[each.image]),
                }
                for each in judged.suspects
            ],
        }


def check(
    run: Run,
    runs: Sequence[str],
    say: Callable[[str], None],
    begun: Opened = lambda dataset: None,
    join: Join | None = None,
) -> Checked:
    """Look at every image of the data of `run`, and let the trained `runs` (folders) judge its labels.

    `begun` is given the data set before any image is looked at. The cluster that `join` joins, where it is given, looks
    at the images instead of this machine, and finds the same.
    """
    progress("opening the data")
    dataset = opened(run.data)
    begun(dataset)
    asked = judges(dataset, runs)
    for note in dataset.notes:
        say(note)
    work = Work(dataset.splits, volumes_of(run))
    if join is None:
        looked = look(work)
    else:
        with join(run, say) as cluster:
            looked = look_on(cluster, work, os.getcwd())
    splits = list(dataset.splits.values())

    def together(arrays: Iterator[np.ndarray]) -> np.ndarray:
        return np.concatenate(list(arrays))

    found = copies(
        together(each.digests for each in looked.values()),
        together(each.small for each in looked.values()),
        together(each.sizes for each in looked.values()),
        np.repeat(np.arange(len(splits)), [len(split) for split in splits]),
        together(split.labels for split in splits) if dataset.classes else None,
    )
    groups = shared_groups(dataset, run.data.group)
    return Checked(run, dataset, looked, found, judged(dataset, asked, say) if asked else None, groups)
