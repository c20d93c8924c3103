"""One YAML text, read with the place of every value.

Plain values mean what YAML 1.2's core schema says, not YAML 1.1: `1e-3` is a number, `no` and `off` are
text, `017` is seventeen and `0o17` fifteen. Nothing but text, numbers, booleans, null, lists and mappings
with text keys comes out; a tag cannot name a Python object.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (PyYAML has no types of its own, and its stubs leave many out)

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.reader import ReaderError
from yaml.scanner import ScannerError

from raycls.config.errors import Path, Place, Problem, dotted

__all__ = ["Document", "parse", "parse_text", "parse_value", "read_value"]

MAX_BYTES = 256 * 1024
"""A config is read by people; what is longer is another kind of file."""
MAX_DEPTH = 40
MAX_ALIASES = 100
MAX_VALUES = 10_000
"""Values after every alias is followed; a few lines of aliases to aliases can stand for billions."""

_TAG = "tag:yaml.org,2002:"
_NULL = re.compile(r"(?:~|null|Null|NULL|)")
_BOOL = re.compile(r"(?:true|True|TRUE|false|False|FALSE)")
_INT = re.compile(r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)")
_FLOAT = re.compile(
    r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))"
)
_OPEN = re.compile(r"[A-Za-z_]\w*\([^()]*")  # a function whose brackets are not closed yet
_UNUSABLE = re.compile("[\\0\ud800-\udfff]")  # no file name and no UTF-8 file can hold them
RESOLVERS = (
    (f"{_TAG}null", _NULL, ["~", "n", "N", ""]),
    (f"{_TAG}bool", _BOOL, list("tTfF")),
    (f"{_TAG}int", _INT, list("-+0123456789")),
    (f"{_TAG}float", _FLOAT, list("-+.0123456789")),
)
"""(tag, whole plain text, first characters) of the core schema; the writer quotes by the same rules."""

_DROPPED = object()


@dataclass
class Document:
    """`values` as written, the place of every key and list item, and what was wrong with the text.

    `texts` has the own text of every number and boolean, for the options that take text. `complete` is False where
    the text could not be read to its end.
    """

    values: dict[str, Any] = field(default_factory=dict[str, Any])
    places: dict[Path, Place] = field(default_factory=dict[Path, Place])
    texts: dict[Path, str] = field(default_factory=dict[Path, str])
    problems: list[Problem] = field(default_factory=list[Problem])
    complete: bool = True


def parse(text: str, file: str) -> Document:
    """Read a whole config text; `file` is its name in messages. Errors are returned, not raised."""
    document = Document()
    try:
        node = _compose(text)
    except yaml.YAMLError as error:
        line, what, fix = _syntax(error, text)
        document.problems.append(Problem(Place(file, line), "", what, fix=fix))
        document.complete = False
        return document
    if node is None or node.tag == f"{_TAG}null":
        return document
    if not isinstance(node, MappingNode):
        found = "a list" if isinstance(node, SequenceNode) else "a single value"
        place = Place(file, node.start_mark.line + 1)
        document.problems.append(
            Problem(place, "", "a config is a mapping of sections", found, fix="write lines such as 'optim:'")
        )
        document.complete = False
        return document
    try:
        document.values = _Reading(file, document).mapping(node, ())
    except _TooMuchError as error:
        document.problems.append(Problem(error.place, "", error.what, fix="write the values out, with fewer aliases"))
        document.values, document.complete = {}, False
    return document


def parse_value(text: str) -> Any:
    """Read the value of a `path=value`: a scalar, `[a, list]` or `{a: mapping}`. ValueError says what is wrong."""
    return read_value(text)[0]


def parse_text(text: str) -> str | None:
    """Read the value of a `path=value` whose option is text: what was typed. ValueError says what is wrong.

    Quotes around the whole of it are YAML's, and null, `~` and nothing at all are null, as everywhere.
    """
    text = text.strip()
    if text[:1] in ("'", '"'):
        value, _ = read_value(text)
        return value if isinstance(value, str) else text
    if _UNUSABLE.search(text):
        raise ValueError("a string with a NUL character or half a surrogate pair")
    try:
        _Loader(text).dispose()
    except ReaderError as error:
        raise ValueError(_syntax(error, text)[1]) from error
    return None if _NULL.fullmatch(text) else text


def read_value(text: str) -> tuple[Any, dict[Path, str]]:
    """What `parse_value` gives, and the own text of every number and boolean in it by its path."""
    try:
        node = _compose(text)
    except yaml.YAMLError as error:
        raise ValueError(_syntax(error, text)[1]) from error
    if node is None:
        if text.strip():
            raise ValueError("a value that begins with # is a comment; put quotes around it")
        return None, {}
    if isinstance(node, (MappingNode, SequenceNode)) and not node.flow_style:
        raise ValueError("a mapping is written {key: value} here, a list [a, b], and a string with ': ' in quotes")
    if text[node.end_mark.index :].strip():
        raise ValueError("a # after a space begins a comment; put quotes around the value")
    document = Document()
    try:
        value = _Reading("", document).value(node, ())
    except _TooMuchError as error:
        raise ValueError(error.what) from error
    if document.problems:
        raise ValueError(document.problems[0].headline)
    return value, document.texts


class _Loader(yaml.SafeLoader):
    """PyYAML's reader and parser with the core schema, and with bounds that a hostile file would exceed."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0
        self._aliases = 0

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        mark = self.peek_event().start_mark
        if self.check_event(yaml.AliasEvent):
            self._aliases += 1
            if self._aliases > MAX_ALIASES:
                raise ComposerError(None, None, f"more than {MAX_ALIASES} aliases", mark)
        if self._depth >= MAX_DEPTH:
            raise ComposerError(None, None, f"more than {MAX_DEPTH} levels of nesting", mark)
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


_Loader.yaml_implicit_resolvers = {}  # PyYAML's are those of YAML 1.1
for _tag, _pattern, _first in RESOLVERS:
    _Loader.add_implicit_resolver(_tag, re.compile(f"^{_pattern.pattern}$"), _first)


def _compose(text: str) -> Node | None:
    loader = _Loader(text)
    try:
        return loader.get_single_node()
    except (ValueError, OverflowError) as error:  # an escape such as "\UFFFFFFFF" stands for no character
        mark = loader.get_mark()
        raise ScannerError(None, None, f"an escape stands for no character ({error})", mark) from error
    finally:
        loader.dispose()


class _TooMuchError(Exception):
    def __init__(self, what: str, place: Place) -> None:
        super().__init__(what)
        self.what, self.place = what, place


class _Reading:
    """From nodes to plain values, noting places and errors on the way."""

    def __init__(self, file: str, document: Document) -> None:
        self._file = file
        self._document = document
        self._open: set[int] = set()
        self._count = 0

    def mapping(self, node: MappingNode, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        first: dict[str, int] = {}
        for key_node, value_node in _joined(node.value) if node.flow_style else node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, ScalarNode) or key_node.tag != f"{_TAG}str":
                found = key_node.value if isinstance(key_node, ScalarNode) else "a list or mapping as key"
                self._wrong(
                    key_node, path, "a key must be a string", str(found) or "an empty key", "put the key in quotes"
                )
                continue
            key = key_node.value
            if key in first:
                self._wrong(
                    key_node,
                    (*path, key),
                    f"the key is written twice, in lines {first[key]} and {line}",
                    None,
                    "keep one of the two",
                )
                continue
            first[key] = line
            if key == "<<":
                self._wrong(key_node, path, "merge keys (<<) are not part of YAML 1.2", None, "use extends, or repeat")
                continue
            value = self.value(value_node, (*path, key))
            if value is not _DROPPED:
                result[key] = value
                self._document.places[(*path, key)] = Place(self._file, line)
        return result

    def value(self, node: Node, path: Path) -> Any:
        self._count += 1
        if self._count > MAX_VALUES:
            raise _TooMuchError(f"the text stands for more than {MAX_VALUES} values", self._place(node))
        if isinstance(node, ScalarNode):
            return self._scalar(node, path)
        if id(node) in self._open:
            raise _TooMuchError("an alias stands inside the value it names, so the value has no end", self._place(node))
        kind = "map" if isinstance(node, MappingNode) else "seq"
        if node.tag != f"{_TAG}{kind}":
            return self._tagged(node, path)
        self._open.add(id(node))
        try:
            if isinstance(node, MappingNode):
                return self.mapping(node, path)
            return self._items(node, path)
        finally:
            self._open.discard(id(node))

    def _items(self, node: Node, path: Path) -> list[Any]:
        result: list[Any] = []
        for item in node.value:
            value = self.value(item, (*path, len(result)))
            if value is not _DROPPED:
                self._document.places[(*path, len(result))] = self._place(item)
                result.append(value)
        return result

    def _scalar(self, node: ScalarNode, path: Path) -> Any:
        text, kind = node.value, node.tag.removeprefix(_TAG)
        if kind == "str":
            if _UNUSABLE.search(text):
                return self._wrong(node, path, "a string with a NUL character or half a surrogate pair", None, None)
            return text
        patterns = {"null": _NULL, "bool": _BOOL, "int": _INT, "float": _FLOAT}
        if kind not in patterns:
            return self._tagged(node, path)
        if not patterns[kind].fullmatch(text):
            return self._wrong(node, path, f"the tag !!{kind} does not fit its value", text, "leave the tag out")
        if kind == "null":
            return None
        self._document.texts[path] = text
        if kind == "bool":
            return text.lower() == "true"
        if kind == "float":
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        if len(text) > 100:
            return self._wrong(node, path, "a number of more than 100 digits", text[:20] + "...", None)
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))

    def _tagged(self, node: Node, path: Path) -> Any:
        tag = node.tag.replace(_TAG, "!!")
        return self._wrong(node, path, "tags are not read from a config", tag, "leave the tag out")

    def _wrong(self, node: Node, path: Path, what: str, found: str | None, fix: str | None) -> Any:
        self._document.problems.append(Problem(self._place(node), dotted(path), what, found, fix=fix))
        return _DROPPED

    def _place(self, node: Node) -> Place:
        return Place(self._file, node.start_mark.line + 1)


def _joined(pairs: list[tuple[Node, Node]]) -> list[tuple[Node, Node]]:
    """The entries of `{lr: uniform(0, 1)}` as they are meant. In braces YAML ends a plain text at a comma, which
    would leave the value `uniform(0` and a key `1)` without a value."""
    result: list[tuple[Node, Node]] = []
    for key, value in pairs:
        last = result[-1][1] if result else None
        absent = isinstance(value, ScalarNode) and not value.value and value.style is None and _plain(key)
        if absent and isinstance(last, ScalarNode) and _plain(last) and _OPEN.fullmatch(last.value):
            whole = ScalarNode(f"{_TAG}str", f"{last.value}, {key.value}", last.start_mark, key.end_mark)
            result[-1] = (result[-1][0], whole)
        else:
            result.append((key, value))
    return result


def _plain(node: Node) -> bool:
    return isinstance(node, ScalarNode) and node.style is None


def _syntax(error: yaml.YAMLError, text: str) -> tuple[int | None, str, str | None]:
    """(line, what is wrong, what to do) of a text that is no YAML."""
    if isinstance(error, ReaderError):
        line = text.count("\n", 0, error.position) + 1
        return (line, f"not valid YAML: the character U+{ord(text[error.position]):04X} is not allowed", None)
    if not isinstance(error, yaml.MarkedYAMLError):
        return None, f"not valid YAML: {error}", None
    mark = error.problem_mark or error.context_mark
    line = None if mark is None else mark.line + 1
    problem = error.problem or error.context or "it cannot be read"
    if "'\\t'" in problem:
        return (line, "not valid YAML: a tab stands where spaces belong", "indent with spaces")
    if isinstance(error, ComposerError) and "single document" in str(error.context):
        return (line, "not valid YAML here: a second document begins", "keep one document in one file")
    context = f" ({error.context})" if error.context and error.problem else ""
    return line, f"not valid YAML: {problem}{context}", None
