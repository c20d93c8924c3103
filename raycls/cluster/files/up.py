"""Start and end the cluster of a file with Ray's own `ray up` and `ray down`, after saying what it will be."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from raycls.cluster.files.check import GROWTH, TOKEN, dashboard_host, tells_growth
from raycls.cluster.files.read import MARKET, ClusterFile, Finding, NodeType, located
from raycls.cluster.private import marked
from raycls.config.errors import ConfigProblemsError
from raycls.config.errors import Path as Keys
from raycls.config.paths import expand
from raycls.config.write import word
from raycls.errors import ConfigError, LaunchError
from raycls.progress import progress

__all__ = ["down", "plan_lines", "ready", "up"]

_MARK = "RAYCLS_CLUSTER"
"""In the environment of a cluster of this machine, so that `down` ends that one and no other Ray."""
_BLANKS = re.compile(r"FILL_IN|\b192\.0\.2\.\d+\b")
"""What stands for a value of the user's own; 192.0.2.* are addresses of nobody (RFC 5737)."""
_SDK = {
    "aws": {"boto3": "boto3"},
    "gcp": {"googleapiclient": "google-api-python-client"},
    "azure": {
        "azure.common": "azure-common",
        "azure.core": "azure-core",
        "azure.identity": "azure-identity",
        "azure.mgmt.compute": "azure-mgmt-compute",
        "azure.mgmt.network": "azure-mgmt-network",
        "azure.mgmt.resource": "azure-mgmt-resource",
    },
}
"""What Ray's provider of a cloud imports, and the packages that bring it."""
_SECONDS_TO_END = 30.0


def up(file: ClusterFile) -> int:
    """Start the cluster, or bring it to what the file says; the exit code of `ray up`. Call `ready` before."""
    if not file.here:
        return subprocess.run([*_ray("up"), "--yes", str(file.path)], env=_environment(file), check=False).returncode
    if _own_processes(file):
        raise LaunchError(
            "this cluster runs already", where=str(file.path), fix=f"raycls cluster down {word(str(file.path))}"
        )
    bootstrap = _bootstrap(file)
    bootstrap.parent.mkdir(mode=0o700, exist_ok=True)
    bootstrap.write_text(json.dumps(file.resolved, indent=1), encoding="utf-8")
    for command in file.resolved["head_start_ray_commands"]:
        # The file's own words, which a user is about to run: what `ray up` does by SSH on other machines.
        done = subprocess.run(["/bin/bash", "-c", command], env=_environment(file), check=False)
        if done.returncode:
            return done.returncode
    return 0


def down(file: ClusterFile) -> int:
    """End the cluster and give its machines back; the exit code of `ray down`."""
    if not file.here:
        _stop_workers(file)
        return subprocess.run([*_ray("down"), "--yes", str(file.path)], env=_environment(file), check=False).returncode
    end = time.monotonic() + _SECONDS_TO_END
    number = signal.SIGTERM
    while own := _own_processes(file):
        progress("ending the cluster", len(own), unit="processes left")
        for process in own:
            with suppress(ProcessLookupError):
                os.kill(process, number)
        time.sleep(0.5)
        number = signal.SIGTERM if time.monotonic() < end else signal.SIGKILL
    _bootstrap(file).unlink(missing_ok=True)
    return 0


def _stop_workers(file: ClusterFile) -> None:
    """Stop Ray on machines of one's own, from the head, which has the key. `ray down` stops the head alone: workers
    would notice after a minute, and some of Ray's processes there would stay for good."""
    workers = file.values["provider"].get("worker_ips")
    if file.provider != "local" or not workers:
        return
    ssh = "ssh -tt -i ~/ray_bootstrap_key.pem -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
    ssh += " -o IdentitiesOnly=yes -o ConnectTimeout=20 -o LogLevel=ERROR"
    stop = shlex.quote("bash --login -i -c 'ray stop'")
    user = shlex.quote(str(file.values["auth"]["ssh_user"]))
    commands = [f"{ssh} {user}@{shlex.quote(str(worker))} {stop}" for worker in workers]
    words = [*_ray("exec"), str(file.path), "; ".join(commands)]
    if subprocess.run(words, env=_environment(file), check=False).returncode:
        print("warning: not every worker could be asked to stop; those leave a minute after the head", file=sys.stderr)


def ready(file: ClusterFile) -> None:
    """Raise ConfigError where something is missing here that `up` needs: addresses, files, the token, a package."""
    findings = [*_blanks(file.values, ()), *_absent(file)]
    problems = located(file.document, str(file.path), findings)
    if problems:
        raise ConfigProblemsError(str(file.path), problems)
    _check_token(Path(TOKEN).expanduser())
    missing = [module for module in _SDK.get(file.provider, {}) if not _installed(module)]
    if missing:
        names = " ".join(_SDK[file.provider][module] for module in missing)
        raise ConfigError(
            f"the provider {file.provider} needs packages that are not installed",
            where=f"{file.path}: provider.type",
            found=f"no {', '.join(missing)}",
            fix="pip install 'raycls[aws]'" if file.provider == "aws" else f"pip install {names}",
        )


def plan_lines(file: ClusterFile) -> list[str]:
    """What the cluster will be: machines at most, what they cost by, what is open. Nothing is asked of anybody."""
    provider = file.values["provider"]
    where = provider.get("region") or provider.get("location") or provider.get("head_ip")
    rows = [
        (
            "cluster",
            f"{file.values['cluster_name']} ({', '.join(str(word) for word in (file.provider, where) if word)})",
        )
    ]
    rows += [(node.name, _machine_text(node)) for node in file.nodes]
    rows.append(("at most", _most_text(file)))
    if file.provider != "local":
        minutes = file.resolved.get("idle_timeout_minutes", 5)
        rows.append(("idle", f"a worker that had no work for {minutes:g} minutes is given back"))
    if not tells_growth(file):
        text = (
            "the cluster is not told how far it may grow: scale.device must be set, and what is too much is waited for"
        )
        rows.append(("warning", f"{text}; end head_start_ray_commands with {GROWTH} FILE as in cluster/"))
    rows.append(("token", "asked for by every port of Ray; " + ("this user's" if file.here else "goes to every node")))
    rows.append(("open", _open_text(file)))
    width = max(len(name) for name, _ in rows) + 2
    return [f"{name:<{width}}{text}" for name, text in rows]


def _machine_text(node: NodeType) -> str:
    number = f"{node.min_count}" if node.min_count == node.max_count else f"{node.min_count} to {node.max_count}"
    market = "spot" if node.spot else node.labels.get(MARKET, "")
    has = ", ".join(f"{count} {name}" for name, count in node.resources.items() if name in ("CPU", "GPU") and count)
    words = [f"{number} x {node.machine}" if node.machine else number, has and f"{has} each", market]
    return ", ".join(word for word in words if word) + (" (the head)" if node.head and node.name != "head" else "")


def _most_text(file: ClusterFile) -> str:
    """The largest bill: as many nodes as may run at once, the ones with most GPUs first."""
    cap = file.resolved["max_workers"]
    workers = [node for node in file.nodes if not node.head]
    nodes = min(cap, sum(node.max_count for node in workers))
    left, gpus = cap, 0
    for node in sorted(workers, key=lambda each: -each.resources.get("GPU", 0)):
        taken = min(left, node.max_count)
        left, gpus = left - taken, gpus + taken * node.resources.get("GPU", 0)
    head = sum(node.resources.get("GPU", 0) for node in file.nodes if node.head)
    spot = min(cap, sum(node.max_count for node in workers if node.spot))
    always = 1 + sum(node.min_count for node in workers)
    text = f"{nodes + 1} nodes" + (f", {spot} of them spot" if spot else "")
    if file.provider != "local":
        text += f", {gpus + head} GPUs"
    return f"{text}; {always} of them always" if file.provider != "local" else text


def _open_text(file: ClusterFile) -> str:
    host = dashboard_host(file)
    if file.here:
        return f"nothing outside this machine; the dashboard is http://{host}:8265"
    loopback = host in ("127.0.0.1", "localhost", "::1")
    dashboard = "the dashboard on the head's loopback (ray dashboard)" if loopback else f"the dashboard on {host}"
    ports = {
        "aws": "SSH to the world, by key; Ray's ports between the nodes",
        "azure": "SSH to the world, by key; Ray's ports between the nodes",
        "gcp": "what the firewall of the network lets in",
        "local": "Ray's ports on the machines' network",
    }
    return f"{ports.get(file.provider, 'as the provider has it')}; {dashboard}"


def _ray(word: str) -> list[str]:
    """Ray's command line of this environment, whatever else is on the PATH."""
    return [sys.executable, "-c", "from ray.scripts.scripts import main; main()", word]


def _environment(file: ClusterFile) -> dict[str, str]:
    given = {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
    if file.provider == "local":
        given["RAY_UP_enable_autoscaler_v2"] = "0"  # with the newer one, workers of a fixed address were left out
    if file.here:
        # Without SPT_NOENV a process of Ray's that renames itself loses the mark.
        given |= {_MARK: str(file.values["cluster_name"]), "SPT_NOENV": "1", "RAY_FAKE_CLUSTER": "1"}
        given["RAYCLS_CLUSTER_FILE"] = str(_bootstrap(file))
        given["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {**os.environ, **given}


def _bootstrap(file: ClusterFile) -> Path:
    """What the autoscaler of a cluster of this machine reads as long as it runs: the file as Ray fills it in."""
    return Path.home() / ".raycls" / (re.sub(r"[^\w-]", "_", str(file.values["cluster_name"])) + ".json")


def _own_processes(file: ClusterFile) -> list[int]:
    """The processes that `up` started on this machine for this cluster, and theirs."""
    return marked(f"{_MARK}={file.values['cluster_name']}")


def _blanks(value: Any, keys: Keys) -> Iterator[Finding]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _blanks(inner, (*keys, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _blanks(inner, (*keys, index))
    elif isinstance(value, str) and _BLANKS.search(value):
        yield Finding(keys, "this is still to be filled in", found=value, fix="write what is yours")


def _absent(file: ClusterFile) -> Iterator[Finding]:
    """Local files that the nodes are to get, or that open them, and that are not here."""
    for remote, local in (file.values.get("file_mounts") or {}).items():
        if not Path(expand(str(local))).exists() and str(local) != TOKEN:
            fix = f"run the command where it is; paths count from {Path.cwd()}"
            yield Finding(("file_mounts", remote), "there is no such file or folder here", str(local), fix=fix)
    key = (file.values.get("auth") or {}).get("ssh_private_key")
    if key and not Path(expand(str(key))).is_file():
        yield Finding(("auth", "ssh_private_key"), "there is no such file here", str(key), fix="name the private key")


def _check_token(path: Path) -> None:
    make = "ray get-auth-token --generate >/dev/null"
    try:
        mode, text = stat.S_IMODE(path.stat().st_mode), path.read_text(encoding="utf-8").strip()
    except OSError as error:
        fix = f"{make} && chmod 600 {TOKEN}"
        raise ConfigError(
            "there is no token for the cluster", where=str(path), found=error.strerror, fix=fix
        ) from error
    if not text:
        raise ConfigError("the token is empty", where=str(path), fix=f"rm {TOKEN} && {make} && chmod 600 {TOKEN}")
    if mode & 0o077:
        raise ConfigError(
            "other users of this machine can read the token, and use the cluster with it",
            where=str(path),
            found=f"mode {mode:04o}",
            valid="mode 0600",
            fix=f"chmod 600 {TOKEN}",
        )


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # its parent is missing
        return False
