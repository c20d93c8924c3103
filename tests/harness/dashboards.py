"""A job server of few words, for what a real one does too rarely: it breaks off where a test wants it to.

It answers as Ray's does: 401 without a token, 403 with a wrong one, and a log always from its beginning.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import pytest
from aiohttp import web


def outward() -> str:
    """An address of this machine that is not loopback; no packet is sent for it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        try:
            opened.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but loopback")
        return opened.getsockname()[0]


@dataclass
class FakeDashboard:
    """One job, `job`, whose log is `log`. A context manager; `address` is there once it runs."""

    token: str = ""
    log: str = ""
    breaks: Sequence[int] = ()
    """After how many characters each connection to the log breaks; the ones after these bring all of it."""
    host: str = "127.0.0.1"
    state: str = "SUCCEEDED"
    """The job's end, once a connection brought all of the log."""
    code: int | None = None
    """Exit code of the job's command."""
    version: str = "2.60.0"
    seen: list[tuple[str, str]] = field(default_factory=list)
    """Path of each request, and its Authorization header."""
    address: str = ""
    ended: bool = False
    known: bool = True
    """Whether the job is known: a new head has forgotten it."""
    lost_tail: int = 0
    """Characters at the end of the log that no stream brings, only the request for all of it."""
    submitted: list[dict[str, Any]] = field(default_factory=list)
    """What was asked for in each submission of a job, which is the job from then on."""
    packages: list[bytes] = field(default_factory=list)
    """ZIP files that were uploaded."""
    stopped: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._ready = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._serve(),))
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def _serve(self) -> None:
        self._loop, self._stop, self._left = asyncio.get_running_loop(), asyncio.Event(), list(self.breaks)

        @web.middleware
        async def guard(request: web.Request, handler: Any) -> web.StreamResponse:
            return self._refused(request) or await handler(request)

        app = web.Application(middlewares=[guard])
        app.add_routes(
            [
                web.get("/api/version", self._version),
                web.get("/api/jobs/{job}", self._info),
                web.get("/api/jobs/{job}/logs", self._all),
                web.get("/api/jobs/{job}/logs/tail", self._tail),
                web.post("/api/jobs/{job}/stop", self._end),
                web.get("/api/jobs/", self._list),
                web.post("/api/jobs/", self._submit),
                web.get("/api/packages/{name:.*}", self._no_package),
                web.put("/api/packages/{name:.*}", self._upload),
            ]
        )
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, self.host, 0)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        self.address = f"http://{self.host}:{port}"
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()

    def _refused(self, request: web.Request) -> web.Response | None:
        given = request.headers.get("Authorization", "")
        self.seen.append((request.path, given))
        if self.token and given != f"Bearer {self.token}":
            return web.Response(status=403 if given else 401, text="Forbidden" if given else "Unauthorized")
        return None

    async def _list(self, request: web.Request) -> web.Response:
        return web.json_response([])

    async def _submit(self, request: web.Request) -> web.Response:
        self.submitted.append(await request.json())
        return web.json_response({"job_id": self._job, "submission_id": self._job})

    async def _no_package(self, request: web.Request) -> web.Response:
        return web.Response(status=404)

    async def _upload(self, request: web.Request) -> web.Response:
        self.packages.append(await request.read())
        return web.Response()

    async def _end(self, request: web.Request) -> web.Response:
        self.stopped.append(request.match_info["job"])
        return web.json_response({"stopped": True})

    @property
    def _job(self) -> str:
        return self.submitted[-1]["submission_id"] if self.submitted else "job"

    async def _version(self, request: web.Request) -> web.Response:
        return web.json_response({"version": "4", "ray_version": self.version})

    async def _info(self, request: web.Request) -> web.Response:
        if not self.known or request.match_info["job"] != self._job:
            return web.Response(status=404, text="Job does not exist")
        state = self.state if self.ended else "RUNNING"
        details: dict[str, Any] = {
            "type": "SUBMISSION",
            "submission_id": self._job,
            "status": state,
            "entrypoint": "raycls train",
        }
        if self.code is not None:
            details["driver_exit_code"] = self.code
        return web.json_response(details)

    async def _all(self, request: web.Request) -> web.Response:
        return web.json_response({"logs": self.log})

    async def _tail(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        streamed = self.log[: len(self.log) - self.lost_tail]
        end = self._left.pop(0) if self._left else None
        sent = streamed[:end]
        for start in range(0, len(sent), 7):  # pieces that end anywhere
            await socket.send_str(sent[start : min(start + 7, len(sent))])
        if end is None:
            self.ended = True
            return socket
        transport = request.transport
        assert transport is not None
        await asyncio.sleep(0.05)
        transport.abort()
        return socket
