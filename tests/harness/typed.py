"""`raycls WORDS...` in this process, for tests that look at what it writes."""

from __future__ import annotations

import sys

import pytest

from raycls.cli import app

__all__ = ["raycls"]


def raycls(*words: str) -> int:
    """The exit code of the command."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["raycls", *words])
        with pytest.raises(SystemExit) as leaving:
            app.main()
    assert isinstance(leaving.value.code, int)
    return leaving.value.code
