"""Patterns that leave out exactly the files they were made for."""

from __future__ import annotations

from pathlib import Path

import pytest

from raycls.data.ignore import ignorer, pattern_of, patterns_of, read_patterns, write_patterns
from raycls.errors import DataError

NAMES = [
    "a/1.jpg",
    "a/[1].jpg",
    "a/*.jpg",
    "a/?.jpg",
    "a/!.jpg",
    "b/a/1.jpg",
    "1.jpg",
    "b/1.jpg",
    "#c.jpg",
    "[a]/1.jpg",
]


@pytest.mark.parametrize("key", NAMES)
def test_the_pattern_of_a_sample_matches_it_alone(key: str) -> None:
    assert list(filter(ignorer([pattern_of(key), "*.txt"]), NAMES)) == [key]


@pytest.mark.parametrize(
    ("pattern", "matched"),
    [
        ("1.jpg", ["a/1.jpg", "b/a/1.jpg", "1.jpg", "b/1.jpg", "[a]/1.jpg"]),
        ("/1.jpg", ["1.jpg"]),
        ("a/1.*", ["a/1.jpg"]),
        ("[!a]*1.jpg", ["b/a/1.jpg", "b/1.jpg", "[a]/1.jpg"]),
    ],
)
def test_a_name_a_path_or_the_whole_path(pattern: str, matched: list[str]) -> None:
    assert list(filter(ignorer([pattern]), NAMES)) == matched


def test_a_list_is_read_as_it_was_written(tmp_path: Path) -> None:
    odd = [
        pattern_of(name) for name in (*NAMES, '"q/1.jpg', "#x/1.jpg", "line\nbreak/1.jpg", "\udcff/1.jpg", " a/1.jpg ")
    ]
    file = tmp_path / "bad.txt"
    file.write_text(write_patterns(odd, "four odd names") + "\n# a comment\n")
    assert read_patterns(str(file)) == tuple(odd)
    assert patterns_of("*.txt", str(file)) == ("*.txt", *odd)
    assert patterns_of(["*.txt", "x"]) == ("*.txt", "x")


def test_a_list_that_cannot_be_read_says_where(tmp_path: Path) -> None:
    with pytest.raises(DataError) as missing:
        read_patterns(str(tmp_path / "none.txt"))
    assert missing.value.where == str(tmp_path / "none.txt")
    (tmp_path / "bad.txt").write_text('a/1.jpg\n"half\n')
    with pytest.raises(DataError) as half:
        read_patterns(str(tmp_path / "bad.txt"))
    assert half.value.where == f"{tmp_path / 'bad.txt'}:2"
