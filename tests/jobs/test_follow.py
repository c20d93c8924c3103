"""A log through connections that break: nothing lost, nothing twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness.dashboards import FakeDashboard

from raycls.errors import LaunchError
from raycls.jobs import follow as job_logs
from raycls.jobs.dashboard import connect
from raycls.jobs.follow import Follower

LOG = "".join(f"line {number} \u00e4\u20ac\n" for number in range(30)) + "no end of line"


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_logs, "_PAUSE", 0.0)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "right")


def follow(server: FakeDashboard) -> tuple[str, list[str], str]:
    written: list[str] = []
    said: list[str] = []
    end = Follower(connect(server.address, insecure=False, say=print), "job", written.append, said.append).run()
    return "".join(written), said, end.status.value


@pytest.mark.parametrize("breaks", [(), (0,), (1, 5, 6, 7, 8, 200), (len(LOG), 3, len(LOG) - 1), (50, 10, 50, 51)])
def test_each_character_once_wherever_the_connection_breaks(breaks: tuple[int, ...]) -> None:
    with FakeDashboard(token="right", log=LOG, breaks=breaks) as server:
        assert follow(server) == (LOG, [], "SUCCEEDED")
        tails = [given for path, given in server.seen if path.endswith("tail")]
        assert tails == ["Bearer right"] * (len(breaks) + 1)


def test_the_token_and_no_login_of_a_netrc_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("default login me password canary-netrc\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with FakeDashboard(token="right", log=LOG) as server:
        assert follow(server) == (LOG, [], "SUCCEEDED")
        assert {given for path, given in server.seen if path.endswith("tail")} == {"Bearer right"}


def test_through_the_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")  # this machine may be left out of it
    with FakeDashboard(token="right", log="nobody asks here") as server, FakeDashboard(log=LOG) as proxy:
        monkeypatch.setenv("http_proxy", proxy.address)  # it answers by itself
        assert follow(server) == (LOG, [], "SUCCEEDED")
        assert not any(path.endswith("tail") for path, _ in server.seen)
        assert any(path.endswith("tail") for path, _ in proxy.seen)


def test_what_no_stream_brought_is_fetched_at_the_end() -> None:
    with FakeDashboard(log=LOG, lost_tail=40, state="STOPPED") as server:
        assert follow(server) == (LOG, [], "STOPPED")


def test_a_job_that_a_new_head_does_not_know_is_told_at_once() -> None:
    with FakeDashboard(log=LOG, breaks=(30,), known=False) as server, pytest.raises(LaunchError) as caught:
        follow(server)
    assert "started anew" in str(caught.value)
    assert "resume" in str(caught.value.fix)


def test_a_cluster_that_stays_away_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_logs, "_DEADLINE", 0.5)
    monkeypatch.setattr(job_logs, "_PAUSE", 0.1)
    said: list[str] = []
    with FakeDashboard(log=LOG) as server:
        made = connect(server.address, insecure=False, say=print)
    with pytest.raises(LaunchError, match="does not answer any more"):
        Follower(made, "job", lambda text: None, said.append).run()
    (line,) = said
    assert "trying again" in line
