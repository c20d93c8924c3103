"""A sheet of pictures: what an image is after each of several steps, a row per image and a column per step."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

__all__ = ["Row", "Sheet", "draw"]

_SIDE = 144
"""The longest side of a picture in pixels; a smaller image is enlarged by a whole factor, every pixel a square."""
_GAP, _LINE, _TEXT = 10, 15, 12
_CHARACTERS = 22
"""Of one line below or above a picture of this width."""
_MOST_LINES = 5


@dataclass(frozen=True)
class Row:
    """One image on its way. `caption` stands before it, `pictures` are `[H, W, 3] uint8` with a line about each."""

    caption: str
    pictures: Sequence[tuple[np.ndarray, str]]


@dataclass(frozen=True)
class Sheet:
    image: Image.Image
    boxes: tuple[tuple[tuple[int, int, int, int], ...], ...]
    """Where each picture is: left, top, right, bottom, by row and column."""


def draw(title: str, headings: Sequence[str], rows: Sequence[Row]) -> Sheet:
    """A sheet with a heading above each column."""
    heads = [_wrapped(heading) for heading in headings]
    top = 2 * _GAP + _LINE + _LINE * max(map(len, heads))
    wide, tall = _SIDE + _GAP, _SIDE + _LINE + _GAP
    left = wide
    image = Image.new("RGB", (left + wide * len(headings) + _GAP, top + tall * len(rows) + _GAP), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(_TEXT)
    pen.text((_GAP, _GAP), title, "black", font)
    for column, lines in enumerate(heads):
        for number, line in enumerate(lines):
            pen.text((left + column * wide, top - _LINE * (len(lines) - number) - 3), line, "black", font)
    boxes: list[tuple[tuple[int, int, int, int], ...]] = []
    for index, row in enumerate(rows):
        high = top + index * tall
        for number, line in enumerate(_wrapped(row.caption)):
            pen.text((_GAP, high + number * _LINE), line, "black", font)
        boxes.append(
            tuple(
                _placed(image, pen, font, picture, text, (left + column * wide, high))
                for column, (picture, text) in enumerate(row.pictures)
            )
        )
    return Sheet(image, tuple(boxes))


def _placed(
    image: Image.Image,
    pen: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    pixels: np.ndarray,
    text: str,
    at: tuple[int, int],
) -> tuple[int, int, int, int]:
    picture = Image.fromarray(pixels)
    longest = max(picture.size)
    if longest > _SIDE:
        picture.thumbnail((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    elif (factor := _SIDE // longest) > 1:
        picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    image.paste(picture, at)
    pen.text((at[0], at[1] + picture.height + 1), text, "dimgray", font)
    return (*at, at[0] + picture.width, at[1] + picture.height)


def _wrapped(text: str) -> list[str]:
    lines = textwrap.wrap(text, _CHARACTERS, break_on_hyphens=False)
    return lines if len(lines) <= _MOST_LINES else [*lines[: _MOST_LINES - 1], "..."]
