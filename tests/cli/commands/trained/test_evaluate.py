"""`raycls eval` where its files cannot be written: the numbers are not lost."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest
from harness.command_line import Result

from raycls.run.storage import local


@pytest.mark.parametrize("refused", [".parquet", ".json"])
def test_numbers_are_told_though_no_file_can_be_written(
    refused: str,
    raycls_command: Callable[..., Result],
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The disk says what it says of a folder that is read-only: its mode would not keep root from writing."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    run = tmp_path / "runs" / "shapes"
    expected = json.loads(raycls_command("eval", "shapes", "--json", "--predictions", "off").out)
    created = local._created

    def refusing(path: Path) -> IO[bytes]:
        if path.parent.name == "predictions" and refused in path.name:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return created(path)

    monkeypatch.setattr(local, "_created", refusing)
    result = raycls_command("eval", "shapes", "--json")
    found = json.loads(result.out)
    found.pop("predictions", None)
    assert (result.code, found) == (1, expected)
    assert result.err.count("where:") == 1
    assert f"{run}/predictions/test-best{refused}" in result.err
    assert "found: Permission denied" in result.err
    assert "fix:   --predictions off evaluates without writing them" in result.err
    assert not list((run / "predictions").glob("*.json"))  # which would say that the rows are beside it
    assert raycls_command("eval", "shapes", "--predictions", "off").code == 0
    report = raycls_command("report", "shapes")
    assert (report.code, report.out) == (1, f"wrote {run / 'report.html'}\n")
    assert "the page has no evaluation" in report.err
    assert "--predictions" not in report.err  # which a report does not have
    monkeypatch.setattr(local, "_created", created)
    assert raycls_command("report", "shapes").code == 0
