"""`raycls serve --replicas 0`: from the start to the last answer, in a process of its own, without Ray."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from harness.pages import blocks, differs, steps
from harness.served import Half, Server, start

from raycls.errors import ConfigError, LaunchError
from raycls.serve.intake import Limits
from raycls.serve.local import Local
from raycls.serve.server import Options, serve
from raycls.serve.token import Access
from raycls.session.trained.trained import open_trained

_PAGE = Path(__file__).parents[2] / "docs" / "serve.md"


def _ask_as_the_page(server: Server, folder: Path) -> None:
    """Type the requests of the page: with its address, token and file replaced, they print what it shows."""
    asked = [step for block in blocks(_PAGE) for step in steps(block) if step.words[0] == "curl"]
    assert len(asked) == 4
    shown = {"http://127.0.0.1:8000": server.address, "TOKEN": server.token, "cat": "circle", "0.9...": "0..."}
    for step in asked:
        words, lines = (_replaced(texts, shown) for texts in (step.words, step.shown))
        done = subprocess.run([*words, "--silent", "--fail"], cwd=folder, capture_output=True, text=True, check=True)
        assert differs(lines, done.stdout + "\n") == ""


def _replaced(texts: tuple[str, ...], shown: dict[str, str]) -> tuple[str, ...]:
    for old, new in shown.items():
        texts = tuple(text.replace(old, new) for text in texts)
    return texts


def test_it_answers_and_finishes_what_it_has_accepted(trained: Path, tmp_path: Path) -> None:
    shutil.copy(trained / "photos" / "circle" / "000.png", tmp_path / "circle.png")
    images = [file.read_bytes() for file in sorted((trained / "photos").rglob("*.*"))[::12]]

    async def use(server: Server) -> None:
        (good, bad), _ = await server.ask([images[0], b"no image"])
        assert (good.status_code, bad.status_code) == (200, 422)
        _ask_as_the_page(server, tmp_path)
        with socket.create_connection(("127.0.0.1", server.port)) as odd:  # the log of the server is not theirs
            odd.sendall(b"no HTTP at all\r\n\r\n")
            assert odd.recv(1000).startswith(b"HTTP/1.1 400 ")
        halves = [Half(server, data) for data in images]
        for half in halves:
            await half.send()
        while (await server.counts())["raycls_serve_in_flight"] < len(halves):
            await asyncio.sleep(0.02)
        server.command.process.send_signal(signal.SIGTERM)
        while _listens(server.port):
            await asyncio.sleep(0.02)
        for half in halves:
            assert (await half.rest()).startswith(b"HTTP/1.1 200 OK")

    with start(tmp_path, str(trained / "runs" / "shapes"), "--replicas", "0") as command:
        server = Server(command, 120)
        asyncio.run(use(server))
        assert command.wait(60) == 143
        assert command.stderr.splitlines()[-1] == (
            f"answered {len(images) + 4} requests: {len(images) + 3} with 200, 1 with 422"
        )
        assert "Invalid" not in command.stderr
        assert command.stdout == ""
        command.assert_gone(10)


def _listens(port: int) -> bool:
    with socket.socket() as opened:
        return opened.connect_ex(("127.0.0.1", port)) == 0


def _options(**changed: object) -> Options:
    given = {
        "host": "127.0.0.1",
        "port": 0,
        "replicas": 0,
        "device": "cpu",
        "threads": 1,
        "max_batch": 8,
        "max_pixels": 10**6,
        "limits": Limits(10**6, 10**7, 10.0),
        "wait": 10.0,
    }
    return Options(**{**given, **changed})  # type: ignore[arg-type]


def test_a_port_that_is_taken_and_a_host_that_is_none_are_told_at_once(trained: Path) -> None:
    run = open_trained(str(trained / "runs" / "shapes"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError) as refused:
            serve(run, _options(port=port), Access("x" * 16, ""), say=print)
    assert str(port) in str(refused.value.found)
    with pytest.raises(ConfigError) as unknown:
        serve(run, _options(host="256.1.1.1"), Access("x" * 16, ""), say=print)
    assert unknown.value.where == "--host"


def test_without_a_gpu_cuda_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(LaunchError) as refused:
        Local.device("cuda")
    assert refused.value.fix == "--device cpu"
    assert Local.device("auto") == "cpu"
