"""A user's own module, under a working directory of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def user_module(folder: Path, name: str, text: str) -> Iterator[str]:
    """Write `text` as the module `name` of the working directory `folder`; it is forgotten at the end. Gives `name`."""
    (folder / f"{name}.py").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYCLS_WORKDIR", str(folder))
        patch.setattr(sys, "path", list(sys.path))
        sys.modules.pop(name, None)
        try:
            yield name
        finally:
            sys.modules.pop(name, None)
