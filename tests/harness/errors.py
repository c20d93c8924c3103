"""What a test asserts of an error: its kind and its facts, so that words may improve without it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from raycls.errors import RayclsError

__all__ = ["differences", "raised"]

Fact = str | re.Pattern[str] | None
"""The whole text of a line of the error, a pattern of what it holds, or None where the line is not printed."""


@contextmanager
def raised(kind: type[RayclsError], **facts: Fact) -> Iterator[pytest.ExceptionInfo[RayclsError]]:
    """The body raises an error of exactly this kind, whose `what`, `where`, `found`, `valid` and `fix` are `facts`."""
    with pytest.raises(kind) as caught:
        yield caught
    assert type(caught.value) is kind, caught.value
    told = caught.value.to_dict()
    assert differences(told, facts) == {}, caught.value


def differences(told: Mapping[str, str | None], facts: Mapping[str, Fact]) -> dict[str, tuple[str | None, Fact]]:
    """Each fact that is not told: what is, and what is expected."""
    return {name: (told[name], fact) for name, fact in facts.items() if not _holds(told[name], fact)}


def _holds(text: str | None, fact: Fact) -> bool:
    if isinstance(fact, re.Pattern):
        return text is not None and fact.search(text) is not None
    return text == fact
