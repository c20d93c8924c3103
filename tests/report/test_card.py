"""The model card: what a Markdown reader makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness.html import parse
from harness.reported import HOSTILE, make_many
from markdown_it import MarkdownIt

from raycls.report.card import card, plain
from raycls.report.evaluated import find_evaluated
from raycls.report.runs import tell
from raycls.run.folder import RunFolder


def _read(text: str) -> str:
    """As a reader that lets HTML through shows it."""
    return MarkdownIt("commonmark", {"html": True}).enable("table").render(text)


@pytest.mark.parametrize(
    "name", [*HOSTILE, "a|b", "*bold* _x_ `code` [link](http://host)", "&lt;b&gt;", "back\\slash\nline"]
)
def test_a_name_is_shown_as_it_is(name: str) -> None:
    page = parse(_read(f"| name |\n| --- |\n| {plain(name)} |\n"))
    assert {tag for tag, _ in page.tags} == {"table", "thead", "tbody", "tr", "th", "td"}
    assert page.text == f"name {' '.join(name.split())}"


def test_the_card_has_the_numbers_and_the_classes_of_lowest_f1(tmp_path: Path) -> None:
    told = tell(RunFolder(make_many(tmp_path / "many", 40, 400)))
    evaluated = find_evaluated(told)
    assert evaluated is not None
    text = card(told, evaluated).decode()
    head, _, body = text.removeprefix("---\n").partition("---\n")
    assert "pipeline_tag: image-classification" in head
    page = parse(_read(body))
    top1, interval = evaluated.summary["top1"], evaluated.summary["intervals"]["top1"]
    assert (
        f"accuracy {100 * top1:.2f} % {100 * interval['low']:.2f} to {100 * interval['high']:.2f} % Wilson" in page.text
    )
    f1 = sorted(evaluated.summary["f1"]["per_class"].values())
    assert "The 30 of 40 classes of lowest F1" in page.text
    assert f"{100 * f1[0]:.1f} %" in page.text
    assert page.text.count("a class whose name is rather long") >= 30
