"""Errors a user is meant to read: what is wrong, where, what was found, what is valid, what to do.

Each kind has the exit code of the command that meets it. Every one survives pickling, because errors
cross processes: a worker raises it, the driver prints it.
"""

from __future__ import annotations

import os
from typing import ClassVar

__all__ = [
    "EXIT_DATA",
    "EXIT_DONE",
    "EXIT_FAILED",
    "EXIT_STOPPED",
    "EXIT_USAGE",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "LaunchError",
    "ModelError",
    "OutageError",
    "RayclsError",
    "TrainError",
    "kind_and_line",
    "one_line",
]

EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_DATA, EXIT_STOPPED = 0, 1, 2, 3, 4


class RayclsError(Exception):
    """One block for the user. `str(error)` is that block, without a traceback.

    `what` is the sentence; `where`, `found`, `valid` and `fix` are optional lines under it.
    """

    exit_code: ClassVar[int] = EXIT_FAILED

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        found: str | None = None,
        valid: str | None = None,
        fix: str | None = None,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.found = found
        self.valid = valid
        self.fix = fix

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.to_dict()))

    def to_dict(self) -> dict[str, str | None]:
        """The error as plain JSON, for channels that carry no objects."""
        return {key: getattr(self, key) for key in ("what", "where", "found", "valid", "fix")}

    def __str__(self) -> str:
        lines = [self.what]
        for label in ("where", "found", "valid", "fix"):
            value = getattr(self, label)
            if value is not None:
                lines.append(f"  {label + ':':<7}{value}")
        return "\n".join(lines)


class ConfigError(RayclsError):
    """The config or the command line is wrong. Several errors come as one error, see `problems`."""

    exit_code = EXIT_USAGE


class DataError(RayclsError):
    """The data cannot be used as it is."""

    exit_code = EXIT_DATA


class OutageError(RayclsError):
    """The data cannot be read now: what holds it does not answer. No sample is at fault, and the run can resume."""

    exit_code = EXIT_STOPPED


class ModelError(RayclsError):
    """The model cannot be built, or its weights cannot be loaded."""

    exit_code = EXIT_USAGE


class TrainError(RayclsError):
    """The training itself failed, for example by a loss that is not finite."""


class CheckpointError(RayclsError):
    """A checkpoint or the run folder cannot be written or read."""


class LaunchError(RayclsError):
    """The run could not be started or kept alive on the machines that are there."""


_KINDS: dict[str, type[RayclsError]] = {
    kind.__name__: kind
    for kind in (
        RayclsError,
        ConfigError,
        DataError,
        OutageError,
        ModelError,
        TrainError,
        CheckpointError,
        LaunchError,
    )
}


def to_json(error: RayclsError) -> dict[str, object]:
    """`error` as a JSON object; `from_json` gives it back."""
    # A kind that is defined elsewhere travels as the nearest one of this module: the exit code stays.
    kind = next(kind.__name__ for kind in type(error).__mro__ if kind.__name__ in _KINDS)
    number = error.__cause__.errno if isinstance(error.__cause__, OSError) else None
    return {"kind": kind, **error.to_dict(), **({"errno": number} if number else {})}


def from_json(data: dict[str, object]) -> RayclsError:
    """The error that `to_json` wrote; an unknown kind comes back as `RayclsError`."""
    fields = {key: value for key, value in data.items() if key not in ("kind", "errno")}
    error = _rebuild(_KINDS.get(str(data.get("kind")), RayclsError), fields)  # type: ignore[arg-type]
    if isinstance(number := data.get("errno"), int):  # whether it was a full disk decides what a search does
        error.__cause__ = OSError(number, os.strerror(number))
    return error


def kind_and_line(error: BaseException) -> str:
    """The kind of an error and the first line that it says: `KeyError: 'width'`."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def one_line(error: BaseException) -> str:
    """The last line that an error says, where libraries tell what it is; its kind where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__


def _rebuild(kind: type[RayclsError], fields: dict[str, str | None]) -> RayclsError:
    rest = {key: value for key, value in fields.items() if key != "what"}
    return kind(fields.get("what") or "", **rest)
