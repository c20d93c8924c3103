"""Source `digits`: scikit-learn's 1,797 handwritten digits (UCI Optical Recognition, test part) as PNG files."""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from raycls.data.samples import Samples
from raycls.data.sources.folder import folder
from raycls.errors import DataError

__all__ = ["DEFAULT_PATH", "digits"]

DEFAULT_PATH = "runs/digits-images"


def digits(path: str | Path | None = None) -> Samples:
    """The digits as grey 8 x 8 PNG files in `path/0` to `path/9`; written there first if there is nothing yet.

    `path` defaults to `runs/digits-images`. DataError where nothing can be written.
    """
    target = os.path.abspath(path or DEFAULT_PATH)
    try:
        if not os.path.isdir(target) or not os.listdir(target):
            _write(target)
    except OSError as error:
        raise DataError(
            "cannot write the digits",
            where=target,
            found=error.strerror or str(error),
            fix="set data.source.path to a folder that can be written",
        ) from error
    try:
        return folder(target)
    except DataError as error:  # its remedy is an argument that this source does not have
        error.fix = f"remove the folder, and it is written anew: rm -r {shlex.quote(target)}"
        raise


def _write(target: str) -> None:
    """Write beside `target` and rename, so that no other process ever sees a part of the files."""
    content = _load()
    pixels = (content.images.astype(np.int64) * 255 + 8) // 16  # 0..16 -> 0..255, halves up
    parent = os.path.dirname(target)
    os.makedirs(parent, exist_ok=True)
    staging = tempfile.mkdtemp(prefix=f".{os.path.basename(target)}.", dir=parent)
    try:
        whole = os.path.join(staging, "images")  # mkdtemp's own folder is closed to other users
        for label in range(10):
            os.makedirs(os.path.join(whole, str(label)))
        for index, (image, label) in enumerate(zip(pixels.astype(np.uint8), content.target.tolist(), strict=True)):
            Image.fromarray(image).save(os.path.join(whole, str(label), f"{index:04d}.png"))
        try:
            os.rename(whole, target)
        except OSError:
            if not (os.path.isdir(target) and os.listdir(target)):
                raise  # else another process was faster, with the same files
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _load() -> Any:
    from sklearn.datasets import load_digits  # slow to import

    return load_digits()
