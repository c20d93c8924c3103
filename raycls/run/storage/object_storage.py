"""Opening a storage behind `pyarrow.fs` from its address, and saying what is wrong with one that does not work."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pyarrow
from pyarrow import fs as arrow

from raycls.config.uri_secrets import hidden
from raycls.errors import CheckpointError, ConfigError
from raycls.run.storage.remote import RemoteFiles
from raycls.run.storage.retry import Retry, is_denial, is_outage

__all__ = ["check", "credentials", "open_storage", "shown"]

_ATTEMPTS = 3
_CONNECT_SECONDS, _SILENCE_SECONDS = 5.0, 10.0
"""How long S3 may take to accept a connection, and to send the next byte: pyarrow's own 1 and 3 are short for a busy
server that copies a large object."""
_GCS_SECONDS = 15
"""How long the client of GCS tries one request by itself; its own limit is 15 minutes."""
_SCHEMES = "a local folder, or s3://, gs://, abfs:// or hdfs:// and what belongs after it"
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile in ~/.aws/credentials",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS with the path of a key file, or gcloud auth application-default login",
    "gcs": "GOOGLE_APPLICATION_CREDENTIALS with the path of a key file, or gcloud auth application-default login",
    "abfs": "AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_SECRET, or az login",
    "abfss": "AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_SECRET, or az login",
}


def open_storage(uri: str, *, where: str = "run.storage") -> RemoteFiles:
    """The files under `uri`, which the option `where` names. Raises ConfigError where the address is no good; asks the
    storage for nothing.

    The options of an address are those of `pyarrow.fs`, for example
    `s3://bucket/runs?endpoint_override=host:9000&scheme=http&region=us-east-1`; credentials are not among them. Only
    where S3 has neither `region` nor `endpoint_override`, the region of the bucket is asked for.
    """
    try:
        filesystem, base = arrow.FileSystem.from_uri(uri)
        filesystem = _bounded(filesystem)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise ConfigError(
            "this storage cannot be opened",
            where=where,
            found=hidden(f"{uri} ({error})"),
            valid=_SCHEMES,
            fix="check the address and its options; credentials belong into the environment: "
            + credentials(uri, "see the documentation of pyarrow.fs"),
        ) from error
    return RemoteFiles(filesystem, base, Retry(shown(uri)))


def check(files: RemoteFiles, uri: str) -> None:
    """One question to the storage, so that an error in the address is told in seconds and before anything starts.

    Raises ConfigError for what the address or the credentials must be corrected for, CheckpointError for a storage
    that does not answer.
    """
    without_retry = files.without_retry()
    try:
        there = without_retry.exists("") or without_retry.has_root()
    except OSError as error:
        raise _explained(error, uri) from error
    if not there:
        raise ConfigError(
            "there is no such bucket",
            where="run.storage",
            found=shown(uri),
            fix="make the bucket first, or correct the address; raycls makes no buckets",
        )


def _explained(error: OSError, uri: str) -> ConfigError | CheckpointError:
    found = f"{shown(uri)}: {hidden(str(error))}"
    if is_denial(error):
        return ConfigError(
            "the storage does not let this user in: no credentials, wrong ones, or no permission",
            where="run.storage",
            found=found,
            fix=f"set {credentials(uri)}; a user needs to read, write, list and delete below this address",
        )
    if is_outage(error):
        return CheckpointError(
            "the storage does not answer",
            where=f"run.storage, {shown(uri)}",
            found=hidden(str(error)),
            fix="check the address, its endpoint_override and scheme, and that it can be reached from here; "
            "rerun the command once it answers",
        )
    return ConfigError(
        "the storage refuses this address: its region, bucket or scheme is not what the server expects",
        where="run.storage",
        found=found,
        fix="correct region=, endpoint_override= and scheme= in the address",
    )


def _bounded(filesystem: arrow.FileSystem) -> arrow.FileSystem:
    """The same file system with limits to its own waiting, and with one request for a small file."""
    if isinstance(filesystem, arrow.S3FileSystem):
        return _again(
            filesystem,
            {
                "connect_timeout": _CONNECT_SECONDS,
                "request_timeout": _SILENCE_SECONDS,
                "allow_delayed_open": True,
                "retry_strategy": arrow.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
            },
        )
    if isinstance(filesystem, arrow.GcsFileSystem):
        return _again(filesystem, {"retry_time_limit": timedelta(seconds=_GCS_SECONDS)})
    return filesystem


def _again(filesystem: arrow.FileSystem, changes: dict[str, Any]) -> arrow.FileSystem:
    rebuild: tuple[Callable[[dict[str, Any]], arrow.FileSystem], tuple[dict[str, Any]]]
    rebuild = filesystem.__reduce__()  # type: ignore[assignment]
    make, (options,) = rebuild
    return make({**options, **changes})


def credentials(uri: str, other: str = "the credentials") -> str:
    """Where the credentials for an address come from; `other` for a kind of storage that is not known."""
    return _CREDENTIALS.get(uri.partition("://")[0].lower(), other)


def shown(uri: str) -> str:
    """Bucket and server, for messages."""
    address = re.sub(r"[?#].*", "", hidden(uri)).rstrip("/")
    options = dict(parse_qsl(urlsplit(hidden(uri)).query))
    shown = [f"{name} {options[name]}" for name in ("endpoint_override", "region") if name in options]
    return f"{address} ({', '.join(shown)})" if shown else address
