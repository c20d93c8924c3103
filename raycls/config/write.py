"""A config as a plain dict, as YAML, and as JSON Schema."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (PyYAML has no types of its own, and its stubs leave many out)

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import yaml

from raycls.config.errors import Path, dotted
from raycls.config.sections.run import Run
from raycls.config.strings import is_text
from raycls.config.yaml_text import RESOLVERS, parse_text, parse_value

__all__ = ["flow", "leaves", "override", "render", "schema_json", "to_dict", "to_yaml", "word", "written"]


def to_dict(run: Run) -> dict[str, Any]:
    """The whole config in plain values (text, numbers, booleans, None, lists, dicts); `from_dict` reads it."""
    return _plain(run.model_dump())


def to_yaml(run: Run) -> str:
    """The whole config as YAML that loads to an equal one."""
    return render(to_dict(run))


def schema_json() -> str:
    """JSON Schema of a config file, defaults and descriptions included."""
    schema = Run.model_json_schema()
    schema["properties"] = {
        "extends": {
            "type": "string",
            "description": "Another config file, relative to this one, whose values stand where this file sets none. "
            "That file must not extend a further one.",
        },
        **schema["properties"],
    }
    return json.dumps(
        {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "raycls config", **_untitled(schema)},
        indent=2,
    )


def leaves(values: Mapping[str, Any], path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """(path, value) of everything in nested mappings that is not itself a mapping, and of empty mappings."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(cast("Mapping[str, Any]", value), (*path, key))
        else:
            yield (*path, key), value


def render(values: Mapping[str, Any], comments: Mapping[str, str] | None = None) -> str:
    """Nested mappings as YAML, one leaf in a line, each followed by `# comment` of its dotted path."""
    lines = list(_lines(values, (), comments or {}))
    width = min(44, max((len(text) for text, comment in lines if comment), default=0))
    return "".join(f"{text:<{width}}  # {comment}\n" if comment else f"{text}\n" for text, comment in lines)


def flow(value: Any) -> str:
    """A value in one line of YAML."""
    text = yaml.dump([value], Dumper=_Dumper, default_flow_style=True, width=2**31, allow_unicode=True, sort_keys=False)
    return text.strip()[1:-1]


def override(path: str, value: Any) -> str:
    """`path=value` as a user types it after a command, the value quoted for a POSIX shell where that is needed."""
    text = written(value)
    if isinstance(value, str) and is_text(path) and _is(parse_text, value):
        text = value
    elif "'" in text and text != value:  # JSON is YAML too, and its quotes need no escapes inside those of the shell
        text = json.dumps(value, ensure_ascii=False)
    return f"{shlex.quote(path)}={shlex.quote(text)}"


def word(path: str) -> str:
    """A path, or another text, as a word of a command: quoted for a POSIX shell where needed, and never an option."""
    return shlex.quote(f"./{path}" if path.startswith("-") else path)


def written(value: Any) -> str:
    """A value in one line of YAML as a user writes it: text without quotes where raycls needs none."""
    return value if isinstance(value, str) and _is(parse_value, value) else flow(value)


def _is(read: Callable[[str], Any], text: str) -> bool:
    """Whether what is read from a text is that text."""
    try:
        return read(text) == text
    except ValueError:
        return False


def _lines(values: Mapping[str, Any], path: Path, comments: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        head = "  " * len(path) + flow(key) + ":"
        if isinstance(value, Mapping) and value:
            yield head, ""
            yield from _lines(cast("Mapping[str, Any]", value), (*path, key), comments)
        else:
            yield f"{head} {flow(value)}", comments.get(dotted((*path, key)), "")


class _Dumper(yaml.SafeDumper):
    """Writes text in quotes wherever YAML 1.2, or a reader of YAML 1.1, would take it for something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _tag, _pattern, _first in RESOLVERS:  # beside those of YAML 1.1, which PyYAML brings
    _Dumper.add_implicit_resolver(_tag, re.compile(f"^{_pattern.pattern}$"), _first)


def _text(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    style = None if value.isprintable() else '"'  # only double quotes keep line breaks within one line
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _untitled(node: Any) -> Any:
    """The schema without the titles pydantic makes from names: they repeat the keys."""
    if isinstance(node, dict):
        return {key: _untitled(value) for key, value in node.items() if not (key == "title" and isinstance(value, str))}
    return [_untitled(item) for item in node] if isinstance(node, list) else node
