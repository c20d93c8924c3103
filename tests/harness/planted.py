"""A folder of images with copies, leaks and damage planted into it, and what was planted where."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

__all__ = ["Planted", "picture", "plant"]

_DAMAGE = (b"", b"<html>no such page</html>", b"GIF89a", b"%PDF-1.7", b"\0" * 300, b"a text")
Names = frozenset[str]


@dataclass
class Planted:
    """Keys of the images, as a folder source has them: `train/a/000.png`."""

    exact: set[Names] = field(default_factory=set)
    near: dict[Names, str] = field(default_factory=dict)
    """What they are to each other."""
    leaks: set[Names] = field(default_factory=set)
    conflicts: set[Names] = field(default_factory=set)
    bad: set[str] = field(default_factory=set)


def picture(seed: int, size: tuple[int, int] = (48, 40)) -> Image.Image:
    """A smooth picture of its own with some grain, as photographs are."""
    draw = np.random.default_rng(seed)
    smooth = Image.fromarray(draw.integers(0, 256, (6, 6, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    return Image.fromarray(
        (np.asarray(smooth) + draw.normal(0, 6, (size[1], size[0], 3))).clip(0, 255).astype(np.uint8)
    )


def plant(root: Path, each: int = 24) -> Planted:
    """`each` images of the classes a and b in `train` and a third of that in `val`, with what is planted among them:
    12 exact duplicates, 12 near ones, 6 mirrored ones, 5 leaks, 3 conflicts, 9 damaged files."""
    seed, planted, sources = 0, Planted(), list[str]()
    for split, count in (("train", each), ("val", each // 3)):
        for label in "ab":
            (root / split / label).mkdir(parents=True)
            for number in range(count):
                key = f"{split}/{label}/{number:03}.png"
                picture(seed).save(root / key)
                sources += [key] * (split == "train")
                seed += 1

    def copy(to: str) -> Names:
        """The bytes of the next image under another name."""
        key = sources.pop(0)
        folder, _, name = key.rpartition("/")
        target = f"{to.format(folder=folder, label=folder[-1])}/copy-{folder[-1]}-{name}"
        (root / target).write_bytes((root / key).read_bytes())
        return frozenset((key, target))

    planted.exact = {copy("{folder}") for _ in range(12)}
    for number in range(18):
        key = sources.pop(0)
        image, target = Image.open(root / key), key.replace(".png", ("-copy.png", "-copy.jpg")[number % 2])
        if number < 6:
            image.resize((36, 30) if number < 3 else (96, 80)).save(root / target, quality=85)
        elif number < 12:
            target = key.replace(".png", ("-copy.webp", "-copy.jpg")[number % 2])
            image.save(root / target, quality=50)
        else:
            ImageOps.mirror(image).save(root / target, quality=80)
        planted.near[frozenset((key, target))] = ("resized", "re-encoded", "mirrored")[number // 6]
    planted.leaks = {copy("val/{label}") for _ in range(5)}
    for _ in range(3):
        other = "ba"["ab".index(sources[0].split("/")[1])]
        planted.conflicts.add(copy(f"train/{other}"))
    for number in range(9):
        key = sources.pop(0)
        whole = (root / key).read_bytes()
        (root / key).write_bytes(_DAMAGE[number] if number < len(_DAMAGE) else whole[: len(whole) * number // 10])
        planted.bad.add(key)
    return planted
