"""The command line as a function, and a trainer that only notes what it is asked."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from harness.command_line import Result, Trainer

import raycls.launch
from raycls.cli import app


@pytest.fixture
def raycls_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., Result]:
    """Runs `raycls WORDS...` in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["raycls", *words])
        with pytest.raises(SystemExit) as leaving:
            app.main()
        captured = capsys.readouterr()
        assert isinstance(leaving.value.code, int)
        return Result(leaving.value.code, captured.out, captured.err)

    return call


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Trainer:
    fake = Trainer()
    monkeypatch.setitem(sys.modules, "raycls.launch.trainer", fake)
    monkeypatch.setattr(raycls.launch, "trainer", fake, raising=False)
    return fake
