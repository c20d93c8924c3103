"""The metadata servers of three clouds, on loopback: each refuses who does not ask as its cloud wants to be asked."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


@dataclass
class Metadata:
    """A context manager; `origin` is there once it runs. Without `notice` the machine stays."""

    cloud: str
    notice: Any = None
    """EC2: the page instance-action; Compute Engine: True; Azure: the events."""
    broken: int = 0
    """A status that it answers with instead."""
    asked: list[str] = field(default_factory=list)
    """Method and path of every question."""
    origin: str = ""

    def __enter__(self) -> Self:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer()

            def do_PUT(self) -> None:
                self._answer()

            def _answer(self) -> None:
                fake.asked.append(f"{self.command} {self.path}")
                status, text = (fake.broken, "") if fake.broken else getattr(fake, f"_{fake.cloud}")(self)
                self.send_response(status)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, format: str, *values: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        self.origin = f"http://127.0.0.1:{self._server.server_port}"
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()

    def _aws(self, asked: BaseHTTPRequestHandler) -> tuple[int, str]:
        if asked.path == "/latest/api/token":
            right = asked.command == "PUT" and int(asked.headers.get("X-aws-ec2-metadata-token-ttl-seconds", 0)) > 0
            return (200, "the-token") if right else (405, "")
        if asked.headers.get("X-aws-ec2-metadata-token") != "the-token":
            return 401, ""
        there = asked.path == "/latest/meta-data/spot/instance-action" and self.notice
        return (200, json.dumps(self.notice)) if there else (404, "")

    def _gcp(self, asked: BaseHTTPRequestHandler) -> tuple[int, str]:
        if asked.headers.get("Metadata-Flavor") != "Google":
            return 403, ""
        if asked.path != "/computeMetadata/v1/instance/preempted":
            return 404, ""
        return 200, "TRUE\n" if self.notice else "FALSE\n"

    def _azure(self, asked: BaseHTTPRequestHandler) -> tuple[int, str]:
        path, _, query = asked.path.partition("?")
        if asked.headers.get("Metadata") != "true" or "api-version=" not in query:
            return 400, ""
        if path == "/metadata/instance/compute/name":
            return 200, "this-machine"
        if path != "/metadata/scheduledevents":
            return 404, ""
        return 200, json.dumps({"DocumentIncarnation": 1, "Events": self.notice or []})
