"""What a private Ray starts for a worker: it has the warm process fork one, and lives and ends with it.

This file is a program of its own, with nothing but the standard library: it costs some hundredths of a second. Where no
warm process answers, it becomes the worker that Ray would have started by itself.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys

__all__ = ["SOCKET", "WORKER"]

SOCKET, WORKER = "RAYCLS_WARM_SOCKET", "RAYCLS_WARM_WORKER"
"""Variables: where the warm process listens, and Ray's own program for a worker."""
_ANSWER_SECONDS = 20.0


def _ask() -> socket.socket | None:
    """The line to the worker that was forked; None where there is no warm process."""
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    line.settimeout(_ANSWER_SECONDS)
    blocked = [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])]
    try:
        line.connect(os.environ[SOCKET])
        request = json.dumps((sys.argv[1:], dict(os.environ), os.getcwd(), blocked, os.nice(0))).encode()
        socket.send_fds(line, [len(request).to_bytes(8, "big")], [0, 1, 2])
        line.sendall(request)
        if not line.recv(1):
            return None
    except (OSError, KeyError):
        return None
    line.settimeout(None)
    return line


def _main() -> None:
    line = _ask()
    if line is None:
        os.execv(sys.executable, [sys.executable, os.environ[WORKER], *sys.argv[1:]])  # noqa: S606 - no shell
    for number in (0, 1, 2):
        os.close(number)  # the worker has them: whoever reads them waits for the worker alone
    status = line.recv(1)
    os._exit(status[0] if status else 1)


if __name__ == "__main__":
    _main()
