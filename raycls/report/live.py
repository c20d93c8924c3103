"""The curves of a run while it trains, on a page that this machine alone can open.

The server listens on the loopback address. What it serves lies below a path that nobody can guess: other users of the
machine reach the port too. The name that a browser asks for must be that of the loopback address, so that a page of
another site cannot have it by a name that it resolves itself (DNS rebinding).
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from raycls.errors import LaunchError, RayclsError
from raycls.report.page.live import live_page, live_state
from raycls.report.runs import Told, tell
from raycls.run.folder import RunFolder, parse_line

__all__ = ["ADDRESS", "Follower", "LiveServer"]

ADDRESS = "127.0.0.1"
_NAMES = ("127.0.0.1", "localhost")
_LOCAL_SECONDS, _REMOTE_SECONDS = 1.0, 5.0
"""How often the files are looked at, however many pages ask."""
_TIMEOUT = 30.0
"""Seconds after which a connection on which nothing comes is closed."""


class Follower:
    """The newest state of a run, read from where the last look at its history ended. For any thread."""

    def __init__(self, folder: RunFolder, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._clock = RunFolder(folder.store.without_retry()), clock
        self._lock = threading.Lock()
        self._told = tell(folder)
        self._every = _LOCAL_SECONDS if folder.store.is_local else _REMOTE_SECONDS
        self._looked = -1e9
        self._began = self._told.starts[0].attempt.time if self._told.starts else None
        self._cursor, self._lines = 0, list[dict[str, Any]]()
        self._seen: object = None
        self.version = 0
        """Grows with each change."""
        self.error = ""
        """Why the files could not be read at the last look; empty where they could."""

    def look(self) -> Told:
        """The run as its files have it now, or had it a moment ago."""
        with self._lock:
            if self._clock() - self._looked >= self._every:
                try:
                    self._read()
                    self.error = ""
                except RayclsError as error:  # a storage that is away for a while ends nothing
                    self.version += self.error != error.what
                    self.error = error.what
                self._looked = self._clock()
            return self._told

    def _read(self) -> None:
        attempts = self._folder.attempts()
        began = attempts[0].time if attempts else None
        if began != self._began:  # another run has this folder now: --new
            self._began, self._cursor, self._lines = began, 0, []
            self._told = tell(self._folder)
        data = self._folder.store.find_bytes(RunFolder.HISTORY, start=self._cursor) or b""
        whole = data[: data.rfind(b"\n") + 1]  # the rest of a line comes later
        self._cursor += len(whole)
        self._lines += [line for line in map(parse_line, whole.decode("utf-8", "replace").split("\n")) if line]
        result = self._folder.read_json(RunFolder.RESULT)
        seen = (self._cursor, len(attempts), began, result)
        if seen == self._seen:
            return
        self._seen = seen
        self.version += 1
        plan = self._told.plan or self._folder.read_json(RunFolder.PLAN) or {}
        self._told = self._told.at(self._lines, attempts, result, plan)


class LiveServer:
    """Serves the page. `url` opens it; `serve` blocks until `close` is called from another thread, or a signal."""

    def __init__(self, folder: RunFolder, port: int = 0) -> None:
        self.follower = Follower(folder)
        self.secret = secrets.token_urlsafe(16)
        handler = type("_Handler", (_Handler,), {"live": self})
        try:
            self._server = _Server((ADDRESS, port), handler)
        except OSError as error:
            raise LaunchError(
                "the live page has no port",
                where=f"--port {port}",
                found=error.strerror or str(error),
                fix="choose another one, or leave --port out: a free one is taken",
            ) from error
        self.port = int(self._server.server_address[1])
        self.url = f"http://{ADDRESS}:{self.port}/{self.secret}/"

    def serve(self) -> None:
        self._server.serve_forever(poll_interval=0.2)

    def close(self) -> None:
        """End `serve` and give the port back. From another thread than that of `serve`, or after it has ended."""
        self._server.shutdown()
        self.release()

    def release(self) -> None:
        """Give the port back once `serve` has ended."""
        self._server.server_close()

    def page(self) -> bytes:
        return live_page(self.follower.look())

    def state(self, seen: str) -> bytes:
        """JSON: `version`, and beside it `html` and `title` where that is not the version which was `seen`."""
        told = self.follower.look()
        version = str(self.follower.version)
        if version == seen:
            return json.dumps({"version": version}).encode()
        html, title = live_state(told, self.follower.error)
        return json.dumps({"version": version, "html": html, "title": title}).encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True  # the port of a page that has just ended can be asked for again

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away is no event."""


class _Handler(BaseHTTPRequestHandler):
    live: LiveServer
    protocol_version = "HTTP/1.1"
    timeout = _TIMEOUT

    def do_GET(self) -> None:
        name, _, port = self.headers.get("Host", "").rpartition(":")
        if name not in _NAMES or port != str(self.live.port):
            return self._answer(HTTPStatus.FORBIDDEN, b"this server answers to its loopback address alone\n")
        address = urlsplit(self.path)
        _, _, rest = address.path.partition("/")
        secret, _, page = rest.partition("/")
        if not secrets.compare_digest(secret.encode(), self.live.secret.encode()):
            return self._answer(HTTPStatus.NOT_FOUND, b"open the address that raycls report --live printed\n")
        if page == "":
            return self._answer(HTTPStatus.OK, self.live.page(), "text/html; charset=utf-8")
        if page == "state":
            seen = parse_qs(address.query).get("seen", [""])[0]
            return self._answer(HTTPStatus.OK, self.live.state(seen), "application/json")
        return self._answer(HTTPStatus.NOT_FOUND, b"there is no such page\n")

    def _answer(self, status: HTTPStatus, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
        self.send_response_only(status)
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Silent: the terminal is the user's."""
