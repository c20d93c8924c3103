"""Answers that are masks: a file for each image or volume, on its own grid, and how much of it each class has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raycls.config.paths import expand
from raycls.data.masks.written import nifti_of, png_of
from raycls.data.samples import Keys, text_of
from raycls.data.source import Split
from raycls.data.sources.folder import SUFFIXES as IMAGES
from raycls.data.volumes.nifti import SUFFIXES as VOLUMES
from raycls.errors import ConfigError, DataError
from raycls.run.storage.store import Store
from raycls.tasks.segmentation.placed import placed

__all__ = ["MaskFolder", "Masks", "mask_of", "mask_row", "names_of", "table_in"]

TABLE = "masks.csv"
"""The table where `--out` says nothing."""


@dataclass(frozen=True)
class Masks:
    """The masks of one part; an image without an answer has an empty file."""

    files: tuple[bytes, ...]
    """Each as it is written."""
    counts: np.ndarray
    """Pixels or voxels of each class, and last of those that the network did not see, `[n, C + 1] int64`."""
    ml: np.ndarray
    """Millilitres of one voxel, `[n] float64`; NaN of an image."""

    @classmethod
    def of_each(cls, rows: int, classes: int, there: Mapping[int, Masks]) -> Masks:
        """Those of a part, each of which is `there` by itself under its position."""
        counts, ml = np.zeros((rows, classes + 1), np.int64), np.full(rows, np.nan)
        for place, one in there.items():
            counts[place], ml[place] = one.counts[0], one.ml[0]
        return cls(tuple(there[row].files[0] if row in there else b"" for row in range(rows)), counts, ml)

    def arrays(self) -> dict[str, np.ndarray]:
        """Of plain types, for `np.savez`; `of` gives it back."""
        ends = np.cumsum([len(each) for each in self.files], dtype=np.int64)
        whole = np.frombuffer(b"".join(self.files), np.uint8)
        return {"mask_files": whole, "mask_ends": ends, "mask_counts": self.counts, "mask_ml": self.ml}

    @classmethod
    def of(cls, found: Mapping[str, np.ndarray]) -> Masks | None:
        if "mask_files" not in found:
            return None
        whole, ends = found["mask_files"].tobytes(), found["mask_ends"].tolist()
        files = tuple(whole[start:end] for start, end in zip([0, *ends], ends, strict=False))
        return cls(files, found["mask_counts"], found["mask_ml"])


def mask_of(task: Any, split: Split, row: int, sample: Mapping[str, np.ndarray], maps: np.ndarray) -> Masks:
    """The mask of the sample at `row`, of what the network says of it, `maps` `[C, ...]`. DataError where its file has
    no place in space."""
    if not np.isfinite(maps).all():
        raise DataError("the logits of the network are not finite")
    reader: Any = split.reader
    spacing = reader.spacing(row) if task.volumes else None
    labels, inside = placed(maps, sample["size"].tolist(), spacing, task.setting)
    counts = np.bincount(labels[inside], minlength=len(maps))
    numbers = task.numbers(labels, inside, "nifti" if task.volumes else "png")
    file = nifti_of(numbers, reader, row) if task.volumes else png_of(numbers)
    # not the product of the spacings: slices that are shifted are no cuboids
    ml = abs(float(np.linalg.det(reader.directions[row]))) / 1000 if task.volumes else np.nan
    return Masks((file,), np.append(counts, (~inside).sum())[None].astype(np.int64), np.array([ml]))


def mask_row(masks: Masks, row: int, name: str, *, volumes: bool) -> dict[str, Any]:
    """What the table says of one file: `pixels` of each class, or `voxels` and `ml`; and how many are `outside` of what
    the network saw. None where it has no answer."""
    *counts, outside = masks.counts[row].tolist()
    there, ml = bool(masks.files[row]), float(masks.ml[row])
    found = {"voxels": counts, "ml": [count * ml for count in counts]} if volumes else {"pixels": counts}
    whole = {"mask": text_of(name), **found, "outside": outside}
    return whole if there else dict.fromkeys(whole)


def names_of(keys: Sequence[str], *, volumes: bool) -> Keys:
    """What the mask of each of the inputs is called below its folder: as the input, below the folder that all of them
    are in, and with the suffix of masks. DataError where two would be called alike."""
    parts = [[part for part in key.split("://")[-1].split("/") if part not in ("", ".", "..")] for key in keys]
    first, last = min(parts), max(parts)  # what these two share, all of them do
    common = 0
    while common < min(len(first), len(last)) - 1 and first[common] == last[common]:
        common += 1
    names: list[str] = []
    suffixes = VOLUMES if volumes else tuple(IMAGES)
    for each in parts:
        name = "/".join(each[common:]) or "mask"
        end = next((suffix for suffix in sorted(suffixes, key=len, reverse=True) if name.lower().endswith(suffix)), "")
        names.append(name[: len(name) - len(end)] + (".nii.gz" if volumes else ".png"))
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        alike = [key for key, name in zip(keys, names, strict=True) if name == twice]
        raise DataError(
            "the masks of two inputs would have one name",
            where=twice,
            found=", ".join(map(text_of, alike[:3])),
            fix="predict them by two commands, into two folders",
        )
    return Keys(names)


class MaskFolder:
    """The folder that `--masks` names, on a disk or in an object store."""

    def __init__(self, given: str) -> None:
        remote = "://" in given and not given.startswith("file://")
        self._store = Store(given if remote else expand(given.removeprefix("file://"), where="--masks"))
        if remote:
            self._store.check()

    @property
    def shown(self) -> str:
        return self._store.describe()

    def refuse_there(self, names: Sequence[str]) -> None:
        """ConfigError where one of the files is there already."""
        for name in names:
            if self._store.exists(name):
                raise ConfigError(
                    f"{self._store.describe(name)} is there already",
                    fix="choose another folder with --masks DIR, or replace what is there: --force",
                )

    def write(self, names: Sequence[str], masks: Masks) -> None:
        for name, file in zip(names, masks.files, strict=True):
            if file:
                self._store.write_bytes(name, file)


def table_in(masks: str) -> str:
    """The table of the folder `masks`, where no other one is named."""
    address, mark, options = masks.partition("?") if "://" in masks else (masks, "", "")
    return f"{address.rstrip('/')}/{TABLE}{mark}{options}"
