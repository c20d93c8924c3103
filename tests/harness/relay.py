"""A TCP relay between a command and a server, whose connections a test can break."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Self
from urllib.parse import urlsplit


class Relay:
    """Listens on a port of its own and passes bytes to `target` (`http://host:port`). A context manager."""

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._target = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._open: list[socket.socket] = []
        self._refusing = False
        self._lock = threading.Lock()
        self.accepted = 0
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.cut()
        self._thread.join(5)

    def cut(self, *, refuse: bool = False) -> None:
        """Break all connections; with `refuse` new ones are broken too, until `heal`."""
        with self._lock:
            self._refusing = refuse
            left, self._open = self._open, []
        for one in left:
            with suppress(OSError):  # it has ended already
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def heal(self) -> None:
        self._refusing = False

    def _accept(self) -> None:
        while True:
            try:
                incoming, _ = self._listening.accept()
            except OSError:
                return
            self.accepted += 1
            if self._refusing:
                incoming.close()
                continue
            try:
                outgoing = socket.create_connection(self._target, 10)
            except OSError:
                incoming.close()
                continue
            outgoing.settimeout(None)
            with self._lock:
                self._open += [incoming, outgoing]
            for pair in ((incoming, outgoing), (outgoing, incoming)):
                threading.Thread(target=_pass, args=pair, daemon=True).start()


def _pass(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:  # one of the two was cut
        return
