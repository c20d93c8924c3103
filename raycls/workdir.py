"""The folder that plug-ins are below, and that relative paths start from, in every process of a command."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["set_workdir", "workdir"]

_VARIABLE = "RAYCLS_WORKDIR"


def workdir() -> Path:
    """The working directory of the command; a worker of a cluster has another one of its own."""
    return Path(os.environ.get(_VARIABLE) or os.getcwd())


def set_workdir(folder: str) -> None:
    """Let `workdir` be `folder`, in this process and in those that it starts."""
    os.environ[_VARIABLE] = folder
