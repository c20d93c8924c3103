"""The doctor's rows about one run: storage, data, working directory, room, time.

Pure functions, like `verdicts`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from raycls.doctor.cluster_rows import Row, partly, plain, size, told
from raycls.jobs.package import LIMIT
from raycls.quantities import plural

__all__ = ["data", "estimate", "fit", "objects", "storage", "working_directory"]

_MUCH_UPLOADED = LIMIT // 2
_SLOW_SECONDS = 0.5
"""Of one read of a store: with 32 in flight from each process, no more than 64 images/s."""
_SHARE_OF_STORE = 0.5
"""Of the object stores that decoded images may take before the rest has too little room."""


def storage(
    where: str, answers: Mapping[str, Any], *, is_local: bool, replies: Mapping[str, bool], relative: bool = False
) -> Row:
    """Facts of a node: `read` (the driver's file), `wrote` and `problem`. `replies`: did the driver see its own?

    `relative`: `where` is what a relative run.storage means here, which a job would not be let have.
    """
    given, silent = told(answers)
    facts = {"where": where, "nodes": plain(answers), "replies": dict(replies)}
    blind = [node for node, fact in given.items() if not fact["read"] and not fact["problem"]]
    broken = [f"{node}: {fact['problem']}" for node, fact in given.items() if fact["problem"]]
    mute = [node for node, fact in given.items() if fact["wrote"] and not replies.get(node)]
    if blind or mute or broken:
        words = [f"{node} does not see what the driver wrote there" for node in blind]
        words += [f"the driver does not see what {node} wrote there" for node in mute]
        fix = "set run.storage to a folder that every node mounts at this path, or to a URI (s3://, gs://, abfs://)"
        if broken and not blind:
            fix = "give every node the credentials, permissions and network that it needs for this place"
        return Row("storage", "wrong", f"{where}: {'; '.join([*words, *broken])}", fix, facts)
    text = f"{where}: written by the driver and read on {plural(len(given), 'node')}, and back"
    if is_local and len(answers) == 1:
        text += "; a cluster of several nodes needs a shared one"
    if relative:
        text += "; run.storage is relative, which `raycls submit` refuses"
    return partly(Row("storage", "ok", text, facts=facts), silent)


def data(where: str, answers: Mapping[str, Any], *, made_by_source: bool = False) -> Row:
    """Facts of a node as `probes.listing` gives them. `made_by_source`: the source writes what is missing."""
    given, silent = told(answers)
    facts = {"where": where, "nodes": plain(answers)}
    missing = [node for node, fact in given.items() if fact["kind"] == "missing"]
    fix = "every node decodes images: mount the data at this path everywhere, or copy it to every node"
    if missing and made_by_source and len(missing) == len(given):
        row = Row("data", "ok", f"{where}: nothing there yet, the source writes it", facts=facts)
        if len(given) > 1:
            row = Row("data", "warning", f"{row.found}, on the driver's node alone", fix, facts)
        return partly(row, silent)
    if missing:
        return Row("data", "wrong", f"{where}: nothing there on {', '.join(missing)}", fix, facts)
    kinds: dict[str, list[str]] = {}
    for node, fact in given.items():
        kinds.setdefault(fact["digest"], []).append(node)
    if len(kinds) > 1:
        groups = " | ".join(", ".join(nodes) for nodes in kinds.values())
        fix = "copy the data anew where it differs, or mount one copy everywhere: workers must see the same images"
        return Row("data", "wrong", f"{where}: names or sizes differ between nodes: {groups}", fix, facts)
    first: Mapping[str, Any] = next(iter(given.values()), {})
    text = f"{where}: {_entries(first)}" if first else where
    return partly(Row("data", "ok", text + (" on every node" if len(given) > 1 else ""), facts=facts), silent)


def objects(where: str, answers: Mapping[str, Any], *, size_read: int) -> Row:
    """Facts of a node as `probes.objects` gives them, of data behind an address."""
    given, silent = told(answers)
    facts = {"where": where, "nodes": plain(answers)}
    broken = {node: fact for node, fact in given.items() if fact["problem"]}
    if broken:
        words = [f"{node}: {fact['problem']} ({fact['found']})" for node, fact in broken.items()]
        fix = next(iter(broken.values()))["fix"]
        return Row("data", "wrong", f"{where}: {'; '.join(words)}", fix, facts)
    if not given:
        return partly(Row("data", "ok", where, facts=facts), silent)
    listing, reading = (max(fact[what] for fact in given.values()) for what in ("listing", "reading"))
    name = next(iter(given.values()))["name"]
    text = f"{where}: reachable from {plural(len(given), 'node')}; a look takes {_milliseconds(listing)}, a read of "
    text += f"{name}, {size(size_read)} at most, {_milliseconds(reading)}"
    row = Row("data", "ok", text, facts=facts)
    if reading > _SLOW_SECONDS:
        fix = "keep the data in the region of the nodes, set data.cache, or pack small images (raycls pack)"
        row = Row("data", "warning", f"{text}: slow", fix, facts)
    return partly(row, silent)


def working_directory(
    path: str, total: int, biggest: Sequence[tuple[str, int]], credentials: Sequence[str] = ()
) -> Row:
    """`total` bytes of what a job would take along from `path`, its `biggest` files, and those that look secret."""
    facts = {"path": path, "bytes": total, "biggest": [list(item) for item in biggest], "credentials": [*credentials]}
    text = f"{path}: {size(total)} of the {size(LIMIT)} that a job may upload"
    if credentials:
        text += f"; files that look like credentials: {', '.join(credentials)}"
        return Row("working directory", "warning", text, "name them in .rayignore: `raycls submit` refuses them", facts)
    if total <= _MUCH_UPLOADED:
        return Row("working directory", "ok", text, facts=facts)
    text += "; biggest: " + ", ".join(f"{name} ({size(count)})" for name, count in biggest)
    fix = (
        "name data, runs and environments in .gitignore or .rayignore (`raycls submit` uploads this folder; joining a "
        "cluster does not)"
    )
    return Row("working directory", "warning", text, fix, facts)


def fit(
    *, workers: int, threads: int, share: float, cpus: float, gpus: float, device: str, ahead: float, store: float
) -> Row:
    """A run whose workers find their places. `share`: CPUs that Ray sets aside for one. `cpus`, `gpus`: of the cluster.

    `ahead`: bytes of images decoded ahead through Ray Data, 0 for another executor; `store`: bytes of object store.
    """
    busy = max(1, workers) * max(float(threads), share)
    facts = {
        "workers": workers,
        "device": device,
        "cpus": cpus,
        "gpus": gpus,
        "busy": busy,
        "ahead": ahead,
        "store": store,
    }
    text = f"{plural(workers, 'worker')} on {device}" if workers else f"this process on {device}"
    text += f", {busy:g} of {cpus:g} CPUs busy with training, {max(0.0, cpus - busy):g} left for decoding"
    if ahead:
        text += f"; images decoded ahead {size(ahead)}, object store {size(store)}"
    if ahead > _SHARE_OF_STORE * store:
        fix = "lower data.prefetch or data.batch_size, or start Ray with a larger --object-store-memory"
        return Row("fit", "warning", f"{text}: more than half of it, so Ray would spill to disk", fix, facts)
    if busy > cpus:
        fix = "lower scale.workers or scale.threads: threads that share a CPU wait for each other"
        return Row("fit", "warning", f"{text}; more threads than CPUs", fix, facts)
    return Row("fit", "ok", text, facts=facts)


def estimate(facts: Mapping[str, Any], *, workers: int, places: int, batch_size: int) -> Row:
    """What `rehearsal.rehearse` measured, as images/s, epochs and hours. `places`: workers with CPUs of their own."""
    seconds: list[float] = facts["seconds"]
    if not seconds:
        fix = "give it more time with --timeout, or make a step smaller: data.batch_size, data.image_size, model.name"
        return _warned(Row("time", "unknown", f"not examined: {facts['why']}", fix, facts))
    one = facts["images"] / sum(seconds)
    together = max(1, min(max(1, workers), places))
    rate = one * together
    epoch, whole = facts["samples"] / rate, facts["total_steps"] * batch_size / rate
    epochs = facts["total_steps"] / facts["steps_per_epoch"]
    text = (
        f"about {_time(whole)} for {plural(epochs, 'epoch')}, {_time(epoch)} each: "
        f"one process trained {one:.0f} images/s ({facts['data_wait']:.0%} of it decoding), "
        f"n={len(seconds)} steps of {facts['batch']} images on {facts['device']}"
    )
    text += f"; x {together} workers" if together > 1 else ""
    text += "; a guess: start-up, exchange between workers, evaluation and checkpoints are not in it"
    more = {"images_per_second": rate, "epoch_seconds": epoch, "seconds_in_all": whole}
    return _warned(Row("time", "ok", text, facts={**facts, **more}))


def _warned(row: Row) -> Row:
    """The row with what a run would be told before its first step."""
    for warning in row.facts.get("warnings", ()):
        verdict = "warning" if row.verdict == "ok" else row.verdict
        fixes = [fix for fix in (warning["fix"], row.fix) if fix]
        row = replace(row, verdict=verdict, found=f"{row.found}; {warning['what']}", fix="; ".join(fixes))
    return row


def _entries(fact: Mapping[str, Any]) -> str:
    if fact["kind"] == "file":
        return f"a file of {size(fact['bytes'])}, same size and start"
    number = plural(fact["entries"], "entry")
    return f"{number}, same names and sizes" if fact["whole"] else f"same names and sizes in the first {number}"


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms"


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
