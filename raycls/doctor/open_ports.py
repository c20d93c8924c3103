"""Who may talk to a Ray: asked from a process of its own, without the token that this one has."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.error
import urllib.request

from raycls.cluster.token import token_file

__all__ = ["hanging", "jobs_without_token", "reach_without_token", "token_source"]

_PROGRAM = """
import sys
from ray._raylet import GcsClient
from ray.exceptions import AuthenticationError
try:
    GcsClient(address=sys.argv[1]).get_all_node_info(timeout=5)
except AuthenticationError:
    print("refused")
else:
    print("open")
"""
_JOINING = """
from raycls.cluster.connection import running_cluster
try:
    with running_cluster():
        print("joined")
except Exception:
    print("raised")
"""


def reach_without_token(address: str, seconds: float) -> str:
    """`open` or `refused`: what the Ray at `address` (host:port) says to someone without a token; else why not."""
    secret = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE", "RAY_ADDRESS")
    variables = {name: value for name, value in os.environ.items() if name not in secret}
    variables["RAY_AUTH_MODE"] = "disabled"
    return _said([_PROGRAM, address], variables, seconds, ("open", "refused"), address)


def hanging(address: str, seconds: float) -> str:
    """Why a process that joins the Ray at `address` would wait for ever, or be ended by Ray; empty where neither.

    An error that Ray raises is none of the two.
    """
    answer = _said([_JOINING], {**os.environ, "RAY_ADDRESS": address}, seconds, ("joined", "raised"), address)
    return "" if answer in ("joined", "raised") else answer


def _said(program: list[str], variables: dict[str, str], seconds: float, answers: tuple[str, ...], address: str) -> str:
    """The one of `answers` that a process of its own prints; else why there is none."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", *program],
            env=variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"{address} does not answer within {seconds:g} s"
    lines = done.stdout.split()
    if lines and lines[-1] in answers:
        return lines[-1]
    said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return f"{address} cannot be used: {said[-1][:300] if said else 'no reason given'}"


def jobs_without_token(url: str, seconds: float) -> str:
    """`open` or `refused`: what the dashboard at `url` says to someone without a token who asks for jobs."""
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/api/jobs/", timeout=seconds):  # noqa: S310 - http, see caller
            return "open"
    except urllib.error.HTTPError as error:
        return "refused" if error.code in (401, 403) else f"the dashboard answers {error.code}"
    except (OSError, ValueError) as error:
        return f"the dashboard cannot be reached ({getattr(error, 'reason', error)})"


def token_source() -> tuple[str, int | None]:
    """Where this process has its token from, in the order Ray looks, and the permissions of that file."""
    file = token_file()
    if file is None:
        return "RAY_AUTH_TOKEN", None
    try:
        return str(file), file.stat().st_mode & 0o777
    except OSError:
        return "nowhere", None
