"""The packages that decide what a run is, and how two machines differ in them. Imports none of them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

__all__ = ["PACKAGES", "differences", "installed"]

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


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def _compared(name: str, found: str) -> str:
    public = found.partition("+")[0]
    return ".".join(public.split(".")[:2]) if name == "python" else public
