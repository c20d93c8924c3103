"""The images on which an artefact is compared or calibrated: files of the run's data, chosen without a draw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from raycls.data.images.planes import RGB
from raycls.data.making.bad import BadImageError
from raycls.data.making.sample import Arrays
from raycls.data.samples import text_of
from raycls.data.source import Split
from raycls.errors import DataError
from raycls.progress import counted
from raycls.quantities import first_names, plural
from raycls.session.data.scored import score
from raycls.session.scoring.other import with_source
from raycls.session.trained.trained import Trained

__all__ = ["Pictures", "pictures"]


@dataclass(frozen=True)
class Pictures:
    """Some samples of a split."""

    trained: Trained
    split: Split
    rows: np.ndarray
    """Their positions in the split, ascending `[N] int64`."""
    told: str
    """Which ones these are, in words: `split val`."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def truth(self) -> np.ndarray:
        """The class of each, `[N] int64`; its classes, `[N, C] bool`, where it may have any number."""
        labels, sets = self.split.labels[self.rows], self.split.sets
        return labels if sets is None else sets[labels]

    @property
    def keys(self) -> list[str]:
        return [self.split.key(int(row)) for row in self.rows]

    def image(self, index: int) -> np.ndarray:
        """Decoded as the training decodes, nothing else: `[H, W, 3] uint8`, RGB where it trains on grey too. DataError
        names the file."""
        planes = self.split.planes if self.split.planes.channels not in (1, 3) else RGB
        return np.asarray(replace(self.split, planes=planes).pixels(int(self.rows[index])))

    def sample(self, index: int) -> dict[str, np.ndarray]:
        """As an evaluation makes it, with `image` `[h, w, 3] uint8` after the operations."""
        return self.trained.sample(self._arrays, self.split, int(self.rows[index]))

    @cached_property
    def _arrays(self) -> Arrays:
        return self.trained.arrays()


def pictures(
    trained: Trained, *, split: str | None, data: str | None, most: int, say: Callable[[str], None]
) -> Pictures:
    """At most `most` samples of a split of the run, or of all of other data, evenly spread over it: the same ones each
    time. `split` None is the split that was evaluated during the training. DataError where there is none.
    """
    run = trained.run
    if data is not None:
        run = with_source(run, data)
    wanted = split or (None if data is not None else run.evaluate.split)
    try:
        scored = score(
            trained.folder,
            run,
            split=wanted,
            moved=data is not None,
            whole=data is not None,
            extra_classes="leave-out",
            name=trained.name,
            say=say,
        )
    except DataError as error:
        if data is None and "data.source.path" in (error.fix or ""):  # which these commands do not take
            other = "name other images with --data PATH, or " if split is None else ""
            error.fix = f"{other}put the data of the run where it was when it was trained"
        raise
    chosen = scored.dataset.splits[scored.split]
    count = min(most, len(chosen))
    found = Pictures(trained, chosen, np.arange(count) * len(chosen) // count, scored.told)
    return found if run.data.on_bad_image == "error" else _good(found, say)


def _good(found: Pictures, say: Callable[[str], None]) -> Pictures:
    """`found` without its bad images, which are told and not replaced. DataError where all of them are."""
    bad: list[int] = []
    for index in counted(range(len(found)), "looking for bad images", len(found), "images"):
        try:
            found.sample(index)
        except BadImageError:
            bad.append(index)
    if not bad:
        return found
    names = first_names([text_of(found.keys[index]) for index in bad])
    if len(bad) == len(found):
        raise DataError("all images are bad images", where=found.told, found=names, fix="replace these files")
    say(f"{plural(len(bad), 'bad image')} of {found.told} left out: {names}")
    told = f"{found.told} without {plural(len(bad), 'bad image')}"
    return replace(found, rows=np.delete(found.rows, bad), told=told)
