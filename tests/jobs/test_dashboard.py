"""Whom raycls talks to, and what it hands over: tokens to those who ask for one, nothing to strangers."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from harness.dashboards import FakeDashboard, outward

from raycls.cluster import environment
from raycls.errors import ConfigError, LaunchError
from raycls.jobs import dashboard
from raycls.jobs.dashboard import address_of, connect


@pytest.fixture(autouse=True)
def no_cluster_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE", "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_the_address_given_comes_before_rays_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="no cluster is named"):
        address_of(None)
    monkeypatch.setenv("RAY_ADDRESS", "http://one:8265")
    assert address_of(None) == "http://one:8265"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "https://two/")
    assert address_of(None) == "https://two"
    assert address_of("http://three:1/ray/") == "http://three:1/ray"


@pytest.mark.parametrize(
    ("given", "near"),
    [
        ("10.0.0.1:6379", "http://10.0.0.1:8265"),
        ("ray://10.0.0.1:10001", "http://10.0.0.1:8265"),
        ("head:8000", "http://head:8000"),
        ("head", "http://head:8265"),
        ("auto", "http://auto:8265"),
    ],
)
def test_another_kind_of_address_is_refused_with_the_likely_one(given: str, near: str) -> None:
    with pytest.raises(ConfigError) as caught:
        address_of(given)
    assert caught.value.fix == f"did you mean {near}?"


def test_credentials_in_an_address_are_refused_and_not_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        address_of("http://me:canary@head:8265")
    assert "canary" not in str(caught.value)


def test_right_no_and_wrong_token(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeDashboard(token="canary-right") as server:
        with pytest.raises(ConfigError, match="requires a token, and none was found"):
            connect(server.address, insecure=False, say=print)
        monkeypatch.setenv("RAY_AUTH_TOKEN", "canary-wrong")
        with pytest.raises(ConfigError, match="refuses the token") as caught:
            connect(server.address, insecure=True, say=print)
        assert caught.value.found == "the token of RAY_AUTH_TOKEN"
        assert "canary" not in str(caught.value)
        monkeypatch.setenv("RAY_AUTH_TOKEN", "canary-right")
        # Ray would go elsewhere with this, whatever address it is told.
        monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")
        made = connect(server.address, insecure=False, say=print)
        assert made.info("job").status.value == "RUNNING"
        assert "canary" not in str(made.client.get_address())
        assert server.seen[-1] == ("/api/jobs/job", "Bearer canary-right")
        with pytest.raises(ConfigError, match="knows no job other"):
            made.info("other")
        with pytest.raises(ConfigError, match="knows no job"):
            made.info("../version")


def test_an_open_cluster_elsewhere_is_refused_unless_one_insists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "canary-mine")
    with FakeDashboard(host=outward()) as server:
        with pytest.raises(ConfigError, match="answers without a token") as caught:
            connect(server.address, insecure=False, say=print)
        assert "--insecure-cluster" in str(caught.value.fix)
        assert connect(server.address, insecure=True, say=print).info("job").submission_id == "job"
        assert {given for _, given in server.seen} == {""}  # a server that asks for no token gets none
    with FakeDashboard() as server:
        connect(server.address, insecure=False, say=print)
        assert {given for _, given in server.seen} == {""}


def test_an_open_cluster_gets_no_token_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Ray's client would add the token by itself in this mode, and requests the password of a netrc."""

    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "canary-mine")
    (tmp_path / "netrc").write_text("default login me password canary-netrc\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    environment.forget_token()
    try:
        with FakeDashboard(host=outward()) as server:
            made = connect(server.address, insecure=True, say=print)
            assert made.info("job").submission_id == "job"
            assert made.client.list_jobs() == []
            assert len(server.seen) > 3
            assert {given for _, given in server.seen} == {""}
        with FakeDashboard(token="canary-mine") as server:
            assert connect(server.address, insecure=False, say=print).info("job").submission_id == "job"
            assert {given for _, given in server.seen} == {"", "Bearer canary-mine"}
        monkeypatch.delenv("RAY_AUTH_TOKEN")
        environment.forget_token()
        with FakeDashboard() as server:  # Ray would fail where there is none
            assert connect(server.address, insecure=False, say=print).info("job").submission_id == "job"
    finally:
        monkeypatch.undo()
        environment.forget_token()


def test_nobody_there_and_somebody_else() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(LaunchError, match="refused"):
        connect(address, insecure=False, say=print)
    with FakeDashboard(version="") as server, pytest.raises(LaunchError, match="not the dashboard") as caught:
        connect(f"{server.address}/else", insecure=True, say=print)
    assert caught.value.found == "HTTP status 404"


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("http://127.0.0.1:8265", True),
        ("http://127.8.8.8:8265", True),
        ("http://localhost:8265", True),
        ("http://[::1]:8265", True),
        ("http://192.0.2.7:8265", False),
        ("http://0.0.0.0:8265", False),
    ],
)
def test_what_is_loopback(address: str, local: bool) -> None:
    assert dashboard._is_loopback(address) is local
