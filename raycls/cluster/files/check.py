"""What makes a cluster file unsafe or a matter of luck: no token, open ports, versions that nobody chose."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from raycls.cluster.files.read import MARKET, ClusterFile, Finding, located, read
from raycls.config.errors import ConfigProblemsError, Problem
from raycls.config.errors import Path as Keys

__all__ = ["GROWTH", "TOKEN", "check", "dashboard_host", "tells_growth"]

TOKEN = "~/.ray/auth_token"  # noqa: S105 - where Ray keeps its token, not the token
"""Where Ray looks for the token of a user, here and on every node."""

GROWTH = "python -m raycls.cluster.growth"
"""What a head runs to tell its cluster how far it may grow."""

_MODE = "RAY_AUTH_MODE=token"
_START = re.compile(r"\bray\s+start\b")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_WORLD = ("0.0.0.0/0", "::/0")
_STARTS = ("head_start_ray_commands", "worker_start_ray_commands")


def check(path: str | Path) -> ClusterFile:
    """Read a cluster file. ConfigProblemsError with all that is wrong in it, or else all that it leaves open."""
    file = read(path)
    findings = [*_token(file), *_starts(file), *_world(file), *_setup(file), *_market(file)]
    problems: list[Problem] = located(file.document, str(file.path), findings)
    if problems:
        raise ConfigProblemsError(str(file.path), problems)
    return file


def dashboard_host(file: ClusterFile) -> str:
    """The address that the head's dashboard, which takes jobs, listens on."""
    for command in _head_starts(file):
        match = re.search(r"--dashboard-host[=\s]+(\S+)", command)
        if match:
            return match[1].strip("'\"")
    return "127.0.0.1"  # Ray's own default


def tells_growth(file: ClusterFile) -> bool:
    """Whether the head of `file` tells the cluster how far it may grow, or there is nothing to tell."""
    grows = any(node.min_count < node.max_count for node in file.nodes if not node.head)
    return not grows or any(GROWTH in command for command in _head_starts(file))


def _token(file: ClusterFile) -> Iterator[Finding]:
    """The token reaches every node: Ray sends neither it nor the mode by itself."""
    if file.here:
        return
    mounts = file.values.get("file_mounts") or {}
    if not any(str(remote).endswith("/.ray/auth_token") for remote in mounts):
        yield Finding(
            ("file_mounts", TOKEN),
            "no token: anyone who reaches the cluster could run code on it",
            found="file_mounts without the token's file" if mounts else "no file_mounts",
            fix=f"add the line {TOKEN}: {TOKEN} to file_mounts",
        )


def _starts(file: ClusterFile) -> Iterator[Finding]:
    for key in _STARTS:
        if file.here and key == "worker_start_ray_commands":
            continue
        commands = file.values.get(key)
        if commands is None:
            found = next((command for command in file.resolved.get(key) or [] if _START.search(command)), None)
            yield Finding((key,), f"this key is missing, and Ray's own commands start without {_MODE}", found)
            continue
        starting = [(index, command) for index, command in enumerate(commands) if _START.search(command)]
        if not starting:
            yield Finding((key,), "no command of these starts Ray", fix="add one with ray start")
        for index, command in starting:
            if not _has_mode(command):
                yield Finding(
                    (key, index),
                    "Ray would start without token authentication",
                    found=command.strip(),
                    fix=f"write {_MODE} in front of ray start",
                )
    host = dashboard_host(file)
    heads = file.values.get("head_start_ray_commands") or []
    for index, command in enumerate(heads):
        if host not in _LOOPBACK and _START.search(command) and not _has_mode(command):
            keys: Keys = ("head_start_ray_commands", index)
            what = "the dashboard, which runs the jobs that it is sent, would be open to the network without a token"
            fix = "reach it by ray dashboard, which goes through SSH"
            yield Finding(keys, what, f"--dashboard-host={host}", "--dashboard-host=127.0.0.1", fix)


def _has_mode(command: str) -> bool:
    """Whether the token mode is set before Ray starts."""
    start = _START.search(command)
    return start is not None and _MODE in command[: start.start()]


def _head_starts(file: ClusterFile) -> list[str]:
    return list(file.resolved.get("head_start_ray_commands") or [])


def _world(file: ClusterFile) -> Iterator[Finding]:
    """Ports that a security group of AWS would open to everybody: SSH, which asks for a key, is the only one."""
    rules = (file.values["provider"].get("security_group") or {}).get("IpPermissions") or []
    for index, rule in enumerate(rules):
        ranges = [each.get("CidrIp") for each in rule.get("IpRanges") or []]
        ranges += [each.get("CidrIpv6") for each in rule.get("Ipv6Ranges") or []]
        ports = (rule.get("FromPort"), rule.get("ToPort"))
        if any(each in _WORLD for each in ranges) and ports != (22, 22):
            yield Finding(
                ("provider", "security_group", "IpPermissions", index),
                "ports of the cluster would be open to the world",
                found=f"ports {ports[0]} to {ports[1]} from {', '.join(str(each) for each in ranges)}",
                valid="port 22 alone, by key",
                fix="leave the rule out; ray dashboard reaches the dashboard through SSH",
            )


def _setup(file: ClusterFile) -> Iterator[Finding]:
    """Where a file does not say what its nodes install, Ray installs what is the newest of itself on that day."""
    written, filled_in = file.values.get("setup_commands"), file.resolved.get("setup_commands") or []
    found = next((command for command in filled_in if written is None and "install" in command), None)
    if found is not None:
        what = "this key is missing, and Ray would install a version of its own choice"
        fix = "install raycls and what it needs in fixed versions, as cluster/setup.sh does"
        yield Finding(("setup_commands",), what, found, fix=fix)


def _market(file: ClusterFile) -> Iterator[Finding]:
    """A node that may be taken back says so by Ray's own label, and the head is none."""
    for node in file.nodes:
        keys: Keys = ("available_node_types", node.name)
        if node.head and node.spot:
            yield Finding(
                (*keys, "node_config"),
                "the head would be a machine that its owner may take back",
                found=node.machine or None,
                fix="use an on-demand machine: the driver and the GCS run on the head",
            )
        elif node.spot and node.labels.get(MARKET) != "spot":
            what = "a machine that its owner may take back does not say so"
            fix = f"add labels: {{{MARKET}: spot}}; what must not be lost stays off such nodes"
            yield Finding((*keys, "labels"), what, node.labels.get(MARKET), fix=fix)
        elif not node.spot and node.labels.get(MARKET) == "spot":
            what = "the label says spot, the machine is none"
            yield Finding((*keys, "labels", MARKET), what, "spot", "on-demand")
