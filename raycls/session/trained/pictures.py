"""Small pictures of samples of a run, for a page: JPEG or PNG in a `data:` URI."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from PIL import Image

from raycls.config.sections.data import DataConfig
from raycls.data.images.decoding.decode import decoded
from raycls.data.images.planes import for_people, planes_of
from raycls.data.samples import text_of
from raycls.data.source import open_pool
from raycls.errors import DataError, RayclsError
from raycls.progress import counted

__all__ = ["Picture", "picture_of", "pictures"]

_SIDE = 224
"""The longest side of a picture in pixels: 1.5 times that of its place on the page, for sharp screens."""
_SMALL = 64
"""Images up to this side stay as they are, without loss."""
_QUALITY = 80
_MOST_BYTES = 24 << 20
"""Larger files are not read for a picture of this size."""


@dataclass(frozen=True)
class Picture:
    uri: str
    width: int
    height: int
    small: bool
    """Whether it has every pixel of the image, to be shown enlarged."""


def pictures(data: DataConfig, wanted: Iterable[tuple[str, str]]) -> tuple[dict[str, Picture], str]:
    """({key: picture}, why some are missing; empty where none is) of the samples `(key, path)`.

    A path that is a file is read; of the others the source of the data is asked.
    """
    found: dict[str, Picture] = {}
    unread: list[str] = []
    elsewhere: list[str] = []
    samples = dict(wanted)
    for key, path in counted(samples.items(), "making thumbnails", len(samples), "images"):
        if not os.path.isfile(path):
            elsewhere.append(key)
            continue
        try:
            found[key] = picture_of(_read(path, data))
        except (DataError, OSError):
            unread.append(key)
    why = f"{len(unread)} of the images can no longer be read, such as {samples[unread[0]]}." if unread else ""
    if elsewhere:
        more, reason = _from_source(data, elsewhere)
        found.update(more)
        why = " ".join(filter(None, (why, reason)))
    return found, why


def _from_source(data: DataConfig, keys: list[str]) -> tuple[dict[str, Picture], str]:
    try:
        pool = open_pool(data, least_classes=1)
    except RayclsError as error:
        return {}, f"No pictures: the images are not where they were ({error.what}: {error.where or data.source.path})."
    wanted = set(keys)
    rows = [row for row, key in enumerate(map(text_of, pool.keys)) if key in wanted]
    split = pool.split("pictures", np.array(rows, np.int64), data)
    found: dict[str, Picture] = {}
    for index in range(len(rows)):
        with suppress(DataError, OSError):
            found[text_of(split.key(index))] = picture_of(split.image(index))
    missing, place = len(keys) - len(found), data.source.path or data.source.name
    return found, f"No picture of {missing} of the images: they are no longer in {place}." if missing else ""


def _read(path: str, data: DataConfig) -> Image.Image:
    if os.path.getsize(path) > _MOST_BYTES:
        raise DataError("the file is too large for a thumbnail", where=path)
    with open(path, "rb") as file:
        planes, formats = planes_of(data), tuple(data.formats)
        found = decoded(file.read(), path, formats=formats, max_pixels=data.max_pixels, planes=planes)
    return Image.fromarray(for_people(found))


def picture_of(image: Image.Image) -> Picture:
    """`image` for a page: small enough, which changes `image` itself."""
    small = max(image.size) <= _SMALL
    if not small:
        image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if small:
        image.save(buffer, "PNG", optimize=True)
    else:
        image.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    kind = "png" if small else "jpeg"
    return Picture(f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}", *image.size, small)
