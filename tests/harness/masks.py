"""Images and volumes with masks: two kinds of discs or balls on noise, which a small network learns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from harness.phantom import Geometry, phantom, write_nifti

_USUAL = Geometry()
CLASSES = ("background", "disc", "spot")


def scene(seed: int, shape: tuple[int, ...] = (20, 24)) -> tuple[np.ndarray, np.ndarray]:
    """`[*shape, 3] uint8` and its mask `[*shape] uint8`: 0, a disc of 1, and of every second seed a spot of 2."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.arange(size) for size in shape), indexing="ij"), -1)
    mask = np.zeros(shape, np.uint8)
    for label in (1, 2)[: 1 + seed % 2]:
        centre = rng.uniform(0.3, 0.7, len(shape)) * shape
        mask[((grid - centre) ** 2).sum(-1) < (min(shape) / (3 + label)) ** 2] = label
    levels = np.stack([60 + 60 * mask, 200 - 50 * mask, np.full(shape, 80)], -1) + rng.normal(0, 8, (*shape, 3))
    return levels.clip(0, 255).astype(np.uint8), mask


def write_images(root: Path, counts: dict[str, int]) -> Path:
    """`counts` images of each split, in `SPLIT/images` and `SPLIT/masks`; the first mask has a border of 255."""
    for place, (split, count) in enumerate(counts.items()):
        for folder in ("images", "masks"):
            (root / split / folder).mkdir(parents=True)
        for number in range(count):
            image, mask = scene(100 * place + number)
            if not number:
                mask[:2] = 255
            Image.fromarray(image).save(root / split / "images" / f"{number}.png")
            Image.fromarray(mask).save(root / split / "masks" / f"{number}.png")
    return root


def lesion(volume: np.ndarray) -> np.ndarray:
    """The mask of the calcified lesion of a phantom (400 HU), `uint8` of its shape."""
    return ((volume > 250) & (volume < 550)).astype(np.uint8)


def write_volumes(root: Path, counts: dict[str, int], geometry: Geometry = _USUAL) -> Path:
    """`counts` phantoms of each split with their lesions as masks, all NIfTI."""
    for place, (split, count) in enumerate(counts.items()):
        for number in range(count):
            volume = phantom(100 * place + number, 0, geometry)
            write_nifti(root / split / "images" / f"{number}.nii.gz", volume, geometry)
            write_nifti(root / split / "masks" / f"{number}.nii.gz", lesion(volume), geometry)
    return root
