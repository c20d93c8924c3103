"""Where a token is found, against Ray's own search, and that its file is closed to others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from raycls.cluster.token import find_token
from raycls.errors import ConfigError

_RAYS = """
from ray._raylet import AuthenticationTokenLoader
print(AuthenticationTokenLoader.instance().get_token_for_http_header()["authorization"])
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ray").mkdir()
    return tmp_path


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_the_places_and_their_order_are_rays(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    assert find_token(said.append) is None
    write(home / ".ray" / "auth_token", "from-home\n")
    places = [("from-home", str(home / ".ray" / "auth_token"))]
    places += [("from-file", str(write(home / "mine", " from-file\n"))), ("from-variable", "RAY_AUTH_TOKEN")]
    for (value, origin), variable in zip(places, ("", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_TOKEN"), strict=True):
        if variable:
            monkeypatch.setenv(variable, origin if variable.endswith("PATH") else value)
        found = find_token(said.append)
        assert found is not None
        assert (found.value, found.origin) == (value, origin)
        assert value not in repr(found)
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        rays = subprocess.run([sys.executable, "-c", _RAYS], capture_output=True, text=True, check=True)
        assert rays.stdout.strip() == f"Bearer {value}"
    assert not said


def test_a_file_that_others_can_read_is_closed_and_that_is_told(home: Path) -> None:
    file = write(home / ".ray" / "auth_token", "canary-token", 0o644)
    said: list[str] = []
    assert find_token(said.append) is not None
    assert file.stat().st_mode & 0o777 == 0o600
    (line,) = said
    assert str(file) in line
    assert "0644" in line
    assert "canary" not in line


def test_a_named_file_that_is_not_there_is_a_problem(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(home / ".ray" / "auth_token", "another")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(home / "gone"))
    with pytest.raises(ConfigError) as caught:
        find_token(lambda text: None)
    assert "RAY_AUTH_TOKEN_PATH" in str(caught.value)
