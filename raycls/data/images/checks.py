"""Arguments of operations, checked when they are built: a ValueError says what is allowed."""

from __future__ import annotations

from typing import Any

from torchvision.transforms import InterpolationMode

__all__ = ["colour", "interpolated", "number", "pair", "rising", "sides", "whole"]


def sides(size: Any) -> int | list[int]:
    """One number of pixels, or height and width."""
    found: list[Any] = list(size) if isinstance(size, list | tuple) else [size]
    if len(found) not in (1, 2) or not all(type(side) is int and side > 0 for side in found):
        raise ValueError("size must be a number of pixels, or [height, width]")
    return found if isinstance(size, list | tuple) else size


def pair(size: Any) -> tuple[int, int]:
    """Height and width; one number is both."""
    found = sides(size)
    return (found, found) if isinstance(found, int) else (found[0], found[-1])


def rising(name: str, value: Any, most: float) -> tuple[float, float]:
    """Two numbers above 0."""
    numbers = tuple(value) if isinstance(value, list | tuple) else ()
    if len(numbers) != 2 or not all(type(item) in (int, float) for item in numbers):
        raise ValueError(f"{name} must be two numbers, min and max")
    if not 0 < numbers[0] <= numbers[1] <= most:
        raise ValueError(f"{name} must rise from above 0 to at most {most:g}")
    return float(numbers[0]), float(numbers[1])


def colour(fill: Any) -> Any:
    """One level, or one for each channel."""
    levels = (fill,) if isinstance(fill, int) else fill
    if not isinstance(levels, list | tuple) or len(levels) not in (1, 3):
        raise ValueError("fill must be one level, or three for red, green and blue")
    if not all(type(level) is int and 0 <= level <= 255 for level in levels):
        raise ValueError("fill must be from 0 to 255")
    return fill


def whole(name: str, value: Any, least: int, most: int) -> int:
    """An integer."""
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{name} must be an integer from {least} to {most}")
    return value


def number(name: str, value: Any, least: float, most: float) -> float:
    """A number."""
    if type(value) not in (int, float) or not least <= value <= most:
        raise ValueError(f"{name} must be a number from {least:g} to {most:g}")
    return float(value)


def interpolated(interpolation: Any, known: tuple[str, ...] = ("bilinear", "bicubic")) -> InterpolationMode:
    """How pixels between pixels are found."""
    if interpolation not in known:
        raise ValueError(f"interpolation is {', '.join(known[:-1])} or {known[-1]}")
    return InterpolationMode(interpolation)
