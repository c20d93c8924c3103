"""The schema and the values of a config in plain words, for messages."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from raycls.config.names.suggest import suggest
from raycls.config.sections.run import Run
from raycls.config.sections.types import Section, child, is_free
from raycls.config.uri_secrets import hidden
from raycls.config.write import flow

__all__ = ["allowed", "child", "is_free", "meant", "options", "shown"]

# What people write who come from other trainers, where no spelling is near enough to find it.
_SYNONYMS = {
    "epochs": "train.duration",
    "num_epochs": "train.duration",
    "max_steps": "train.duration",
    "learning_rate": "optim.lr",
    "optimizer": "optim",
    "lr_scheduler": "schedule",
    "scheduler": "schedule",
    "num_workers": "scale.workers",
    "gpus": "scale.workers",
    "output_dir": "run.storage",
    "precision": "train.amp",
    "mixed_precision": "train.amp",
    "pretrained": "model.weights",
    "accumulate_grad_batches": "train.micro_batches",
    "transforms": "augment.train",
}
_DURATION = "a duration such as 90ep, 5000st, 10%, 90s, 15m, 2h or 1d"


@cache
def options(model: type[Section] = Run, prefix: str = "") -> tuple[str, ...]:
    """The dotted path of every section and option, in the schema's order."""
    paths: list[str] = []
    for key in model.model_fields:
        paths.append(prefix + key)
        section = child(model, key)
        if section is not None:
            paths += options(section, f"{prefix}{key}.")
    return tuple(paths)


def meant(key: str, model: type[Section], prefix: str) -> tuple[str, ...]:
    """The full paths that an unknown `key` in section `prefix` (`""` or `"optim."`) may have meant.

    What other trainers call it comes first, then a near key of the same section, the same key in other sections, and a
    near path.
    """
    if "." in key and key in options():
        return (key,)
    if key.lower() in _SYNONYMS:
        return (_SYNONYMS[key.lower()],)
    here = suggest(key, model.model_fields)
    if here is not None:
        return (prefix + here,)
    if key in options():
        return (key,)
    last = {path: path.rpartition(".")[2] for path in options()}
    same = tuple(path for path in last if last[path] == key.rpartition(".")[2])
    if same:
        return same
    near = suggest(key, options()) if "." in key else None
    if near is not None:
        return (near,)
    word = suggest(key, sorted(set(last.values())))
    return tuple(path for path in last if last[path] == word)


def shown(value: Any) -> str:
    """A value as YAML, shortened, with its kind."""
    text = hidden(flow(value))
    text = text if len(text) <= 60 else text[:57] + "..."
    return text if value is None else f"{text} ({_kind(value)})"


def _kind(value: Any) -> str:
    kinds: dict[Any, str] = {bool: "boolean", int: "integer", float: "number", str: "string"}
    return kinds.get(type(value), "mapping" if isinstance(value, Mapping) else "list")


def allowed(
    path: tuple[str, ...], index: int | None = None, schema: dict[str, Any] | None = None
) -> tuple[str, tuple[str, ...]]:
    """What the option at `path` (its item `index`, where given) may be, in words; and its literal choices.

    `schema` is that of the value itself, where it is an argument.
    """
    node, path = (_json_schema(), path) if schema is None else (schema, ())
    schema = node
    for key in path:
        node = _resolved(node["properties"][key], schema)
    if index is not None:
        lists = [part for part in _parts(node, schema) if part.get("type") == "array"]
        items = [_item(part, index) for part in lists]
        node = items[0] if items and items[0] is not None else node
    parts = _parts(node, schema)
    words = " or ".join(dict.fromkeys(_words(part, schema) for part in parts))
    choices = [str(choice) for part in parts for choice in part.get("enum", [part["const"]] if "const" in part else [])]
    return words, tuple(choices)


@cache
def _json_schema() -> dict[str, Any]:
    return Run.model_json_schema()


def _resolved(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        node = schema["$defs"][node["$ref"].rpartition("/")[2]]
    return node


def _parts(node: dict[str, Any], schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The members of a union, or the node itself."""
    node = _resolved(node, schema)
    if "anyOf" not in node:
        return [node]
    return [part for member in node["anyOf"] for part in _parts(member, schema)]


def _item(node: dict[str, Any], index: int) -> dict[str, Any] | None:
    fixed = node.get("prefixItems")
    if fixed is not None:
        return fixed[index] if index < len(fixed) else None
    return node.get("items")


def _words(node: dict[str, Any], schema: dict[str, Any]) -> str:
    if "enum" in node:
        return " or ".join((", ".join(map(str, node["enum"][:-1])), str(node["enum"][-1])))
    if "const" in node:
        return str(node["const"])
    kind = node.get("type")
    if kind in ("integer", "number"):
        return ("an integer" if kind == "integer" else "a number") + _bounds(node)
    if kind == "string":
        return _text_words(node)
    if kind == "array":
        return _list_words(node, schema)
    if kind == "object" and "properties" in node:
        return "a section with " + ", ".join(node["properties"])
    names = {"boolean": "true or false", "null": "null", "object": "a mapping"}
    if kind == "object" and isinstance(node.get("additionalProperties"), dict):
        kinds = {"integer": "{time: integer}, such as {0%: 128, 50%: 160}", "number": "{center: 40, width: 400}"}
        return kinds.get(str(node["additionalProperties"].get("type")), "{name: {argument: value}}")
    return names.get(str(kind), "any value")


def _text_words(node: dict[str, Any]) -> str:
    pattern = node.get("pattern", "")
    if "ep|st" in pattern:
        return _DURATION
    if pattern.startswith("^[A-Za-z0-9]["):
        return (
            "a name of letters, digits, dots, dashes and underscores, at most 128, that begins with a letter or digit"
        )
    if pattern:
        return f"a string like {pattern}"
    return "a string that is not empty" if node.get("minLength") else "a string"


def _list_words(node: dict[str, Any], schema: dict[str, Any]) -> str:
    fixed = node.get("prefixItems")
    if fixed is not None:
        kinds = dict.fromkeys(_words(part, schema) for part in fixed)
        return f"a list of {len(fixed)} values, each {' or '.join(kinds)}"
    items = " or ".join(_words(part, schema) for part in _parts(node.get("items", {}), schema))
    return f"a list, each item {items}"


def _bounds(node: dict[str, Any]) -> str:
    words: list[str] = []
    if "minimum" in node:
        words.append(f"at least {node['minimum']:g}")
    if "exclusiveMinimum" in node:
        words.append(f"greater than {node['exclusiveMinimum']:g}")
    if "maximum" in node:
        words.append(f"at most {node['maximum']:g}")
    if "exclusiveMaximum" in node:
        limit = node["exclusiveMaximum"]
        words.append(f"less than {limit if isinstance(limit, int) else format(limit, 'g')}")
    return ", " + " and ".join(words) if words else ""
