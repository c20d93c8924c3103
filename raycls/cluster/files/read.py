"""A cluster file of `ray up`: read with the place of every value, checked, and filled in as Ray fills it in."""

from __future__ import annotations

import copy
import io
import json
import logging
from collections.abc import Iterable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from raycls.cluster.environment import prepare_environment
from raycls.config.errors import ConfigProblemsError, Place, Problem, dotted
from raycls.config.errors import Path as Keys
from raycls.config.names.suggest import suggest
from raycls.config.paths import expand
from raycls.config.write import word
from raycls.config.yaml_text import Document, parse
from raycls.errors import ConfigError

__all__ = ["MARKET", "ClusterFile", "Finding", "NodeType", "located", "read"]

MARKET = "ray.io/market-type"
"""Ray's own label of a node: `spot` for one that its owner may take back, `on-demand` for others."""

_PROVIDERS = ("aws", "azure", "external", "gcp", "local")
_EXTRA_KEYS = {
    "aws": {"aws_credentials", "key_pair"},
    "gcp": {"_has_tpus"},
    "azure": {"unique_id", "msi_name", "msi_resource_group", "subnet_mask", "use_external_head_ip"},
    "local": {"coordinator_address", "external_head_ip"},
}
"""Keys that a provider of Ray 2.60 reads and Ray's schema does not list."""

_KINDS = {dict: "mapping", list: "list", str: "string", bool: "boolean", int: "integer", float: "number"}
_SCHEMA_KINDS = {
    "object": "a mapping",
    "array": "a list",
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "a boolean",
}


@dataclass(frozen=True)
class NodeType:
    """Machines of one kind: `min_count` to `max_count` of them."""

    name: str
    head: bool
    min_count: int
    max_count: int
    machine: str
    """What the provider calls the machine; empty where the file does not say."""
    spot: bool
    resources: dict[str, int]
    labels: dict[str, str]


@dataclass(frozen=True)
class Finding:
    """An error before it has a place: `keys` lead to the value, or to where it is missing."""

    keys: Keys
    what: str
    found: str | None = None
    valid: str | None = None
    fix: str | None = None


@dataclass(frozen=True)
class ClusterFile:
    """`values` as written, `resolved` as Ray fills them in, `nodes` with the head first."""

    path: Path
    document: Document
    resolved: dict[str, Any]
    nodes: tuple[NodeType, ...]

    @property
    def values(self) -> dict[str, Any]:
        return self.document.values

    @property
    def provider(self) -> str:
        return str(self.values["provider"]["type"])

    @property
    def here(self) -> bool:
        """Whether all nodes are processes of the machine that the file is used on."""
        module = str(self.values["provider"].get("module", ""))
        return self.provider == "external" and module.rpartition(".")[2] == "FakeMultiNodeProvider"


def read(path: str | Path) -> ClusterFile:
    """Read and check a cluster file. ConfigProblemsError tells every error with its line."""
    path = expand(path, where="FILE")
    text = _text(Path(path))
    document = parse(text, str(path))
    if "apiVersion" in document.values:
        raise ConfigError(
            "this is a file of Kubernetes, not of `ray up`", where=str(path), fix=f"kubectl apply -f {word(str(path))}"
        )
    _refuse(path, document, [])
    # What Ray reads, which is YAML 1.1: there `no` is false and 016 is 14.
    document = replace(document, values=yaml.safe_load(text) or {})
    _refuse(path, document, [*_against_schema(document.values)])
    _refuse(path, document, [*_provider(document.values), *_numbers(document.values)])
    resolved = _resolved(path, document)
    return ClusterFile(Path(path), document, resolved, _node_types(document.values, resolved))


def located(document: Document, file: str, findings: list[Finding]) -> list[Problem]:
    """Findings with their lines, in the order of the text. What is missing stands where its nearest parent does."""

    def place(keys: Keys) -> Place:
        for length in range(len(keys), 0, -1):
            if keys[:length] in document.places:
                return document.places[keys[:length]]
        return Place(file)

    problems = [
        Problem(place(each.keys), dotted(each.keys), each.what, each.found, each.valid, each.fix) for each in findings
    ]
    return sorted(problems, key=lambda problem: problem.place.line or 0)


def _refuse(path: str | Path, document: Document, findings: list[Finding]) -> None:
    problems = [*document.problems, *located(document, str(path), findings)]
    if problems:
        raise ConfigProblemsError(str(path), problems)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        known = sorted(str(file) for file in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise ConfigError(
            "the cluster file cannot be read",
            where=str(path),
            found=reason,
            valid=", ".join(known[:20]) or None,
            fix="give the path of a cluster file; the folder cluster/ of raycls has some to start from",
        ) from error


def _against_schema(values: dict[str, Any]) -> Iterator[Finding]:
    """What Ray's own schema says of the file, with the key that was meant."""
    import jsonschema  # Ray needs it for the same
    import ray.autoscaler as autoscaler

    schema = json.loads(Path(autoscaler.__file__).with_name("ray-schema.json").read_text(encoding="utf-8"))
    for error in jsonschema.Draft7Validator(schema).iter_errors(values):
        keys = tuple(error.absolute_path)
        if error.validator == "additionalProperties":
            known = sorted(error.schema.get("properties", {}))
            for key in sorted(set(error.instance) - set(known)):
                yield _unknown((*keys, key), known)
        elif error.validator == "required":
            missing = sorted(set(error.validator_value) - set(error.instance))
            for key in _not_misspelt(missing, error.instance, error.schema["properties"]):
                yield Finding((*keys, key), "this key is missing", fix=_MISSING.get(key))
        elif error.validator == "type":
            wanted: Any = error.validator_value
            valid = " or ".join(
                _SCHEMA_KINDS.get(kind, kind) for kind in ([wanted] if isinstance(wanted, str) else wanted)
            )
            yield Finding(keys, "a value of another kind is wanted here", found=_kind(error.instance), valid=valid)
        elif error.validator == "minimum":
            found, least = f"{error.instance}", f"{error.validator_value} or more"
            yield Finding(keys, "the number is too small", found=found, valid=least)
        else:
            yield Finding(keys, error.message)


_MISSING = {
    "cluster_name": "give the cluster a name: Ray finds its nodes by it",
    "provider": "say who provides the machines, such as provider: {type: aws, region: us-west-2}",
    "type": f"one of {', '.join(_PROVIDERS)}",
    "resources": "say what a node of this type has, such as resources: {CPU: 8, GPU: 1}",
    "node_config": "say which machine it is, in the provider's words; {} where the provider needs none",
}


def _not_misspelt(missing: Iterable[str], written: Iterable[str], known: Iterable[str]) -> list[str]:
    """Those of `missing` that no unknown key of `written` stands for: one error is told once."""
    known = list(known)
    meant = {suggest(key, known) for key in written if key not in known}
    return [key for key in missing if key not in meant]


def _unknown(keys: Keys, known: list[str]) -> Finding:
    near = suggest(str(keys[-1]), known)
    return Finding(keys, "no such key", valid=", ".join(known), fix=f"did you mean {near}?" if near else None)


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"{value!r} ({_KINDS.get(type(value), type(value).__name__)})"


def _provider(values: dict[str, Any]) -> Iterator[Finding]:
    provider = values["provider"]
    name = provider["type"]
    if name not in _PROVIDERS:
        near = suggest(name, _PROVIDERS)
        fix = f"did you mean {near}?" if near else None
        yield Finding(("provider", "type"), "no such provider", name, ", ".join(_PROVIDERS), fix)
        return
    if name == "external":
        if "module" not in provider:
            yield Finding(("provider", "module"), "this key is missing", fix="name the provider's class")
        return
    import ray.autoscaler as autoscaler

    schema = json.loads(Path(autoscaler.__file__).with_name("ray-schema.json").read_text(encoding="utf-8"))
    known = sorted({*schema["properties"]["provider"]["properties"], *_EXTRA_KEYS[name]} - {"module"})
    for key in provider:
        if key not in known:
            yield _unknown(("provider", key), known)
    needed = {"aws": ("region",), "gcp": ("region", "project_id"), "azure": ("location", "resource_group")}
    if name == "local" and "coordinator_address" not in provider:
        needed["local"] = ("head_ip", "worker_ips")
    if "ssh_user" not in values.get("auth", {} if name == "local" else {"ssh_user": "ubuntu"}):
        yield Finding(("auth", "ssh_user"), "this key is missing", fix="say as whom SSH reaches the machines")
    missing = [key for key in needed.get(name, ()) if provider.get(key) is None]
    for key in _not_misspelt(missing, provider, known):
        yield Finding(("provider", key), "this key is missing", fix=f"the provider {name} needs it")


def _numbers(values: dict[str, Any]) -> Iterator[Finding]:
    """How many nodes: what contradicts itself, and what Ray would choose by itself."""
    if values["provider"]["type"] == "local":
        yield from _machines(values)
        return
    types = values.get("available_node_types")
    if types is None:
        yield Finding(("available_node_types",), "this key is missing", fix="say which machines the cluster has")
        return
    head = values.get("head_node_type")
    if head not in types:
        near = suggest(str(head), types) if head else None
        fix = f"did you mean {near}?" if near else None
        yield Finding(("head_node_type",), "no such node type", head or "nothing", ", ".join(types) or None, fix)
    if "max_workers" not in values:
        fix = "say how many nodes there are at most beside the head"
        yield Finding(("max_workers",), "this key is missing, and Ray would take a number of its own", fix=fix)
        return
    maximum = values["max_workers"]
    for name, kind in types.items():
        minimum = kind.get("min_workers", 0)
        own = kind.get("max_workers", 0 if name == head else maximum)
        for key in ("min_workers", "max_workers"):
            if kind.get(key, 0) < 0:
                yield Finding(
                    ("available_node_types", name, key), "the number is too small", f"{kind[key]}", "0 or more"
                )
        if minimum > own:
            keys = ("available_node_types", name, "min_workers")
            what = "min_workers is above max_workers"
            yield Finding(keys, what, f"{minimum}, with max_workers {own}", f"0 to {own}")
    minimum = sum(kind.get("min_workers", 0) for kind in types.values())
    if minimum > maximum:
        what = "the node types want more nodes than there may be"
        yield Finding(("max_workers",), what, f"{maximum}, where min_workers add up to {minimum}", f"{minimum} or more")


def _machines(values: dict[str, Any]) -> Iterator[Finding]:
    """The numbers of a cluster of machines that are there already."""
    for key in ("available_node_types", "head_node_type"):
        if key in values:
            yield Finding((key,), "machines of one's own have no node types", fix="leave the key out")
    provider = values["provider"]
    workers = provider.get("worker_ips") or []
    for index, address in enumerate(workers):
        if address == provider.get("head_ip"):
            yield Finding(("provider", "worker_ips", index), "the head is no worker too", address)
        elif address in workers[:index]:
            yield Finding(("provider", "worker_ips", index), "the address is written twice", address)
    if "coordinator_address" not in provider and values.get("max_workers", len(workers)) > len(workers):
        found = f"{values['max_workers']}, with {len(workers)} addresses in provider.worker_ips"
        yield Finding(("max_workers",), "more workers than there are machines", found, f"0 to {len(workers)}")


def _resolved(path: str | Path, document: Document) -> dict[str, Any]:
    """The file as Ray fills it in; what Ray still finds wrong is told with the key that it names."""
    prepare_environment()
    from ray.autoscaler._private.util import prepare_config, validate_config

    said = io.StringIO()
    chatter = logging.getLogger("ray.autoscaler._private.util")
    level = chatter.level
    chatter.setLevel(logging.ERROR)
    try:
        with redirect_stdout(said), redirect_stderr(said):
            resolved = prepare_config(copy.deepcopy(document.values))
            validate_config(resolved)
    except Exception as error:
        words = str(error).strip() or said.getvalue().strip() or type(error).__name__
        named = [key for key in document.values if f"`{key}`" in words]
        keys = (named[0],) if named else ()
        problems = located(document, str(path), [Finding(keys, f"Ray refuses the file: {words}")])
        raise ConfigProblemsError(str(path), problems) from error
    finally:
        chatter.setLevel(level)
    return resolved


def _node_types(values: dict[str, Any], resolved: dict[str, Any]) -> tuple[NodeType, ...]:
    if values["provider"]["type"] == "local":
        resolved_type = next(iter(resolved["available_node_types"].values()))
        minimum, maximum = resolved_type["min_workers"], resolved_type["max_workers"]
        head = NodeType("head", True, 1, 1, str(values["provider"].get("head_ip", "")), False, {}, {})
        return head, NodeType("workers", False, minimum, maximum, "machines of your own", False, {}, {})
    first = resolved["head_node_type"]
    kinds = resolved["available_node_types"]
    ordered = [first, *(name for name in kinds if name != first)]
    return tuple(
        NodeType(
            name=name,
            head=name == first,
            min_count=1 if name == first else kinds[name]["min_workers"],
            max_count=1 if name == first else min(kinds[name]["max_workers"], resolved["max_workers"]),
            machine=_machine(kinds[name]["node_config"]),
            spot=_spot(kinds[name]["node_config"]),
            resources=dict(kinds[name]["resources"]),
            labels=dict(kinds[name].get("labels") or {}),
        )
        for name in ordered
    )


def _machine(node: dict[str, Any]) -> str:
    azure = node.get("azure_arm_parameters") or {}
    return str(node.get("InstanceType") or node.get("machineType") or azure.get("vmSize") or "")


def _spot(node: dict[str, Any]) -> bool:
    """Whether the provider may take such a node back, in the words of AWS, GCP or Azure."""
    market = node.get("InstanceMarketOptions") or {}
    schedules = node.get("scheduling") or {}
    schedules = schedules if isinstance(schedules, list) else [schedules]
    azure = node.get("azure_arm_parameters") or {}
    return (
        market.get("MarketType") == "spot"
        or any(each.get("preemptible") is True or each.get("provisioningModel") == "SPOT" for each in schedules)
        or str(azure.get("priority", "")).lower() == "spot"
    )
