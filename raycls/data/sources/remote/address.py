"""Addresses of data in an object store, and the connection of this process to the store of one."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from posixpath import normpath
from typing import TYPE_CHECKING
from urllib.parse import unquote

from raycls.config.uri_secrets import has_secret, hidden
from raycls.errors import ConfigError, DataError, OutageError

if TYPE_CHECKING:
    from raycls.run.storage.remote import RemoteFiles  # pyarrow is imported where a store is asked

__all__ = ["Address", "connect", "explained", "is_remote", "listed", "parse", "read"]

_SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss")
_connected: dict[tuple[int, str], RemoteFiles] = {}
"""Stores by process and address: a connection is not for a process that was forked from the one that made it."""


@dataclass(frozen=True)
class Address:
    """A place in an object store. It travels to other processes; credentials are no part of it."""

    scheme: str
    server: str
    """What stands before the first slash: a bucket, or `container@account.dfs.core.windows.net`."""
    path: str
    """The name of an object, or what the names of several begin with; empty for all of them."""
    options: str = ""
    """What stands after the question mark, for `pyarrow.fs`: `endpoint_override=host:9000&scheme=http`."""

    @property
    def store(self) -> str:
        """The address of the whole bucket, with its options."""
        return f"{self.scheme}://{self.server}" + (f"?{self.options}" if self.options else "")

    def __str__(self) -> str:
        return f"{self.scheme}://{self.server}/{self.path}".rstrip("/")

    def at(self, name: str) -> Address:
        """The object `name` below this address; an address stands for itself, with the options of this one where they
        are of one kind of store."""
        if is_remote(name):
            found = _parts(name)
            return found if found.options or found.scheme != self.scheme else replace(found, options=self.options)
        path = f"{self.path}/{name}".lstrip("/") if name else self.path
        return replace(self, path=normpath(path) if ".." in name else path)


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether a path is an address of an object store."""
    scheme, mark, _ = os.fspath(path).partition("://")
    return bool(mark) and scheme.lower() in _SCHEMES


def parse(uri: str, *, where: str) -> Address:
    """The address that an option holds: as in `run.storage`, `%20` in it is a space. ConfigError for one with
    credentials; `where` names the option."""
    refuse_secrets(uri, where=where)
    found = _parts(uri)
    return replace(found, path=unquote(found.path))


def refuse_secrets(uri: str, *, where: str) -> None:
    """ConfigError for an address with credentials."""
    if has_secret(uri):
        raise ConfigError(
            "an address must not hold credentials: it would be shown, and written into the run folder",
            where=where,
            found=hidden(uri),
            fix="leave them to environment variables or a credentials file",
        )


def _parts(uri: str) -> Address:
    scheme, _, rest = uri.partition("://")
    rest, _, options = rest.partition("?")
    server, _, path = rest.partition("/")
    return Address(scheme.lower(), server, path.strip("/"), options)


def connect(address: Address) -> RemoteFiles:
    """The files of the whole store of `address`; one connection for all threads of this process. ConfigError where
    there can be none."""
    from raycls.run.storage.object_storage import open_storage

    name = os.getpid(), address.store
    found = _connected.get(name)
    if found is None:
        refuse_secrets(address.store, where="data.source")
        found = _connected.setdefault(name, open_storage(address.store, where="data.source"))
    return found


def explained(error: OSError, address: Address) -> DataError | OutageError:
    """What it means that something at `address` could not be read. OutageError where the store did not answer."""
    from raycls.run.storage.object_storage import credentials, shown
    from raycls.run.storage.retry import is_denial, is_outage

    found = hidden(" ".join((error.strerror or str(error)).split()))
    if is_denial(error):
        return DataError(
            "the object store does not let this user read: no credentials, wrong ones, or no permission",
            where=str(address),
            found=found,
            fix=f"set {credentials(address.store)} on every machine that reads; "
            f"for public data write {address.scheme}://anonymous@{address.server}",
        )
    if is_outage(error):
        return OutageError(
            "the object store with the data does not answer",
            where=str(address),
            found=f"{shown(address.store)}: {found}",
            fix="rerun the command to resume once it answers; else check the address and its options",
        )
    if isinstance(error, FileNotFoundError):
        return DataError(
            "cannot read a file of the data", where=str(address), found="no such object", fix="restore the object"
        )
    return DataError(
        "the object store refuses this address: its region, bucket or scheme is not what the server expects",
        where=str(address),
        found=f"{shown(address.store)}: {found}",
        fix="correct the bucket, and region=, endpoint_override= and scheme= after the ? of the address",
    )


def read(address: Address) -> bytes:
    """All bytes of an object. A store that does not answer is asked again, as `raycls.run.storage.retry` says, then
    OutageError; DataError for whatever else is wrong."""
    files = connect(address)
    try:
        return files.below(f"{files.base}/{address.path}").read("")
    except OSError as error:
        raise explained(error, address) from error


def listed(address: Address, *, deep: bool) -> dict[str, tuple[int, int]]:
    """Bytes and time of change (in nanoseconds) of each object below an address, by its name there: to any depth where
    `deep`. DataError as `read`."""
    files = connect(address)
    try:
        found = files.below(f"{files.base}/{address.path}".rstrip("/")).files(deep=deep)
    except OSError as error:
        raise explained(error, address) from error
    return {name: (size, changed) for name, size, changed in found or ()}
