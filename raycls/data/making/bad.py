"""Files that are no image: told apart from those that could not be read, and left out where the run says so.

`data.on_bad_image: skip` leaves a sample out of its batch when the bytes of its file are no image that raycls decodes.
That follows from these bytes and the config alone, so every process, every start and every number of workers leaves
out the same samples. What could not be read (storage that is away, a missing file, a lack of memory) says nothing about
the bytes, and is an error always.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from raycls.data.rows import reader_of
from raycls.data.samples import text_of
from raycls.errors import DataError

if TYPE_CHECKING:  # the processes that only route slices need not import torch
    from raycls.data.source import Split

__all__ = ["Bad", "BadImageError", "good_rows", "or_skip"]


class BadImageError(DataError):
    """The bytes of a file were read, and are not an image that raycls decodes: damaged, of another kind, too large.

    `size` is how many bytes they are.
    """

    def __init__(self, what: str, *, size: int = 0, **lines: str | None) -> None:
        super().__init__(what, **lines)
        self.size = size

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuilt, (self.to_dict(), self.size))

    @property
    def reason(self) -> str:
        """What is wrong, in one line, without where."""
        return f"{self.what}: {self.found}" if self.found else self.what


@dataclass(frozen=True)
class Bad:
    """A sample that is left out."""

    place: int
    """Its position among the samples of its slice, those that are left out too."""
    id: int
    path: str
    """The key of the sample: the path of its file below the data folder."""
    reason: str
    bytes: int

    @classmethod
    def of(cls, error: BadImageError, place: int, id: int, split: Split, row: int) -> Bad:
        """The sample `id`, at `row` of `split`, of which `error` says why it is no image."""
        return cls(place, id, text_of(split.key(row)), error.reason, error.size)


def or_skip(error: DataError) -> DataError:
    """`error`, whose remedy names the option that leaves out all bad images too."""
    error.fix = error.fix or "replace the file"
    error.fix = f"{error.fix}; or leave out all bad images: add data.on_bad_image=skip to the command"
    return error


def good_rows(split: Split, bad: Sequence[int]) -> Split:
    """`split` without the samples at the rows `bad`."""
    rows = np.delete(np.arange(len(split)), bad)
    count = len(split)
    return replace(
        split,
        labels=split.labels[rows],
        keys=split.keys.take(rows),
        reader=reader_of(split.reader, rows, count),
        ids=rows if split.ids is None else split.ids[rows],
        parts={name: reader_of(reader, rows, count) for name, reader in split.parts.items()},
        about={name: values.take(rows) for name, values in split.about.items()},
    )


def _rebuilt(lines: dict[str, Any], size: int) -> BadImageError:
    return BadImageError(**lines, size=size)
