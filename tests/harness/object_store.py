"""S3 over HTTP on this machine: moto's server, and a proxy before it that fails as networks and servers do."""

from __future__ import annotations

import logging
import os
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

__all__ = ["BUCKET", "KEY", "S3", "SECRET", "Fault", "Proxy", "serving"]

BUCKET = "bucket"
KEY, SECRET = "AKIACANARYCANARY0000", "canary/5ecretcanary5ecret"
_HOP = ("connection", "transfer-encoding", "expect", "keep-alive", "server", "date")

Fault = str
"""`refuse`: cut before the request is looked at. `half`: cut in the middle of its body; it is not done, as S3 does it.
`after`: it is done, the answer is lost. `hang`: no answer until the proxy stops. `403 Code` and the like: that
answer, and it is not done."""


class Proxy:
    """Hands HTTP requests on to `target`, and counts them. `fault(n, method, path)` says what happens to the n-th.

    `stop` cuts every connection and refuses new ones, as a server that was killed; `start` opens the same port again.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.count = 0
        self.seen: list[tuple[str, str]] = []
        self.fault: Callable[[int, str, str], Fault | None] = lambda number, method, path: None
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._closing = threading.Event()
        self._server: _Server | None = None
        self.port = 0
        self.start()

    def start(self) -> None:
        self._closing.clear()
        self._server = _Server(("127.0.0.1", self.port), self)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name="proxy", daemon=True).start()

    def stop(self) -> None:
        if self._server is None:
            return
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._server = None
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def reset(self) -> None:
        """No fault from now on, and the next request is number 0."""
        with self._lock:
            self.fault = lambda number, method, path: None
            self.count, self.seen = 0, []

    def fail_from(self, first: int, fault: Fault = "refuse", *, last: int | None = None) -> None:
        """Request number `first` from now on fails, and every one after it up to `last`."""
        self.reset()
        self.fault = lambda number, method, path: (
            fault if number >= first and (last is None or number <= last) else None
        )

    def next_fault(self, method: str, path: str) -> Fault | None:
        with self._lock:
            number, self.count = self.count, self.count + 1
            self.seen.append((method, path))
            return self.fault(number, method, path)


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], proxy: Proxy) -> None:
        self.proxy = proxy
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that was cut is what this is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.server.proxy._open.add(self.connection)

    def finish(self) -> None:
        self.server.proxy._open.discard(self.connection)
        with suppress(OSError):
            super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""

    def _any(self) -> None:
        proxy = self.server.proxy
        fault = proxy.next_fault(self.command, self.path)
        if fault == "hang":
            proxy._closing.wait()
        if fault in ("refuse", "hang"):
            return self._cut()
        body = self._body(cut=fault == "half")
        if body is None:
            return self._cut()
        if fault and fault[0].isdigit():
            return self._answer_fault(fault)
        try:
            status, headers, data = self._forward(body)
        except (OSError, HTTPException):
            return self._cut()
        if fault == "after":
            return self._cut()
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in _HOP:
                self.send_header(name, value)
        if not any(name.lower() == "content-length" for name, _ in headers):
            self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        return None

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _any  # noqa: N815

    def _body(self, *, cut: bool) -> bytes | None:
        """The body of the request, None where it does not arrive; with `cut` its second half is not read."""
        if "chunked" not in self.headers.get("transfer-encoding", ""):
            size = int(self.headers.get("content-length") or 0)
            data = self.rfile.read(size // 2 if cut else size)
            return None if cut or len(data) < size else data
        chunks: list[bytes] = []
        while size := int(self.rfile.readline().split(b";")[0] or b"0", 16):
            chunks.append(self.rfile.read(size // 2 if cut else size))
            if cut or len(chunks[-1]) < size:
                return None
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = HTTPConnection("127.0.0.1", self.server.proxy.target, timeout=60)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in (*_HOP, "content-length"):
                    connection.putheader(name, value)
            connection.putheader("content-length", str(len(body)))
            connection.endheaders()
            connection.send(body)
            response = connection.getresponse()
            return response.status, response.getheaders(), response.read()
        finally:
            connection.close()

    def _answer_fault(self, fault: Fault) -> None:
        status, _, code = fault.partition(" ")
        data = b"" if self.command == "HEAD" else f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
        self.send_response_only(int(status))
        if status == "301":
            self.send_header("x-amz-bucket-region", "eu-west-1")
        self.send_header("content-type", "application/xml")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _cut(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


@dataclass
class S3:
    """A bucket behind a proxy. `environment` is what a process needs to use it."""

    proxy: Proxy
    client: Any
    """boto3's, past the proxy: what is really there."""
    environment: dict[str, str] = field(
        default_factory=lambda: {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
    )

    @property
    def options(self) -> str:
        return f"?endpoint_override=127.0.0.1:{self.proxy.port}&scheme=http&region=us-east-1"

    def uri(self, path: str) -> str:
        """The address of `path` in the bucket."""
        return f"s3://{BUCKET}/{path}{self.options}"

    def objects(self, prefix: str = "") -> dict[str, bytes]:
        """Every object below `prefix`, by the rest of its name."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        names = [item["Key"] for page in pages for item in page.get("Contents", ())]
        return {name[len(prefix) :]: self.read(name) or b"" for name in names}

    def read(self, name: str) -> bytes | None:
        try:
            return self.client.get_object(Bucket=BUCKET, Key=name)["Body"].read()
        except self.client.exceptions.NoSuchKey:
            return None

    def upload(self, folder: Path, prefix: str) -> None:
        """Every file below `folder`, to the same place below `prefix`."""
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                name = f"{prefix}/{file.relative_to(folder).as_posix()}"
                self.client.put_object(Bucket=BUCKET, Key=name, Body=file.read_bytes())

    def restore(self, before: Mapping[str, bytes]) -> None:
        """Make the bucket hold what `objects()` gave before."""
        self.empty()
        for name, data in before.items():
            self.client.put_object(Bucket=BUCKET, Key=name, Body=data)

    def empty(self) -> None:
        self.proxy.reset()
        for name in self.objects():
            self.client.delete_object(Bucket=BUCKET, Key=name)


@contextmanager
def serving() -> Iterator[S3]:
    """A fresh S3 with one bucket; the environment of this process has its credentials for that long."""
    import boto3
    from botocore.config import Config
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line per request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    proxy = Proxy(port)
    s3 = S3(
        proxy,
        boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{port}",
            region_name="us-east-1",
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            config=Config(retries={"max_attempts": 1}),
        ),
    )
    before = {name: os.environ.get(name) for name in s3.environment}
    os.environ.update(s3.environment)
    try:
        s3.client.create_bucket(Bucket=BUCKET)
        yield s3
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        proxy.stop()
        s3.client.close()
        server.stop()
