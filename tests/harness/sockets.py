"""Whom a Python process talks to: an audit hook that notes every connection and every name that is looked up."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

AUDIT = """
import os, sys

def hook(event, args):
    if event in ("socket.connect", "socket.sendto"):
        found = args[1]
    elif event == "socket.getaddrinfo":
        found = args[:2]
    else:
        return
    with open(os.environ["AUDITED"], "a") as file:
        file.write(repr(found) + "\\n")

if "raycls.run.trackers.process" in sys.orig_argv:
    sys.addaudithook(hook)
"""
"""A `sitecustomize.py`; the environment variable AUDITED names the file that it writes."""


def connections(file: Path) -> set[Any]:
    """Every address that was connected to or looked up: `(host, port)`, or the path of a socket file."""
    return {ast.literal_eval(line) for line in file.read_text().splitlines()}
