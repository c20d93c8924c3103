"""The digits are scikit-learn's, written once, and never half."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from raycls.data.sources import digits as module
from raycls.data.sources.digits import digits
from raycls.errors import DataError


def test_the_files_are_the_digits(tmp_path: Path) -> None:
    samples = digits(tmp_path / "runs" / "digits")
    assert list(samples.classes) == [str(digit) for digit in range(10)]
    assert len(samples.keys) == 1797
    truth = load_digits()
    for row in (0, 1, 900, 1796):
        key = samples.keys[row]
        index = int(key[2:6])
        assert key == f"{truth.target[index]}/{index:04d}.png"
        pixels = np.asarray(Image.open(tmp_path / "runs" / "digits" / key))
        assert pixels.shape == (8, 8)
        assert pixels.dtype == np.uint8
        assert np.abs(pixels - truth.images[index] * 255 / 16).max() <= 0.5
    assert os.listdir(tmp_path / "runs") == ["digits"]
    assert os.stat(tmp_path / "runs" / "digits").st_mode & 0o055 == 0o055 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_files_that_are_there_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("0", "1"):
        (tmp_path / name).mkdir()
        Image.new("L", (8, 8)).save(tmp_path / name / "x.png")
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert list(digits(tmp_path).keys) == ["0/x.png", "1/x.png"]


def test_a_faster_process_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both write beside the target; the second finds it there when it wants to rename."""
    target = tmp_path / "digits"
    load = module._load

    def load_while_another_finishes() -> object:
        monkeypatch.setattr(module, "_load", load)
        digits(target)
        return load()

    monkeypatch.setattr(module, "_load", load_while_another_finishes)
    assert len(digits(target).keys) == 1797
    assert os.listdir(tmp_path) == ["digits"]


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="File exists"):
        digits(tmp_path / "file" / "digits")
