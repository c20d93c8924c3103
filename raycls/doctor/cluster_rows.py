"""What the doctor makes of the facts it was told: one row for each question, with a remedy where it is not well.

Pure functions: they know neither Ray nor a machine. Facts are keyed by the name of a node.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from raycls.cluster.ask import Unanswered
from raycls.errors import RayclsError
from raycls.quantities import plural

__all__ = [
    "MIB",
    "RAY_FOLDER",
    "Row",
    "Verdict",
    "disk",
    "from_error",
    "gpus",
    "nodes",
    "partly",
    "plain",
    "reduction",
    "shared_memory",
    "size",
    "skipped",
    "told",
    "unknown",
    "versions",
]

Verdict = Literal["ok", "warning", "wrong", "unknown", "skipped"]
MIB, GIB = 1 << 20, 1 << 30
_LEAST_SHARED = 64 * MIB
"""What Docker gives a container by default: too little for processes that hand over images."""
_FULL, _NEARLY_FULL = 0.95, 0.90
"""At the first share in use Ray writes no more objects to a disk (`local_fs_capacity_threshold`)."""
_LEAST_FREE, _LITTLE_FREE = 100 * MIB, 2 * GIB
_SLOW_MEGABYTES = 50.0
"""Of all-reduced data per second: less than half of what a 1 Gbit/s network carries."""
_UNEXPECTED_END = 2
"""Ray's `DeathReason` of a node that was lost, and not drained or stopped."""


@dataclass(frozen=True)
class Row:
    """One line of the table. `unknown` could not be examined, and `found` says why; `skipped` was not asked for."""

    name: str
    verdict: Verdict
    found: str
    fix: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_well(self) -> bool:
        return self.verdict in ("ok", "warning", "skipped")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


Answers = Mapping[str, Any]
"""By node: its facts, or `Unanswered`."""


def unknown(name: str, why: str, fix: str = "") -> Row:
    return Row(name, "unknown", f"not examined: {why}", fix)


def skipped(name: str, why: str) -> Row:
    return Row(name, "skipped", why)


def from_error(name: str, error: RayclsError) -> Row:
    """A row that says what an error of ours says."""
    found = "; ".join(part for part in (error.what, error.where, error.found, error.valid) if part)
    return Row(name, "wrong", found, error.fix or "")


def nodes(answers: Answers, lost: Mapping[str, int] | None = None) -> Row:
    """`answers` hold anything; `lost` are nodes that Ray has buried, with its reason (`DeathReason`)."""
    silent = {name: given.why for name, given in answers.items() if isinstance(given, Unanswered)}
    gone = [name for name, reason in (lost or {}).items() if reason == _UNEXPECTED_END]
    count = f"{plural(len(answers), 'node')}: {', '.join(answers)}"
    facts = {"nodes": list(answers), "silent": silent, "lost": gone}
    if silent:
        said = "; ".join(f"{name} {why}" for name, why in silent.items())
        fix = "look after that node (is it frozen, out of memory, cut off?), or take it out of the cluster: `ray stop`"
        return Row("nodes", "wrong", f"{count}; {said}", fix, facts)
    if gone:
        fix = "if its work matters, look into why it ended; a run continues without it"
        return Row("nodes", "warning", f"{count}; lost: {', '.join(gone)}", fix, facts)
    return Row("nodes", "ok", count, facts=facts)


def versions(answers: Answers) -> Row:
    """Facts of a node: package to its version, or `missing`."""
    given, silent = told(answers)
    packages = {name: None for facts in given.values() for name in facts}
    differing, missing = [], []
    for package in packages:
        found = {node: facts.get(package, "missing") for node, facts in given.items()}
        missing += [f"{package} on {node}" for node, version in found.items() if version == "missing"]
        if len({*found.values()} - {"missing"}) > 1:
            differing.append(f"{package}: {_each(found)}")
    fix = "install the same versions on every node, from the lock file, in the environment that Ray was started in"
    if differing or missing:
        words = [*differing, *([f"not installed: {', '.join(missing)}"] if missing else [])]
        return Row("versions", "wrong", "; ".join(words), fix, plain(answers))
    same = next(iter(given.values()), {})
    text = ", ".join(f"{package} {version}" for package, version in same.items())
    row = Row("versions", "ok", f"{text}{' everywhere' if len(given) > 1 else ''}", facts=plain(answers))
    return partly(row, silent)


def gpus(answers: Answers, counted: Mapping[str, float], *, device: str = "auto") -> Row:
    """Facts of a node: a list of GPUs with `name`, `driver` and `memory` (bytes). `counted` are Ray's own numbers."""
    given, silent = told(answers)
    kinds = {f"{gpu['name']} ({gpu['memory'] / GIB:.0f} GiB)" for facts in given.values() for gpu in facts}
    drivers = {gpu["driver"] for facts in given.values() for gpu in facts}
    total = sum(len(facts) for facts in given.values())
    uncounted = {node: len(facts) for node, facts in given.items() if len(facts) != int(counted.get(node, 0))}
    facts = {"nodes": plain(answers), "counted": dict(counted)}
    if device == "cuda" and not any(counted.values()):
        found = "none that Ray counts" if total else "none"
        return Row("gpus", "wrong", f"{found}, and scale.device is cuda", "set scale.device=cpu, or add GPUs", facts)
    if uncounted:
        text = "; ".join(
            f"{node}: {count} there, Ray counts {counted.get(node, 0):g}" for node, count in uncounted.items()
        )
        fix = "start Ray on that node with --num-gpus, or check CUDA_VISIBLE_DEVICES and the driver there"
        return Row("gpus", "warning", text, fix, facts)
    if len(kinds) > 1 or len(drivers) > 1:
        text = f"{total} GPUs of different kinds: {', '.join(sorted(kinds))}; drivers {', '.join(sorted(drivers))}"
        fix = "the slowest GPU sets the pace, and bits may differ between kinds: use nodes of one kind"
        return Row("gpus", "warning", text, fix, facts)
    text = f"{total} x {kinds.pop()}, driver {drivers.pop()}" if total else "none: training is on CPUs"
    return partly(Row("gpus", "ok", text, facts=facts), silent)


def reduction(measured: Mapping[str, float] | str, *, backend: str, megabytes: float, repeats: int) -> Row:
    """All-reduce between nodes. `measured`: MB of the buffer per second as each node saw it, or why there is none."""
    name = "all-reduce"
    what = f"{backend}, {megabytes:.1f} MB, {len(measured)} nodes, median of {repeats}"
    if isinstance(measured, str):
        fix = (
            "let the nodes reach each other on all ports; where a node has several networks, set "
            f"{'NCCL' if backend == 'nccl' else 'GLOO'}_SOCKET_IFNAME to the one that they share"
        )
        return Row(name, "wrong", f"the nodes could not exchange data ({backend}): {measured}", fix)
    slowest = min(measured, key=measured.__getitem__)
    facts = {"backend": backend, "megabytes": megabytes, "repeats": repeats, "megabytes_per_second": dict(measured)}
    text = f"{measured[slowest]:.0f} MB/s ({what})"
    if measured[slowest] < _SLOW_MEGABYTES:
        fix = "place the workers on fewer nodes, or use a faster network; gradients go over it at every step"
        return Row(name, "warning", f"{text}: slow", fix, facts)
    return Row(name, "ok", text, facts=facts)


def shared_memory(answers: Answers, stores: Mapping[str, float]) -> Row:
    """Facts of a node: `total` and `free` bytes of /dev/shm, or None without one. `stores`: bytes of object store."""
    given, silent = told(answers)
    fix = "enlarge /dev/shm (docker: --shm-size; Kubernetes: an emptyDir with medium Memory), or lower Ray's "
    fix += "--object-store-memory"
    lines, worst = [], "ok"
    for node, facts in given.items():
        store = stores.get(node, 0.0)
        if facts is None:
            lines.append(f"{node}: no /dev/shm")
            continue
        line = f"{node}: {size(facts['free'])} of {size(facts['total'])} free, object store {size(store)}"
        if facts["total"] < _LEAST_SHARED or facts["free"] < _LEAST_SHARED / 4:
            worst, line = "wrong", f"{line}: too little"
        elif facts["total"] < store:
            worst = "warning" if worst == "ok" else worst
            line += ": the store does not fit, Ray keeps it on a disk"
        lines.append(line)
    row = Row("shared memory", worst, "; ".join(lines), "" if worst == "ok" else fix, plain(answers))  # type: ignore[arg-type]
    return partly(row, silent)


def disk(answers: Answers) -> Row:
    """Facts of a node: a list of folders with `what`, `path`, `total` and `free` (bytes)."""
    given, silent = told(answers)
    wrong, warned = [], []
    least: dict[str, float] = {}
    for node, folders in given.items():
        for folder in folders:
            used = 1 - folder["free"] / max(1, folder["total"])
            line = f"{folder['what']} on {node}: {size(folder['free'])} free ({used:.0%} used)"
            if folder["free"] < _LEAST_FREE or (used >= _FULL and folder["what"] == RAY_FOLDER):
                wrong.append(f"{line} in {folder['path']}")
            elif folder["free"] < _LITTLE_FREE or (used >= _NEARLY_FULL and folder["what"] == RAY_FOLDER):
                warned.append(f"{line} in {folder['path']}")
            least[folder["what"]] = min(folder["free"], least.get(folder["what"], folder["free"]))
    fine = [f"{what}: {'at least ' if len(given) > 1 else ''}{size(free)} free" for what, free in least.items()]
    verdict: Verdict = "wrong" if wrong else "warning" if warned else "ok"
    fix = "" if verdict == "ok" else "free some space, or use a larger disk: run.storage, and `ray start --temp-dir`"
    row = Row("disk", verdict, "; ".join(wrong + warned or fine), fix, plain(answers))
    return partly(row, silent)


RAY_FOLDER = "Ray's temporary folder"


def told(answers: Answers) -> tuple[dict[str, Any], dict[str, str]]:
    told = {node: facts for node, facts in answers.items() if not isinstance(facts, Unanswered)}
    silent = {node: facts.why for node, facts in answers.items() if isinstance(facts, Unanswered)}
    return told, silent


def partly(row: Row, silent: Mapping[str, str]) -> Row:
    """`row`, unless some nodes did not answer: then it is unknown whether all is well."""
    if not silent:
        return row
    missing = "not examined: " + "; ".join(f"{node} {why}" for node, why in silent.items())
    verdict: Verdict = "wrong" if row.verdict == "wrong" else "unknown"
    fix = row.fix or "see the row nodes"
    return Row(row.name, verdict, f"{row.found}; {missing}" if row.found else missing, fix, row.facts)


def plain(answers: Answers) -> dict[str, Any]:
    """The facts as JSON can hold them."""
    return {
        node: {"unanswered": facts.why} if isinstance(facts, Unanswered) else facts for node, facts in answers.items()
    }


def _each(found: Mapping[str, str]) -> str:
    kinds: dict[str, list[str]] = {}
    for node, version in found.items():
        kinds.setdefault(version, []).append(node)
    return ", ".join(f"{version} on {' and '.join(names)}" for version, names in kinds.items())


def size(count: float) -> str:
    if count < MIB:
        return f"{count / 1024:.0f} KiB"
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / MIB:.0f} MiB"
