"""A cloud's notice that it takes a spot machine back, made known to Ray: the node drains, and runs save what they have.

No part of Ray asks a cloud for it. The start commands of cluster/ run `python -m raycls.cluster.notices CLOUD
HEAD:PORT` on each worker, which goes on in the background as long as the node of this machine does. Only a node with
Ray's label `ray.io/market-type: spot` is watched; all that is spoken to is the machine's own metadata server, an
address that no packet leaves the host for. Until there is a notice, nothing heavy is imported.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, cast
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from raycls.errors import LaunchError

__all__ = ["CLOUDS", "Node", "Notice", "drain", "main", "spot_nodes", "watch"]

ORIGIN = "http://169.254.169.254"
"""The metadata server, which has this address in each of the three clouds."""
PAUSE = 5.0
"""Seconds between two questions."""
_SECONDS = 10.0
"""How long one answer may take."""
_LOG = "raycls-notices.log"
_opener = build_opener(ProxyHandler({}))  # never through a proxy: it would ask for its own machine


@dataclass(frozen=True)
class Notice:
    """That this machine will be taken away."""

    said: str
    deadline: float
    """Unix time at which it goes."""


@dataclass(frozen=True)
class Node:
    """The node of Ray that runs on this machine."""

    name: str
    """Its id in Ray."""
    address: str
    """`host:port` of the cluster's GCS."""
    logs: str
    """The folder of its logs."""


class _Server:
    """The metadata server. Raises OSError where it does not answer, or not with what was asked for."""

    def __init__(self, origin: str) -> None:
        self._origin = origin

    def ask(self, path: str, headers: Mapping[str, str], method: str = "GET") -> str | None:
        """The answer; None where there is nothing of that name."""
        request = Request(self._origin + path, headers=dict(headers), method=method)  # noqa: S310 - http alone
        try:
            with _opener.open(request, timeout=_SECONDS) as reply:
                return reply.read(1 << 20).decode("utf-8", "replace")
        except HTTPError as error:
            with error:
                if error.code == 404:
                    return None
                raise OSError(f"HTTP status {error.code} for {path}") from None


def _aws(server: _Server) -> Notice | None:
    """EC2: IMDSv2, a page that is there once the machine is to go, two minutes before."""
    token = server.ask("/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"}, "PUT") or ""
    text = server.ask("/latest/meta-data/spot/instance-action", {"X-aws-ec2-metadata-token": token})
    if text is None:
        return None
    said = _json(text)
    return Notice(f"EC2 will {said.get('action', 'take back')} this machine", _moment(said.get("time"), 120.0))


def _gcp(server: _Server) -> Notice | None:
    """Compute Engine: a flag, which says nothing of when; it is 30 seconds, and the last question is `PAUSE` ago."""
    text = server.ask("/computeMetadata/v1/instance/preempted", {"Metadata-Flavor": "Google"})
    if text is None or text.strip().upper() != "TRUE":
        return None
    return Notice("Compute Engine preempts this machine", time.time() + 30.0 - PAUSE)


def _azure(server: _Server) -> Notice | None:
    """Azure: events of all machines that are set up together, so only those that name this one count."""
    headers = {"Metadata": "true"}
    text = server.ask("/metadata/scheduledevents?api-version=2020-07-01", headers)
    events = [event for event in _json(text or "{}").get("Events") or [] if event.get("EventType") == "Preempt"]
    if not events:
        return None
    here = server.ask("/metadata/instance/compute/name?api-version=2021-02-01&format=text", headers)
    for event in events:
        if not here or here.strip() in (event.get("Resources") or []):
            return Notice("Azure evicts this machine", _moment(event.get("NotBefore"), 30.0 - PAUSE))
    return None


CLOUDS: dict[str, Callable[[_Server], Notice | None]] = {"aws": _aws, "azure": _azure, "gcp": _gcp}


def watch(
    cloud: str,
    there: Callable[[], bool],
    drain: Callable[[Notice], None],
    *,
    origin: str = ORIGIN,
    say: Callable[[str], None] = print,
) -> Notice | None:
    """Ask every `PAUSE` seconds until there is a notice, call `drain` with it, and again until it raises no error.

    The notice; None where the node was not `there` any more before one came.
    """
    server, notice, trouble = _Server(origin), None, ""
    while there():
        try:
            notice = notice or CLOUDS[cloud](server)
            if notice is not None:
                drain(notice)
                left = notice.deadline - time.time()
                say(f"{notice.said}, in {left:.0f} s: its node in Ray drains")
                return notice
            found = ""
        except Exception as error:  # noqa: BLE001 - nobody else would ask again
            found = f"{type(error).__name__}: {error}"
        if found != trouble:
            say(f"no answer that helps, asking again: {found}" if found else "there are answers again")
            trouble = found
        time.sleep(PAUSE)
    say("the node has ended, and nothing is left to drain")
    return None


def spot_nodes(address: str, processes: Path = Path("/proc")) -> list[Node]:
    """The nodes of the cluster at `address` that run on this machine, are labelled spot and are not its head."""
    found = []
    for entry in processes.iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError, ValueError, KeyError):  # it has ended, or is something else
            words = (entry / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
            if not words[0].endswith("raylet/raylet"):
                continue
            pairs = (word[2:].partition("=") for word in words[1:] if word.startswith("--"))
            options = {name: value for name, _, value in pairs}
            labels = _json(options.get("labels") or "{}")
            is_spot = labels.get("ray.io/market-type") == "spot" and "head" not in options
            if is_spot and _are_same(address, options["gcs-address"]):
                found.append(Node(options["node_id"], options["gcs-address"], options["log_dir"]))
    return found


def _are_same(address: str, used: str) -> bool:
    """Whether Ray makes `used` of an address that `ray start` got: numbers of a name, its own address of a loopback."""
    (host, _, port), (used_host, _, used_port) = address.rpartition(":"), used.rpartition(":")
    if port != used_port or host == used_host:
        return port == used_port
    number = socket.gethostbyname(host)
    return number == used_host or number.startswith("127.")


def drain(node: Node, notice: Notice) -> None:
    """Tell the cluster that `node` goes, as `ray drain-node` does. LaunchError where it does not take that."""
    from ray import _raylet
    from ray.core.generated import autoscaler_pb2

    raylet, generated = cast("Any", _raylet), cast("Any", autoscaler_pb2)  # compiled and generated, without type hints
    reason = generated.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    end = int(max(notice.deadline, time.time() + 1.0) * 1000)
    accepted, why = raylet.GcsClient(node.address).drain_node(node.name, reason, notice.said, end, timeout=_SECONDS)
    if not accepted:
        raise LaunchError("the cluster does not take the notice", where=node.address, found=str(why))


def _json(text: str) -> dict[str, Any]:
    """The object that `text` is; ValueError where it is none."""
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError(f"no JSON object but {text[:80]!r}")
    return cast("dict[str, Any]", found)


def _moment(text: object, seconds: float) -> float:
    """Unix time of a date as AWS or Azure write it; `seconds` from now where it says none."""
    if isinstance(text, str) and text:
        with suppress(ValueError):
            moment = datetime.fromisoformat(text) if text[:4].isdigit() else parsedate_to_datetime(text)
            return moment.replace(tzinfo=UTC).timestamp()
    return time.time() + seconds


def main(words: list[str] | None = None) -> None:
    """Wait for notices in the background, or with `--stay` in this process."""
    parser = argparse.ArgumentParser(prog="python -m raycls.cluster.notices", description=main.__doc__)
    parser.add_argument("cloud", choices=sorted(CLOUDS))
    parser.add_argument("address", metavar="HEAD:PORT", help="the address that the node was started with")
    parser.add_argument("--origin", default=ORIGIN, help="the metadata server")
    parser.add_argument("--stay", action="store_true", help="do not go into the background")
    given = parser.parse_args(words)
    nodes = spot_nodes(given.address)
    if not nodes:
        print("no node here has the label ray.io/market-type: spot, so no notice is waited for")
    elif given.stay:
        _stay(given.cloud, given.origin, nodes)
    else:
        log = Path(nodes[0].logs, _LOG)
        command = [sys.executable, "-m", "raycls.cluster.notices", given.cloud, given.address]
        command += [f"--origin={given.origin}", "--stay"]
        with open(log, "ab", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True)
        print(f"a notice of {given.cloud} is waited for; the log is {log}")


def _stay(cloud: str, origin: str, nodes: list[Node]) -> None:
    _say(f"waiting for a notice of {cloud}, for node {', '.join(node.name for node in nodes)}")

    def there() -> bool:
        return not {*nodes}.isdisjoint(spot_nodes(nodes[0].address))

    def drain_all(notice: Notice) -> None:
        for node in nodes:
            drain(node, notice)

    watch(cloud, there, drain_all, origin=origin, say=_say)


def _say(text: str) -> None:
    print(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}Z  {text}", flush=True)


if __name__ == "__main__":
    main()
