"""The cleaned manifest: the images that are left, with their labels and splits. No image file is touched."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from raycls.config.sections.data import DataConfig, SourceConfig
from raycls.data.names import in_order
from raycls.data.samples import Files, text_of
from raycls.data.source import Split, open_dataset
from raycls.errors import ConfigError, DataError
from raycls.session.checking.check import Checked
from raycls.session.checking.groups import side_of

__all__ = ["SUFFIXES", "Cleaned", "cleaned", "refuse", "verify"]

SUFFIXES = (".csv", ".jsonl")
_KEPT_FIRST = ("test", "val", "train")
"""Of a picture in two splits the image of the evaluation stays: the numbers of earlier runs stay comparable."""


@dataclass(frozen=True)
class Cleaned:
    """The text of a manifest, and how many images it leaves out for which reason."""

    text: str
    images: int
    left_out: dict[str, int]


def refuse(splits: Mapping[str, Split], file: Path) -> None:
    """ConfigError where no manifest can name the images, or not in a file of this kind; DataError for a file whose name
    is no text."""
    if not all(isinstance(split.reader, Files) for split in splits.values()):
        raise ConfigError(
            "the images are no files that a manifest could list",
            where=f"--write {file}",
            found=next(type(split.reader).__name__ for split in splits.values()),
            valid="data whose images are files, such as a folder or a manifest",
            fix="leave it out",
        )
    if parts := {part: None for split in splits.values() for part in split.parts}:
        raise ConfigError(
            "the samples have parts beside their images, which a manifest of images does not list",
            where=f"--write {file}",
            found=", ".join(parts),
            valid="images with classes",
            fix="leave it out",
        )
    paths = (split.locate(row) for split in splits.values() for row in range(len(split)))
    if (odd := next((path for path in paths if text_of(path) != path), None)) is not None:
        raise DataError(
            "the name of a file is no UTF-8, so no manifest can list it",
            where=f"--write {file}",
            found=text_of(odd),
            fix="rename the file",
        )
    several = any(split.sets is not None for split in splits.values())
    if file.suffix.lower() not in SUFFIXES[several:]:
        raise ConfigError(
            "a manifest cannot be written in this form",
            where=f"--write {file}",
            found=file.suffix or "no suffix",
            valid=".jsonl, as an image has any number of labels" if several else ", ".join(SUFFIXES),
        )


def cleaned(checked: Checked, file: Path) -> Cleaned:
    """Leave out what cannot be decoded, all images of a picture with two labels, of other pictures all but one, and of
    a group in two splits those of all but one.

    A label that a run contradicts stays as it is: a person has to look at it.
    """
    left_out: dict[int, str] = dict.fromkeys(checked.unreadable, "unreadable")
    for same in checked.copies.conflicts:
        left_out |= dict.fromkeys(same.images, "under two labels")
    for same in checked.copies.pictures:
        left = [place for place in same.images if place not in left_out]
        for place in sorted(left, key=lambda place: _preference(checked, place))[1:]:
            left_out[place] = "duplicates"
    for shared in checked.groups or ():
        sides = {place: side_of(checked.dataset, checked.image(place).split) for place in shared.images}
        kept = min((sides[place] for place in sides if place not in left_out), key=_KEPT_FIRST.index, default="")
        for place, side in sides.items():
            if side != kept:
                left_out.setdefault(place, "in two splits by their group")
    rows = list(_rows(checked, file, left_out))
    counts: dict[str, int] = {}
    for reason in left_out.values():
        counts[reason] = counts.get(reason, 0) + 1
    return Cleaned(_text(rows, file), len(rows), counts)


def verify(checked: Checked, file: Path) -> None:
    """Open the manifest as a run would. DataError where it cannot be trained on, such as one without a whole class."""
    config = checked.run.data
    source = SourceConfig(name="manifest", path=str(file))
    open_dataset(DataConfig(source=source, split=config.split, formats=config.formats, max_pixels=config.max_pixels))


def _preference(checked: Checked, place: int) -> tuple[int, int, int]:
    image, (width, height) = checked.image(place), checked.size(place)
    return _KEPT_FIRST.index(image.split), -width * height, place


def _rows(checked: Checked, file: Path, left_out: dict[int, str]) -> Iterator[dict[str, Any]]:
    folder = os.path.abspath(file.parent)
    classes, place = checked.dataset.classes, -1
    ordered = in_order(classes) != list(classes)  # else the manifest has them in this order by itself
    for name, split in checked.dataset.splits.items():
        for row in range(len(split)):
            place += 1
            if place in left_out:
                continue
            path = os.path.abspath(split.locate(row))
            inside = os.path.commonpath([folder, path]) == folder
            found: dict[str, Any] = {"path": os.path.relpath(path, folder) if inside else path}
            if split.sets is None:
                found["label"] = split.label(row)
                found |= {"class_id": int(split.labels[row])} if ordered else {}
            else:
                found["label"] = [classes[each] for each in np.flatnonzero(split.sets[split.labels[row]]).tolist()]
            yield found | {"split": name}


def _text(rows: list[dict[str, Any]], file: Path) -> str:
    if file.suffix.lower() == ".jsonl":
        return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]) if rows else ["path", "label", "split"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()
