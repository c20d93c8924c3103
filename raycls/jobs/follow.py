"""The log of a job, followed to its end through connections that break: each character once, in order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import aiohttp
import requests
from ray.dashboard.modules.job.pydantic_models import JobDetails
from ray.exceptions import AuthenticationError

from raycls.config.write import word
from raycls.errors import LaunchError, one_line
from raycls.jobs.dashboard import Dashboard

__all__ = ["Follower"]

_HEARTBEAT = 30.0
"""Seconds between two signs of life of the connection; one that is missing ends it."""
_PAUSE = 1.0
_DEADLINE = 300.0
"""Seconds that a cluster may be silent before following it is given up."""


@dataclass
class Follower:
    """Follows one job. `write` gets the log in pieces, `say` what happens to the connection."""

    dashboard: Dashboard
    job: str
    write: Callable[[str], None]
    say: Callable[[str], None]
    position: int = 0
    """Characters of the log that were written."""
    silent_since: float | None = None
    """Since when nobody answers, in seconds of the monotonic clock."""
    closed: bool = False
    """Set by another thread that waits for `run` no longer: it ends with a LaunchError soon."""

    def run(self) -> JobDetails:
        """Write the log until the job has ended; what is known of it then.

        Raises LaunchError where nobody answers for `_DEADLINE` seconds, or it was `closed`. The server always sends a
        log from its beginning: after a break what was written before is left out.
        """
        while not self.closed:
            broken = asyncio.run(self._stream())
            try:
                found = self.dashboard.client.get_job_info(self.job)
                if found.status.is_terminal():
                    self._write_rest()
                    return found
                self._answered()
            except (requests.RequestException, OSError, RuntimeError, AuthenticationError) as error:
                if isinstance(error, AuthenticationError) or "status code 404" in str(error):
                    raise self._forgotten(error) from error
                if self.silent_since is None:
                    self.silent_since = time.monotonic()
                    self.say(f"the connection to the cluster is lost, trying again: {broken or one_line(error)}")
                elif time.monotonic() - self.silent_since > _DEADLINE:
                    raise self._lost(error) from error
            time.sleep(_PAUSE)
        raise LaunchError("the log of the job is followed no longer", where=self.dashboard.address)

    async def _stream(self) -> str:
        """Write what comes until the connection ends; the reason where it broke."""
        skip = self.position
        try:
            async for text in self._tail():
                if skip >= len(text):
                    skip -= len(text)
                    continue
                self._take(text[skip:])
                skip = 0
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return one_line(error)
        return ""

    async def _tail(self) -> AsyncIterator[str]:
        url = f"{self.dashboard.address}/api/jobs/{self.job}/logs/tail"
        limits = aiohttp.ClientTimeout(total=None, sock_connect=15.0)
        # The environment's proxy, as for every other request. With `trust_env` a netrc file would be heard as well, and
        # aiohttp refuses a login of one beside the token.
        proxy = requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url))
        async with (
            aiohttp.ClientSession(headers=self.dashboard.headers, timeout=limits) as session,
            session.ws_connect(url, heartbeat=_HEARTBEAT, max_msg_size=0, proxy=proxy) as socket,
        ):
            self._answered()
            async for message in socket:
                if message.type == aiohttp.WSMsgType.TEXT:
                    yield message.data
            failed = socket.exception()
            if failed is not None:
                raise ConnectionError(str(failed))

    def _answered(self) -> None:
        if self.silent_since is not None:
            self.say("the cluster answers again")
        self.silent_since = None

    def _write_rest(self) -> None:
        try:
            rest = self.dashboard.client.get_job_logs(self.job)[self.position :]
        except RuntimeError as error:  # the server answers, but the node that has the log does not
            self.say(f"the end of the log cannot be read: {one_line(error)}")
            return
        if rest:
            self._take(rest)

    def _take(self, text: str) -> None:
        self.write(text)
        self.position += len(text)

    def _forgotten(self, error: BaseException) -> LaunchError:
        return LaunchError(
            "the cluster does not know the job any more: its head was started anew",
            where=self.dashboard.address,
            found=one_line(error),
            fix="the same submission resumes the run from its latest checkpoint",
        )

    def _lost(self, error: BaseException) -> LaunchError:
        return LaunchError(
            f"the cluster does not answer any more, for {_DEADLINE / 60:g} minutes now",
            where=self.dashboard.address,
            found=one_line(error),
            fix=f"if it is only the network, `raycls logs {word(self.job)}` continues later; a job whose head node was "
            "lost has ended, and the same submission to a new cluster resumes the run",
        )
