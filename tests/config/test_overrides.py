from __future__ import annotations

import pytest

from raycls.config.overrides import read_override, read_overrides


def test_a_path_becomes_nested_values() -> None:
    document = read_override("model.args.width=64")
    assert document.values == {"model": {"args": {"width": 64}}}
    assert str(document.places[("model", "args", "width")]) == "command line"
    assert document.problems == []


def test_only_the_first_equals_sign_separates() -> None:
    assert read_override("data.source.path=a=b").values == {"data": {"source": {"path": "a=b"}}}


@pytest.mark.parametrize("text", ["optim.lr", "=3", "optim..lr=3", ".lr=3", "optim.=3", "a b=3", "--lr 3", "a[0]=3"])
def test_what_is_no_override(text: str) -> None:
    document = read_override(text)
    assert document.values == {}
    assert [m.what for m in document.problems] == ["an override is path=value"]
    assert text in str(document.problems[0].found)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("augment.train.0=resize", "one value"),
        ("optim.lr.x=1", "one value"),
        ("extends=other.yaml", "only a file"),
        ("model.args=[", "not valid YAML"),
        ("model.args.x=my #1", "comment"),
        ("model.args=a: b", "{key: value}"),
    ],
)
def test_overrides_that_cannot_be_meant(text: str, words: str) -> None:
    (problem,) = read_override(text).problems
    assert words in problem.what
    assert problem.where == "command line"
    assert problem.path == text.partition("=")[0]


def test_each_override_is_a_layer() -> None:
    assert [document.values for document in read_overrides(["a=1", "a=2"])] == [{"a": 1}, {"a": 2}]
