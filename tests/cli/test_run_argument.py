"""The names and the overrides among the words of a command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from raycls.cli.run_argument import parted


def test_names_and_overrides_keep_their_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.b=file").touch()
    words = ["x.y=2", "one", "a.b=file", "scale.workers=0", "two", "one", "x.y=2"]
    assert parted(words) == (["one", "a.b=file", "two", "one"], ("x.y=2", "scale.workers=0", "x.y=2"))
    assert parted([]) == ([], ())
