"""How long a storage that does not answer is tried again, and what its answers mean.

A storage that is away for a moment must not end a run, one that is away for good must not let it wait for ever.
"""

from __future__ import annotations

import errno
import logging
import re
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import pyarrow

__all__ = ["DEADLINE", "Retry", "is_denial", "is_outage"]

DEADLINE = 60.0
"""Seconds after which an operation that the storage does not answer is given up; what runs then may take another."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 4.0
_TROUBLE = frozenset(
    {
        errno.EAGAIN,
        errno.ECONNABORTED,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.EPIPE,
        errno.ETIMEDOUT,
    }
)
_ANSWERS = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)
_DENIALS = re.compile(
    r"ACCESS_DENIED|INVALID_ACCESS_KEY_ID|INVALID_CLIENT_TOKEN_ID|INVALID_SIGNATURE|MISSING_AUTHENTICATION_TOKEN"
    r"|SIGNATURE_DOES_NOT_MATCH|UNRECOGNIZED_CLIENT|PERMISSION_DENIED|UNAUTHENTICATED|HTTP status 40[13]"
    r"|AuthenticationException|OAuth2 access token|AuthorizationFailure|AuthorizationPermissionMismatch"
)
_REFUSALS = re.compile(
    r"NO_SUCH_BUCKET|NO_SUCH_UPLOAD|HTTP status 3\d\d|HTTP status 4(?!08|29)\d\d|INVALID_ARGUMENT|ContainerNotFound"
)
_logger = logging.getLogger("raycls")
_Result = TypeVar("_Result")


def is_denial(error: OSError) -> bool:
    """Whether the storage does not know who asks, or does not let him."""
    return isinstance(error, PermissionError) or _DENIALS.search(str(error)) is not None


def is_outage(error: OSError) -> bool:
    """Whether the storage did not answer, or asked to be asked again: anything else it would answer again."""
    if isinstance(error, _ANSWERS):
        return False
    if error.errno is not None:
        return error.errno in _TROUBLE
    return not is_denial(error) and _REFUSALS.search(str(error)) is None


class Retry:
    """Shared by all that use one storage, from any thread: one outage is told once, whichever thread meets it.

    `say` hears once that the storage is away, and once that it is back. After an outage was given up each operation
    is tried once, until one succeeds: what closes files at the end of a run does not wait for each of them.
    """

    def __init__(self, address: str, deadline: float | None = None) -> None:
        self.say: Callable[[str], None] = _logger.warning
        self._address = address
        self._deadline = deadline
        self._lock = threading.Lock()
        self._away_since: float | None = None
        self._told = False

    def without_retry(self) -> Retry:
        """The same storage for a caller that does not wait: each operation is tried once."""
        return Retry(self._address, 0.0)

    def run(self, operation: Callable[[], _Result]) -> _Result:
        """The result of `operation`, which may be called several times. Raises OSError, what it did last."""
        began, pause = None, _FIRST_PAUSE
        while True:
            try:
                result = _with_os_errors(operation)
            except OSError as error:
                if not is_outage(error):
                    self._back()
                    raise
                began = time.monotonic() if began is None else began
                left = self._away(began)
                if left <= 0:
                    raise
                time.sleep(min(pause, left))
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                self._back()
                return result

    def _away(self, began: float) -> float:
        """Note that an operation that failed first at `began` has failed; the seconds for which it is tried again."""
        deadline = DEADLINE if self._deadline is None else self._deadline
        with self._lock:
            since = self._away_since = began if self._away_since is None else self._away_since
            left = min(since, began) + deadline - time.monotonic()
            tell = left > 0 and not self._told
            self._told = self._told or tell
        if tell:
            self.say(f"warning: {self._address} does not answer: it is tried again for up to {deadline:.0f} s")
        return left

    def _back(self) -> None:
        with self._lock:
            since, told = self._away_since, self._told
            self._away_since, self._told = None, False
        if told and since is not None:
            self.say(f"{self._address} answers again, after {time.monotonic() - since:.0f} s")


def _with_os_errors(operation: Callable[[], _Result]) -> _Result:
    """Errors of pyarrow that are no OSError as OSError: with a number where asking again is of no use."""
    try:
        return operation()
    except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError) as error:
        raise OSError(errno.EINVAL, str(error)) from error
    except pyarrow.ArrowException as error:
        if isinstance(error, OSError):
            raise
        raise OSError(str(error)) from error
