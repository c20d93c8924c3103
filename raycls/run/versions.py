"""The packages that decide what a run is, and how two machines differ in them. Imports none of them."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

__all__ = ["PACKAGES", "differences", "environment", "git_commit", "installed"]

PACKAGES = ("torch", "torchvision", "ray", "numpy", "pillow", "pyarrow")


def installed() -> dict[str, str]:
    """Name to version of Python, raycls and `PACKAGES` as they are installed here; `missing` where one is not."""
    try:
        from raycls import __version__ as own  # here: the doctor sends this to nodes where raycls is missing
    except ImportError:
        own = "missing"
    return {"python": sys.version.split()[0], "raycls": own, **{name: _version(name) for name in PACKAGES}}


def differences(there: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    """`torch 2.15.0 (here 2.14.1)` for each package of both that differs: `there` is told first.

    The patch level of Python and the build of a package (`+cu126`) are the business of each machine.
    """
    common = [name for name in here if name in there]
    return [
        f"{name} {there[name]} (here {here[name]})"
        for name in common
        if _compared(name, there[name]) != _compared(name, here[name])
    ]


@cache
def environment() -> dict[str, Any]:
    """What `env.json` says of this installation; looked up once per process."""
    found = installed()
    return {
        "raycls": found["raycls"],
        "python": found["python"],
        "versions": {name: found[name] for name in PACKAGES},
        "platform": platform.platform(),
    }


@cache
def git_commit(directory: str) -> str | None:
    """The commit of the working directory, with `+` where files differ from it; asked once per process."""
    git = shutil.which("git")
    if git is None or not os.path.isdir(os.path.join(directory, ".git")):
        return None
    start = [git, "-C", directory]
    commands = ([*start, "rev-parse", "HEAD"], [*start, "status", "--porcelain", "--untracked-files=no"])
    outputs = [subprocess.run(command, capture_output=True, text=True, check=False) for command in commands]
    if outputs[0].returncode:
        return None
    return outputs[0].stdout.strip() + ("+" if outputs[1].stdout.strip() else "")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def _compared(name: str, found: str) -> str:
    public = found.partition("+")[0]
    return ".".join(public.split(".")[:2]) if name == "python" else public
