"""A page as a browser would take it apart: its tags, its attributes and its text."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

__all__ = ["Page", "parse"]

_VOID = {"meta", "link", "img", "br", "input", "line", "circle", "path", "rect", "image"}


@dataclass
class Page:
    tags: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    """What stands between tags, but for scripts and styles."""
    code: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    """Tags that were never closed."""

    def of(self, tag: str) -> list[dict[str, str]]:
        """The attributes of each such tag."""
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.page = Page()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.page.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in _VOID:
            self.page.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in _VOID:
            return
        assert self.page.open, f"</{tag}> closes nothing"
        last = self.page.open.pop()
        assert last == tag, f"</{tag}> closes <{last}>"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.page.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        inside = self.page.open[-1] if self.page.open else ""
        (self.page.code if inside in ("script", "style") else self.page.texts).append(data)


def parse(text: str) -> Page:
    """Take a page apart. AssertionError where a tag is closed that is not the innermost open one."""
    parser = _Parser()
    parser.feed(text)
    parser.close()
    assert parser.page.open == [], f"not closed: {parser.page.open}"
    return parser.page
