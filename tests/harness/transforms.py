"""A user's transform, as a plug-in that a config names: it draws from every usual generator."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image


def noise(strength: int = 8) -> Callable[[Image.Image], np.ndarray]:
    """Adds noise from torch, from numpy's global generator and from Python's, up to `strength` grey levels each."""

    def add(image: Image.Image) -> np.ndarray:
        pixels = np.asarray(image).astype(np.int64)
        pixels = pixels + torch.randint(0, strength, pixels.shape).numpy()
        pixels = pixels + np.random.randint(0, strength, pixels.shape)
        pixels = pixels + random.randrange(strength)
        return pixels.clip(0, 255).astype(np.uint8)

    return add
