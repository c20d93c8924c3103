from __future__ import annotations

import math
from typing import Any

import pytest

from raycls.config.errors import Place
from raycls.config.yaml_text import parse, parse_value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # chapter 10.3.2 of the YAML 1.2.2 specification
        ("1e-3", 1e-3),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("-.inf", -math.inf),
        ("017", 17),
        ("0o17", 15),
        ("0x1F", 31),
        ("+1", 1),
        ("~", None),
        ("", None),
        ("Null", None),
        ("True", True),
        ("FALSE", False),
        # numbers, booleans or dates in YAML 1.1 only
        ("no", "no"),
        ("yes", "yes"),
        ("On", "On"),
        ("off", "off"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("12:30:00", "12:30:00"),
        ("2001-01-01", "2001-01-01"),
        ("tRUE", "tRUE"),
        ("'1'", "1"),
        ('"true"', "true"),
        ("!!str 1", "1"),
        ("!!float 1", 1.0),
    ],
)
def test_plain_values_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    found = parse(f"key: {text}\n", "a.yaml").values["key"]
    assert found == value
    assert type(found) is type(value)


def test_nan() -> None:
    assert math.isnan(parse("key: .NaN", "a.yaml").values["key"])


@pytest.mark.parametrize("text", ["", "# nothing but a comment\n", "---\n", "~\n"])
def test_an_empty_text_is_an_empty_config(text: str) -> None:
    document = parse(text, "a.yaml")
    assert (document.values, document.problems, document.complete) == ({}, [], True)


def test_every_key_and_item_has_its_line() -> None:
    document = parse("a:\n  b: 1\n  c:\n    - x\n    - {d: 2}\n", "a.yaml")
    assert document.places == {
        ("a",): Place("a.yaml", 1),
        ("a", "b"): Place("a.yaml", 2),
        ("a", "c"): Place("a.yaml", 3),
        ("a", "c", 0): Place("a.yaml", 4),
        ("a", "c", 1): Place("a.yaml", 5),
        ("a", "c", 1, "d"): Place("a.yaml", 5),
    }


def test_duplicate_keys_are_told_with_both_lines_at_any_depth() -> None:
    document = parse("a:\n  lr: 1\n  x: 0\n  lr: 2\nb: 1\nb: 2\n", "a.yaml")
    assert [(m.where, m.path) for m in document.problems] == [("a.yaml:4", "a.lr"), ("a.yaml:6", "b")]
    assert "lines 2 and 4" in document.problems[0].what
    assert "lines 5 and 6" in document.problems[1].what


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a:\n\tb: 1\n", 2, "a tab"),
        ("a: [1, 2\nb: 3\n", 2, "not valid YAML"),
        ("a: 1\n b: 2\n", 2, "not valid YAML"),
        ("a: 'open\n", 2, "not valid YAML"),
        ("a: 1\n---\nb: 2\n", 2, "second document"),
        ("a: *missing\n", 1, "undefined alias"),
        ("a: 1\nb: \x07\n", 2, "U+0007"),
        ('a: "\\UFFFFFFFF"\n', 1, "no character"),
        ("- 1\n- 2\n", 1, "mapping of sections"),
        ("just words\n", 1, "mapping of sections"),
        ("a: " + "[" * 60 + "]" * 60, 1, "levels of nesting"),
    ],
)
def test_a_text_that_is_no_config_is_located(text: str, line: int, words: str) -> None:
    document = parse(text, "a.yaml")
    assert not document.complete
    assert [m.where for m in document.problems] == [f"a.yaml:{line}"]
    assert words in document.problems[0].what


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: !!python/object/apply:os.system [ls]\n", "tags"),
        ("a: !mine 1\n", "tags"),
        ("a: !!timestamp 2001-01-01\n", "tags"),
        ("a: !!int x\n", "does not fit"),
        ("1: x\n", "a key must be"),
        ("[a]: x\n", "a key must be"),
        ("a: &a {x: 1}\nb: {<<: *a}\n", "merge keys"),
        ("a: " + "9" * 5000 + "\n", "100 digits"),
        ('a: "\\0"\n', "NUL"),
        ('a: "\\ud800"\n', "surrogate"),
    ],
)
def test_what_yaml_allows_and_a_config_does_not(text: str, words: str) -> None:
    document = parse(text, "a.yaml")
    assert len(document.problems) == 1
    assert words in document.problems[0].what


def test_anchors_and_aliases_stand_for_their_value() -> None:
    document = parse("a: &x {k: [1, 2]}\nb: *x\n", "a.yaml")
    assert document.values == {"a": {"k": [1, 2]}, "b": {"k": [1, 2]}}
    assert document.values["a"] is not document.values["b"]


def test_alias_bombs_are_refused() -> None:
    lines = ["l0: &l0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 10)]
    document = parse("\n".join(lines), "a.yaml")
    assert not document.complete
    assert "10000 values" in document.problems[0].what
    many = parse("a: &a 1\nb: [" + ", ".join(["*a"] * 101) + "]\n", "a.yaml")
    assert "100 aliases" in many.problems[0].what
    endless = parse("a: &a [*a]\n", "a.yaml")
    assert "no end" in endless.problems[0].what


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 3e-4),
        ("", None),
        ("[1, a]", [1, "a"]),
        ("{a: 1}", {"a": 1}),
        ("a b", "a b"),
        ("s3://bucket/a#b", "s3://bucket/a#b"),
        ("'x # y'", "x # y"),
        ("  7 ", 7),
    ],
)
def test_values_of_overrides(text: str, value: Any) -> None:
    assert parse_value(text) == value


@pytest.mark.parametrize("text", ["a: b", "- a", "[1", "x # y", "# y", "*a", "{a: 1, a: 2}", "!x 1", "a\n---\nb"])
def test_values_that_would_lose_something_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_value(text)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("{a: uniform(0, 1)}", {"a": "uniform(0, 1)"}),
        ("{a: quniform(0, 1, 0.1), b: 3}", {"a": "quniform(0, 1, 0.1)", "b": 3}),
        ("{a: {when: {c: d}, values: choice(8, 16, x)}, b: [f(1, 2)]}", None),
        ("{a: f(1), b: g(2, 3), c: h()}", {"a": "f(1)", "b": "g(2, 3)", "c": "h()"}),
        ("{a: 'f(1', b: }", {"a": "f(1", "b": None}),
        ("{a: f(1, 'b'}", {"a": "f(1", "b": None}),
        ("a: f(1, 2)", {"a": "f(1, 2)"}),
    ],
)
def test_a_function_in_braces_keeps_its_arguments(text: str, values: dict[str, Any] | None) -> None:
    """YAML would end it at its first comma."""
    document = parse(text, "x.yaml")
    assert not document.problems
    if values is None:
        values = {"a": {"when": {"c": "d"}, "values": "choice(8, 16, x)"}, "b": ["f(1", "2)"]}
    assert document.values == values
    assert document.places[("a",)].line == 1
