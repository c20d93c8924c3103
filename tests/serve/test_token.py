"""Which token requests have to carry, and when there may be none."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from raycls.errors import ConfigError
from raycls.serve.token import VARIABLE, choose

_GOOD = "0123456789abcdef"


@pytest.fixture(autouse=True)
def _no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


def _file(folder: Path, text: str, mode: int = 0o600) -> str:
    file = folder / "to ken"
    file.write_text(text)
    file.chmod(mode)
    return str(file)


def test_one_is_made_and_it_is_not_shown_by_accident() -> None:
    first, second = (choose(host="127.0.0.1", file=None, off=False) for _ in range(2))
    assert first.token and second.token and first.token != second.token
    assert len(first.token) >= 32 and first.origin == ""
    assert first.token not in repr(first)


def test_the_file_comes_before_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, f" {_GOOD}v\n")
    assert choose(host="0.0.0.0", file=None, off=False).token == f"{_GOOD}v"
    access = choose(host="0.0.0.0", file=_file(tmp_path, f"{_GOOD}f\n"), off=False)
    assert (access.token, access.origin) == (f"{_GOOD}f", str(tmp_path / "to ken"))


@pytest.mark.parametrize("token", ["", "short", "0123456789 abcdef", "0123456789äbcdef", "0123456789\tabcdef"])
def test_one_that_is_weak_or_does_not_travel_is_refused(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, token)
    with pytest.raises(ConfigError) as refused:
        choose(host="127.0.0.1", file=None, off=False)
    assert refused.value.where == VARIABLE
    assert not token or token not in str(refused.value)


def test_a_file_that_others_can_read_or_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as open_to_all:
        choose(host="127.0.0.1", file=_file(tmp_path, _GOOD, 0o644), off=False)
    assert (open_to_all.value.found, open_to_all.value.valid) == ("mode 0644", "mode 0600")
    subprocess.run(["bash", "-c", str(open_to_all.value.fix)], check=True)
    assert choose(host="127.0.0.1", file=str(tmp_path / "to ken"), off=False).token == _GOOD
    with pytest.raises(ConfigError) as missing:
        choose(host="127.0.0.1", file=str(tmp_path / "none"), off=False)
    assert missing.value.where == str(tmp_path / "none")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org"])
def test_without_a_token_only_this_machine_is_served(host: str) -> None:
    with pytest.raises(ConfigError) as refused:
        choose(host=host, file=None, off=True)
    assert (refused.value.found, refused.value.fix) == (f"--host {host}", "leave out --no-token")
    assert choose(host=host, file=None, off=False).token


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.0.0.2"])
def test_without_a_token_on_loopback(host: str) -> None:
    assert choose(host=host, file=None, off=True).token is None
