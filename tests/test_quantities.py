"""Counts in words."""

from __future__ import annotations

import pytest

from raycls.quantities import bytes_text, first_names


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1_048_576, "1.0 MiB"),
        (46_830_571, "44.7 MiB"),
        (3 * 2**30, "3.0 GiB"),
    ],
)
def test_bytes_in_the_largest_unit_that_they_fill(count: int, text: str) -> None:
    assert bytes_text(count) == text


def test_the_first_names() -> None:
    assert first_names([]) == ""
    assert first_names(["a", "b"]) == "a, b"
    assert first_names(list("abcde")) == "a, b, c, d, e"
    assert first_names(list("abcdefg")) == "a, b, c, d, e and 2 more"
    assert first_names(list("abcde"), 1_205) == "a, b, c, d, e and 1,200 more"
