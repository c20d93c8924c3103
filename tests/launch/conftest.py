"""What the tests of sessions share: images in batches that come out uneven."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """99 images to train on and 21 to evaluate. In batches of 32 the last one has 3, fewer than four micro-batches."""
    from harness.jobs import write_arrays  # here, because most tests of this folder need no torch

    return write_arrays(tmp_path_factory.mktemp("data") / "data.npz", train=99, val=21)
