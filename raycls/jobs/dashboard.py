"""The way to a cluster's job server: one that wants a token gets it, an open one is refused unless it is local."""

from __future__ import annotations

import ipaddress
import logging
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests
from ray.dashboard.modules.job.pydantic_models import JobDetails
from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from raycls.cluster.environment import changed
from raycls.cluster.token import Token, find_token
from raycls.errors import ConfigError, LaunchError

__all__ = ["Dashboard", "address_of", "connect"]

_SECONDS = 60.0
"""How long one request may be without an answer; an upload is many packets."""
_FIRST_SECONDS = 15.0
_JOB = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_CHATTY = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
    "ray._private.runtime_env.working_dir",
)
"""Loggers of Ray that tell of each step."""
_environment = threading.Lock()


@dataclass(frozen=True)
class Dashboard:
    """A connection to the job server of a cluster."""

    address: str
    """`http://host:port`, without a slash at its end."""
    client: JobSubmissionClient
    headers: dict[str, str]
    """What every request carries: the token. Never to be shown."""
    ray_version: str

    def info(self, job: str) -> JobDetails:
        """What is known of a job. ConfigError where there is none of that name, LaunchError where nobody answers."""
        if not _JOB.fullmatch(job):
            raise self._unknown(job, [])
        with self.talking():
            try:
                return self.client.get_job_info(job)
            except RuntimeError as error:
                if "status code 404" not in str(error):
                    raise
            names = [one.submission_id for one in self.client.list_jobs() if one.submission_id]
        raise self._unknown(job, names)

    @contextmanager
    def talking(self) -> Iterator[None]:
        """What can go wrong in a request, as errors for the user."""
        try:
            yield
        except AuthenticationError as error:
            raise LaunchError(
                "the cluster does not accept the token any more",
                where=self.address,
                fix="the cluster was started anew with another token: use that one",
            ) from error
        except (requests.RequestException, OSError) as error:
            raise unreachable(self.address, error) from error
        except RuntimeError as error:
            found = [line.strip() for line in str(error).splitlines() if line.strip(" .")]  # Ray ends it with a point
            raise LaunchError(
                "the cluster refused a request",
                where=self.address,
                found="; ".join([found[0], *found[-1:]]) if len(found) > 1 else str(error),
                fix="the dashboard's logs on the head node say why",
            ) from error

    def _unknown(self, job: str, names: list[str]) -> ConfigError:
        return ConfigError(
            f"the cluster knows no job {job}",
            where=self.address,
            valid=", ".join(names[-10:]) or "it has no jobs; a cluster whose head was lost has forgotten them",
            fix="raycls status lists the jobs",
        )


def address_of(given: str | None) -> str:
    """The dashboard's URL: `given`, else `RAY_API_SERVER_ADDRESS`, else `RAY_ADDRESS`. ConfigError where it is none."""
    variable = next((name for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS") if os.environ.get(name)), "")
    origin, address = ("--address", given) if given else (variable, os.environ.get(variable, ""))
    valid = "http://HEAD:8265 or https://...: the dashboard of the head node, not its port 6379"
    if not address:
        raise ConfigError(
            "no cluster is named", where="--address", valid=valid, fix="give --address, or set RAY_API_SERVER_ADDRESS"
        )
    parts = urlsplit(address)
    if "@" in parts.netloc:
        raise ConfigError(
            "an address must not hold credentials", where=origin, fix="leave them out; the token is found by itself"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        host, _, port = re.split(r"[/?]", address.rpartition("://")[2])[0].rpartition(":")
        host, port = (host, port) if port.isdecimal() else (port, "")
        near = f"http://{host or 'HEAD'}:{8265 if port in ('', '6379', '10001') else port}"
        raise ConfigError(
            "this is not the address of a dashboard",
            where=origin,
            found=address,
            valid=valid,
            fix=f"did you mean {near}?",
        )
    return address.rstrip("/")


def connect(address: str, *, insecure: bool, say: Callable[[str], None]) -> Dashboard:
    """Ask what answers at `address`, without the token first, then connect.

    A server that wants no token is not sent one. ConfigError where it is not of this machine and `insecure` is not
    set, and where the token is missing or wrong; LaunchError where no dashboard answers.
    """
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
    found = _ask(address, {})
    headers: dict[str, str] = {}
    if found.status_code in (401, 403):
        token = find_token(say)
        if token is None:
            raise ConfigError(
                "the cluster requires a token, and none was found",
                where=address,
                valid="a token in RAY_AUTH_TOKEN, in the file that RAY_AUTH_TOKEN_PATH names, or in ~/.ray/auth_token",
                fix="copy ~/.ray/auth_token from the head node (`ray get-auth-token` prints it), with mode 0600",
            )
        headers = {"Authorization": f"Bearer {token.value}"}
        found = _ask(address, headers)
        _refuse_wrong(found, address, token)
    elif found.status_code == 200 and not insecure and not _is_loopback(address):
        raise ConfigError(
            "this cluster is open: it answers without a token, so anyone who reaches it can run anything on it",
            where=address,
            fix="start it with RAY_AUTH_MODE=token; or add --insecure-cluster where its network is closed",
        )
    version = _version(found, address)
    return Dashboard(address, _client(address, headers), headers, version)


def unreachable(address: str, error: BaseException) -> LaunchError:
    """The error for a server that does not answer."""
    system = re.search(r"\[Errno [^\]]+\] [^'\")]+", str(error))
    return LaunchError(
        "the cluster cannot be reached",
        where=address,
        found=system[0] if system else f"{type(error).__name__}: no answer that HTTP knows",
        fix="check the address, that the head node runs, and that its dashboard can be reached from here",
    )


class _Client(JobSubmissionClient):
    """Ray's client, which waits for ever for an answer; here every request has its time.

    With `RAY_AUTH_MODE=token` Ray's own would send the token to every server; this one sends the headers it is given.
    """

    def __init__(self, address: str, headers: dict[str, str]) -> None:
        self._given = headers
        super().__init__(address, headers={"Authorization": "", **headers})  # keeps Ray from looking for a token

    def _do_request(self, *words: Any, **more: Any) -> requests.Response:
        self._headers = dict(self._given)
        return super()._do_request(*words, **{"timeout": _SECONDS, "auth": _as_it_is, **more})


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """In the place of a login from a netrc file, which would replace the token."""
    return request


def _client(address: str, headers: dict[str, str]) -> JobSubmissionClient:
    with _environment:  # Ray prefers these variables to what it is told
        try:
            with changed({"RAY_API_SERVER_ADDRESS": address}):
                return _Client(address, headers)
        except (requests.RequestException, OSError) as error:
            raise unreachable(address, error) from error


def _ask(address: str, headers: dict[str, str]) -> requests.Response:
    try:
        return requests.get(
            f"{address}/api/version", headers=headers, auth=_as_it_is, timeout=_FIRST_SECONDS, allow_redirects=False
        )
    except (requests.RequestException, OSError) as error:
        raise unreachable(address, error) from error


def _refuse_wrong(found: requests.Response, address: str, token: Token) -> None:
    if found.status_code in (401, 403):
        raise ConfigError(
            "the cluster refuses the token",
            where=address,
            found=f"the token of {token.origin}",
            fix="use the token of this cluster: `ray get-auth-token` prints it on the head node",
        )


def _version(found: requests.Response, address: str) -> str:
    try:
        return str(found.json()["ray_version"])
    except (ValueError, KeyError, TypeError) as error:
        raise LaunchError(
            "what answers there is not the dashboard of a Ray cluster",
            where=address,
            found=f"HTTP status {found.status_code}",
            fix="give the address of the dashboard, usually http://HEAD:8265",
        ) from error


def _is_loopback(address: str) -> bool:
    """Whether `address` is this machine by addresses that no other one can use."""
    try:
        found = socket.getaddrinfo(urlsplit(address).hostname or "", None)
        return bool(found) and all(ipaddress.ip_address(str(entry[4][0])).is_loopback for entry in found)
    except (OSError, ValueError):
        return False
