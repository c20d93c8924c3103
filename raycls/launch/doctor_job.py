"""The doctor as a job: on a cluster that is known by the address of its dashboard."""

from __future__ import annotations

import logging
import os
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from raycls.errors import LaunchError
from raycls.launch.access import token_source
from raycls.launch.doctor_display import from_json
from raycls.launch.patience import within
from raycls.launch.verdicts import Row

__all__ = ["examine_there"]

_POLL = 1.0
_ANSWER = 30.0
"""Seconds that the dashboard has for one answer."""
_IN_ALL = 1200.0


def examine_there(url: str, words: Sequence[str], *, directory: str | None = None) -> list[Row]:
    """Run `raycls doctor --json words` as a job through the dashboard at `url`, and return its rows.

    `directory` goes along as the job's working directory, for a config that lies there. Raises LaunchError where the
    dashboard does not answer, refuses, or the job ends without rows.
    """
    from ray.job_submission import JobSubmissionClient

    logging.getLogger("ray").setLevel(logging.ERROR)  # it tells of every upload
    entrypoint = shlex.join(["raycls", "doctor", "--json", *words])
    with _token_mode():
        with _explained(url):
            client = within(_ANSWER, JobSubmissionClient, url)
            options = {"working_dir": directory} if directory else {}
            job = within(10 * _ANSWER, lambda: client.submit_job(entrypoint=entrypoint, runtime_env=options))
        done = False
        try:
            with _explained(url):
                status = _ended(client, job)
                said = within(_ANSWER, client.get_job_logs, job)
            done = True
        finally:
            if not done:
                with suppress(Exception):
                    within(_ANSWER, client.stop_job, job)
    rows = from_json(said)
    if rows is None:
        last = [line for line in said.splitlines() if line.strip()][-3:]
        raise LaunchError(
            "the doctor did not come to an end on the cluster",
            where=f"job {job} at {url}",
            found=f"{status}; {' / '.join(last) or 'no output'}",
            fix="raycls must be installed where Ray was started on the cluster; the job's logs have all of it",
        )
    return rows


def _ended(client: Any, job: str) -> str:
    end = time.monotonic() + _IN_ALL
    while time.monotonic() < end:
        status = within(_ANSWER, client.get_job_status, job)
        if status.is_terminal():
            return str(status.value)
        time.sleep(_POLL)
    raise TimeoutError(f"the job is still under way after {_IN_ALL:g} s")


@contextmanager
def _explained(url: str) -> Iterator[None]:
    from ray.exceptions import RayError

    try:
        yield
    except (OSError, RuntimeError, ValueError, RayError) as error:  # requests' errors and TimeoutError are OSErrors
        said = str(error).strip().splitlines()
        raise LaunchError(
            "the dashboard cannot be used",
            where=url,
            found=said[0] if said else type(error).__name__,
            fix="check the address; a cluster with token authentication needs its token in RAY_AUTH_TOKEN or "
            "RAY_AUTH_TOKEN_PATH; on a machine of the cluster, --address host:port needs no dashboard",
        ) from error


@contextmanager
def _token_mode() -> Iterator[None]:
    """Ray sends a token to an explicit address only in this mode."""
    before = os.environ.get("RAY_AUTH_MODE")
    os.environ["RAY_AUTH_MODE"] = before or ("token" if token_source()[0] != "nowhere" else "disabled")
    try:
        yield
    finally:
        if before is None:
            del os.environ["RAY_AUTH_MODE"]
