"""The doctor as a job: on a cluster that is known by the address of its dashboard."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from raycls.config.write import word
from raycls.doctor.arguments import Given
from raycls.doctor.cluster_rows import Row
from raycls.doctor.display import from_json
from raycls.errors import LaunchError
from raycls.jobs import submission as jobs
from raycls.jobs.dashboard import Dashboard, address_of, connect
from raycls.jobs.follow import Follower
from raycls.jobs.package import refuse_outside
from raycls.session.deadline import within

__all__ = ["dashboard_of", "examine_there"]

_IN_ALL = 1200.0
"""Seconds for the job, from its submission to its end."""
_STOPPING = 10.0
_SHOWN = 3
"""Lines of the log that are shown where there are no rows."""


def dashboard_of(address: str | None) -> str | None:
    """The dashboard through which the doctor goes as a job; None where it joins a Ray, or starts one of its own.

    It is `address` itself where that is a URL. Without one, a Ray that RAY_ADDRESS lets this process join comes first,
    as for `raycls train`, and then what `raycls submit` would take. Raises ConfigError.
    """
    named = address or os.environ.get("RAY_ADDRESS", "")
    if named and not named.lower().startswith(("http://", "https://")):
        return None
    if not named and not os.environ.get("RAY_API_SERVER_ADDRESS"):
        return None
    return address_of(address)


def examine_there(
    url: str, given: Given, *, seconds: float, insecure: bool, say: Callable[[str], None], in_all: float = _IN_ALL
) -> list[Row]:
    """Run `raycls doctor --json` with the words of `given` as a job through the dashboard at `url`; its rows.

    It is sent as `raycls submit` sends a job, and refused where that refuses. The job is stopped where it has not ended
    after `in_all` seconds, or this process is told to end. Raises ConfigError, and LaunchError where the dashboard does
    not answer or the job ends without rows.
    """
    if given.run is not None:
        refuse_outside(given.words[0])
    words = ["doctor", "--json", *given.words, "--timeout", str(seconds)]
    submission = jobs.make_submission("doctor", words, Path(given.directory) if given.directory else None)
    dashboard = connect(url, insecure=insecure, say=say)
    jobs.refuse_other_ray(dashboard, same=False, say=say)
    say(f"{jobs.sending(submission)}: job {submission.name} on {dashboard.address}")
    said: list[str] = []
    follower, ended = Follower(dashboard, submission.name, said.append, say), False
    try:
        jobs.send(dashboard, submission)
        found = within(in_all, follower.run)
        ended = True
    except TimeoutError as error:
        raise _without_rows(dashboard, submission.name, f"it is still under way after {in_all:g} s", said) from error
    finally:
        if not ended:
            follower.closed = True
            with suppress(Exception):
                within(_STOPPING, dashboard.client.stop_job, submission.name)
    rows = from_json("".join(said))
    if rows is None:
        raise _without_rows(dashboard, submission.name, " ".join(map(str.strip, jobs.end_lines(found))), said)
    return rows


def _without_rows(dashboard: Dashboard, job: str, why: str, said: list[str]) -> LaunchError:
    last = [line.strip() for line in "".join(said).splitlines() if line.strip()][-_SHOWN:]
    return LaunchError(
        "the doctor did not come to an end on the cluster",
        where=dashboard.address,
        found=f"{why}; {' / '.join(last) or 'no output'}",
        fix="raycls must be installed where Ray was started on the cluster; "
        f"`raycls logs {word(job)}` prints all it said",
    )
