"""The machine of somebody who starts a cluster on hosts, and what the hosts have in place of a package index."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from harness.hosts import Host, Hosts

REPOSITORY = Path(__file__).parents[2]
TOKEN = "0123456789abcdef" * 4

_UV = """#!/bin/bash
# In place of uv: hosts reach no package index. It writes down what it is asked, and gives the tests' environment.
echo "$@" >>~/uv.log
if [ "$1" = venv ]; then ln -sfn {environment} "${{@: -1}}"; fi
"""

ENVIRONMENT = {
    "PATH": f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "RAY_raylet_start_wait_time_s": "180",
}
"""What commands on the laptop run with: raycls and ray are installed there."""


def make_node(host: Host) -> None:
    """A bare machine to be: nothing but a shell, and a `uv` that needs no network."""
    home = host.state / "home"
    (home / ".local" / "bin").mkdir(parents=True)
    (home / ".local" / "bin" / "uv").write_text(_UV.format(environment=sys.prefix))
    (home / ".local" / "bin" / "uv").chmod(0o755)
    # a start of Ray may take its time on a machine that runs all hosts at once
    (home / ".bashrc").write_text("export RAY_raylet_start_wait_time_s=180\n")


def make_laptop(hosts: Hosts, number: int) -> Host:
    """A machine with raycls, with the key of the hosts and without a token yet."""
    host = hosts[number]
    shutil.copy(hosts.key, host.state / "home" / ".ssh" / "id_ed25519")
    (host.state / "home" / ".ray").mkdir()
    return host


def write_token(host: Host, mode: int = 0o600) -> None:
    file = host.state / "home" / ".ray" / "auth_token"
    file.write_text(TOKEN)
    file.chmod(mode)
