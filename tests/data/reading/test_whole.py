"""A file is read to its end, whatever its size is said to be."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from raycls.data.reading.whole import bytes_of


@pytest.mark.parametrize("said", [0, 3, 10**6, 3 * 2**20 + 7])
def test_a_file_is_read_to_its_end_whatever_its_size_is_said_to_be(
    said: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = bytes(range(256)) * (3 * 2**12) + b"the end"
    (tmp_path / "empty").touch()
    (tmp_path / "large").write_bytes(large)
    (tmp_path / "folder").mkdir()
    with monkeypatch.context() as patched:
        patched.setattr(os, "fstat", lambda file: SimpleNamespace(st_size=said))
        found = bytes_of(str(tmp_path / "empty")), bytes_of(str(tmp_path / "large"))
    assert found == (b"", large)
    with pytest.raises(IsADirectoryError):
        bytes_of(str(tmp_path / "folder"))
