"""A network that can be cut: each node of a cluster in a network namespace of its own, all on one bridge.

Linux as root, with iproute2. The processes themselves are ordinary ones of this machine.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Network", "missing", "network"]

_SUBNET = f"10.78.{os.getpid() % 256}"


def missing() -> str:
    """What this machine lacks for it, in words; empty where nothing is."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "cutting a network needs Linux and root"
    return "" if shutil.which("ip") else "cutting a network needs the program ip (Debian: apt install iproute2)"


@dataclass(frozen=True)
class Network:
    """`address` is this machine's; a node `number` (from 1) has one of its own."""

    name: str
    address: str = f"{_SUBNET}.1"

    def inside(self, number: int) -> list[str]:
        """What a command begins with that runs on node `number`."""
        return ["ip", "netns", "exec", self._space(number)]

    def node(self, number: int) -> str:
        return f"{_SUBNET}.{10 + number}"

    def cut(self, number: int) -> None:
        """No packet reaches the node any more, and none leaves it."""
        _ip("link", "set", self._wire(number), "down")

    def heal(self, number: int) -> None:
        _ip("link", "set", self._wire(number), "up")

    def _space(self, number: int) -> str:
        return f"{self.name}-{number}"

    def _wire(self, number: int) -> str:
        return f"{self.name}w{number}"

    def _settings(self, number: int) -> Path:
        """What is here lies over /etc of the processes that `ip netns exec` starts."""
        return Path("/etc/netns") / self._space(number)

    def add(self, number: int) -> None:
        space, wire = self._space(number), self._wire(number)
        _ip("netns", "add", space)
        # Where nobody answers, every look-up of a name or address waits for ten seconds: here it is refused at once.
        self._settings(number).mkdir(parents=True)
        (self._settings(number) / "resolv.conf").write_text("nameserver 127.0.0.1\n")
        _ip("link", "add", wire, "type", "veth", "peer", "name", "eth0", "netns", space)
        _ip("link", "set", wire, "master", self.name, "up")
        _ip("-n", space, "link", "set", "lo", "up")
        _ip("-n", space, "addr", "add", f"{self.node(number)}/24", "dev", "eth0")
        _ip("-n", space, "link", "set", "eth0", "up")
        _ip("-n", space, "route", "add", "default", "via", self.address)  # Ray looks up its own address by a route


@contextmanager
def network(nodes: int) -> Iterator[Network]:
    """A bridge with this machine and `nodes` nodes on it; nothing of it is left afterwards."""
    _sweep()
    made = Network(f"rc{os.getpid()}")
    _ip("link", "add", made.name, "type", "bridge")
    try:
        _ip("addr", "add", f"{made.address}/24", "dev", made.name)
        _ip("link", "set", made.name, "up")
        for number in range(1, nodes + 1):
            made.add(number)
        yield made
    finally:
        for number in range(1, nodes + 1):
            with suppress(subprocess.CalledProcessError):
                _ip("netns", "delete", made._space(number))
            shutil.rmtree(made._settings(number), ignore_errors=True)
        with suppress(OSError):  # it is not ours alone
            Path("/etc/netns").rmdir()
        _ip("link", "delete", made.name)


def _sweep() -> None:
    """Remove what processes that were killed have left: their addresses would lead nowhere."""
    for bridge in set(re.findall(r"\brc[0-9]+(?=:)", _ip("-o", "link", "show", "type", "bridge"))):
        if not Path("/proc", bridge[2:]).exists():
            for space in re.findall(rf"^{bridge}-[0-9]+", _ip("netns", "list"), re.MULTILINE):
                _ip("netns", "delete", space)
                shutil.rmtree(Path("/etc/netns") / space, ignore_errors=True)
            _ip("link", "delete", bridge)


def _ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout
