"""The live page: what it serves, to whom, and how it follows a history that grows."""

from __future__ import annotations

import http.client
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness.object_store import S3

from raycls.errors import ConfigError, LaunchError
from raycls.report.live import ADDRESS, Follower, LiveServer
from raycls.run.folder import RunFolder

_LINE = '{{"attempt":1,"time":{time}.5,"kind":"train","step":{step},"epoch":{step}.0,"loss":{loss}}}\n'


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A run that has just begun: no record and no result yet."""
    folder = tmp_path / "shapes"
    shutil.copytree(trained / "runs" / "shapes", folder)
    for name in ("history.jsonl", "result.json", "splits.parquet"):
        (folder / name).unlink()
    return folder


@contextmanager
def _serving(run: Path) -> Iterator[LiveServer]:
    server = LiveServer(RunFolder(run))
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join(10)
        assert not thread.is_alive()


def _get(server: LiveServer, path: str, host: str | None = None) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(ADDRESS, server.port, timeout=10)
    try:
        connection.request("GET", path, headers={"Host": host or f"{ADDRESS}:{server.port}"})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


class _Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def _append(run: Path, text: str) -> None:
    with (run / "history.jsonl").open("a") as file:
        file.write(text)


def test_a_follower_reads_what_came_since_its_last_look(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, starts = _Clock(), []
    follower = Follower(RunFolder(run), clock)
    read = RunFolder(run).store.__class__.find_bytes

    def noted(self: object, name: str, *, start: int = 0) -> bytes | None:
        if name == RunFolder.HISTORY:
            starts.append(start)
        return read(self, name, start=start)  # type: ignore[arg-type]

    monkeypatch.setattr(RunFolder(run).store.__class__, "find_bytes", noted)
    assert follower.look().records == []
    first = _LINE.format(time=1, step=1, loss=2.0)
    second = _LINE.format(time=2, step=2, loss=1.5)
    _append(run, first + second[:20])  # the writer is in the middle of a line
    clock.now += 0.5
    assert follower.look().records == []  # it does not look more often than once a second
    clock.now += 1
    assert [record["loss"] for record in follower.look().records] == [2.0]
    version = follower.version
    clock.now += 1
    follower.look()
    assert follower.version == version  # nothing new
    _append(run, second[20:])
    clock.now += 1
    assert [record["loss"] for record in follower.look().records] == [2.0, 1.5]
    assert follower.version == version + 1
    assert starts == [0, 0, len(first), len(first)]


def test_a_follower_starts_over_with_a_new_run_in_the_folder(run: Path) -> None:
    clock = _Clock()
    follower = Follower(RunFolder(run), clock)
    _append(run, _LINE.format(time=1, step=1, loss=2.0))
    assert len(follower.look().records) == 1
    (run / "history.jsonl").unlink()
    attempts = run / "attempts.jsonl"
    attempts.write_text(attempts.read_text().replace('"time":1', '"time":2'))
    clock.now += 5
    assert follower.look().records == []
    _append(run, _LINE.format(time=9, step=1, loss=7.0))
    clock.now += 5
    assert [record["loss"] for record in follower.look().records] == [7.0]


def test_steps_that_a_later_attempt_did_again_are_left_out(run: Path) -> None:
    clock = _Clock()
    follower = Follower(RunFolder(run), clock)
    _append(run, "".join(_LINE.format(time=step, step=step, loss=step) for step in (1, 2, 3)))
    assert len(follower.look().records) == 3
    with (run / "attempts.jsonl").open("a") as file:
        file.write('{"attempt":2,"step":1,"workers":1,"threads":1,"time":99.0}\n')
    _append(run, _LINE.format(time=100, step=2, loss=5.0).replace('"attempt":1', '"attempt":2'))
    clock.now += 5
    told = follower.look()
    assert [(record["step"], record["loss"]) for record in told.records] == [(1, 1), (2, 5.0)]
    assert [(start.reached, start.repeated) for start in told.starts] == [(3, 2), (2, 0)]


def test_the_page_and_its_state(run: Path) -> None:
    _append(run, _LINE.format(time=1, step=3, loss=2.25))
    with _serving(run) as server:
        root = f"/{server.secret}/"
        status, headers, page = _get(server, root)
        assert (status, headers["Cache-Control"], headers["X-Frame-Options"]) == (200, "no-store", "DENY")
        assert b"connect-src &#39;self&#39;" in page
        status, _, body = _get(server, f"{root}state?seen=")
        state = json.loads(body)
        assert status == 200
        assert "2.25" in state["html"]
        assert "step 3 of 30" in state["html"]
        assert state["title"] == "10 % shapes"
        _, _, again = _get(server, f"{root}state?seen={state['version']}")
        assert json.loads(again) == {"version": state["version"]}


def test_who_does_not_know_the_address_gets_nothing(run: Path) -> None:
    with _serving(run) as server:
        root = f"/{server.secret}/"
        for host in ("evil.example", f"evil.example:{server.port}", ADDRESS, f"{ADDRESS}:{server.port}1", ""):
            assert _get(server, root, host or " ")[0] == 403, host
        assert _get(server, root, f"localhost:{server.port}")[0] == 200
        for path in ("/", "/state", f"/{server.secret[:-1]}/", "//", f"/x/{server.secret}/", f"{root}../config.yaml"):
            status, _, body = _get(server, path)
            assert status == 404, path
            assert b"shapes" not in body
        assert server._server.server_address[0] == ADDRESS


def test_a_port_that_is_taken_is_an_error(run: Path) -> None:
    with _serving(run) as server:
        with pytest.raises(LaunchError) as caught:
            LiveServer(RunFolder(run), server.port)
        assert caught.value.where == f"--port {server.port}"
    second = LiveServer(RunFolder(run), server.port)  # it was given back
    second.release()


def test_no_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run folder"):
        LiveServer(RunFolder(tmp_path))


def test_a_run_on_an_object_store_is_followed_through_an_outage(run: Path, s3: S3) -> None:
    for name in ("config.yaml", "attempts.jsonl", "env.json", "plan.json"):
        s3.client.put_object(Bucket="bucket", Key=f"runs/shapes/{name}", Body=(run / name).read_bytes())
    clock = _Clock()
    follower = Follower(RunFolder(s3.uri("runs/shapes")), clock)
    assert follower.look().records == []
    lines = [_LINE.format(time=step, step=step, loss=step) for step in (1, 2)]
    s3.client.put_object(Bucket="bucket", Key="runs/shapes/history.jsonl", Body=lines[0].encode())
    clock.now += 10
    assert len(follower.look().records) == 1
    s3.client.put_object(Bucket="bucket", Key="runs/shapes/history.jsonl", Body="".join(lines).encode())
    s3.proxy.stop()
    clock.now += 10
    assert len(follower.look().records) == 1
    assert "could not be" in follower.error
    s3.proxy.start()
    clock.now += 10
    assert [record["loss"] for record in follower.look().records] == [1, 2]
    assert follower.error == ""
