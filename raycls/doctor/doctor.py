"""`raycls doctor`: looks at a cluster, and at a run on it, before anything is taken. One row per question."""

from __future__ import annotations

import math
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from raycls.cluster.ask import Unanswered
from raycls.cluster.connection import Cluster, running_cluster
from raycls.config import load as config
from raycls.config.paths import expand
from raycls.config.uri_secrets import hidden
from raycls.data.sources.digits import DEFAULT_PATH
from raycls.data.sources.remote.address import is_remote
from raycls.doctor import cluster_rows, node_probes, run_rows
from raycls.doctor.arguments import Asked
from raycls.doctor.cluster_rows import Row, skipped, unknown
from raycls.doctor.connection import hanging
from raycls.doctor.display import exit_code, show, to_json
from raycls.doctor.nodes import Examined, Node, all_nodes
from raycls.doctor.rehearsal import rehearse
from raycls.errors import LaunchError, RayclsError, from_json
from raycls.jobs import note
from raycls.jobs.package import credentials, survey
from raycls.launch.placing.executor import choose, with_executor
from raycls.launch.placing.fit import check_fit, group_size
from raycls.launch.stopping import interrupted_by_sigterm
from raycls.run.folder import refuse_lost
from raycls.run.storage.store import Store
from raycls.screen.working import Working
from raycls.session.hanging.deadline import must_end, within
from raycls.session.setup import device_of
from raycls.tune.room import Slots

__all__ = ["doctor", "examine"]

_FLOATS = 4 << 20
"""Of the all-reduce between nodes: 16 MiB, the gradient of a small network."""
_REPEATS = 5
_ENTRIES = 2000
"""Files and folders of the data that are compared between nodes."""
_READ = 64 << 10
"""Bytes that are read of one object of the data."""
_BIGGEST = 3
_TIDYING = 10.0
"""Seconds that removing what the doctor made may take."""
_STARTING = 120.0
"""Seconds for a Ray to start, or to be joined, whatever the deadline of a question is."""


def doctor(asked: Asked, *, as_json: bool = False) -> int:
    """Examine the Ray of RAY_ADDRESS, or a private one, print the rows, and return the exit code.

    Ends the process where Ray itself never answers.
    """
    rows: list[Row] = []

    def give_up() -> None:
        rows.append(
            unknown("cluster", "Ray does not answer any more", "see whether its head, or this node's, is frozen")
        )
        if as_json:
            print(to_json(rows), flush=True)
        else:
            show(rows[-1:])

    def noted() -> Iterator[Row]:
        for row in examine(asked, give_up):
            rows.append(row)
            yield row

    with interrupted_by_sigterm():
        if as_json:
            with Working("looking at the cluster"):
                for _ in noted():
                    pass
            print(to_json(rows), flush=True)
        else:
            show(noted())
    return exit_code(rows)


def examine(asked: Asked, give_up: Callable[[], None]) -> Iterator[Row]:
    """The rows, each as soon as it is known. `give_up` is called before the process ends where Ray never answers."""
    address = os.environ.get("RAY_ADDRESS", "")
    if ":" in address and "://" not in address:  # a frozen Ray would hold the connecting for ever
        waits = hanging(address, _STARTING / 2 + asked.seconds)
        if waits:
            fix = "check the address (host:port of the head) and the network; neither it nor the Ray here may be frozen"
            yield Row("cluster", "wrong", waits, fix)
            return
    with ExitStack() as stack:
        try:
            with must_end(_STARTING + asked.seconds, give_up):
                cluster = stack.enter_context(running_cluster())
        except LaunchError as error:
            yield cluster_rows.from_error("cluster", error)
            return
        stack.enter_context(must_end(_STARTING + 20 * asked.seconds, give_up))
        known = all_nodes()
        examined = Examined([node for node in known if node.alive], asked.seconds)
        packages = examined.first()
        yield cluster_rows.nodes(packages, {node.name: node.death for node in known if not node.alive})
        yield cluster_rows.versions(packages)
        yield from _machines(asked, examined)
        yield _storage(asked, examined)
        yield from _data(asked, examined)
        yield _working_directory(asked)
        yield _fit(asked, cluster, examined)
        yield _time(asked, cluster, examined)


def _machines(asked: Asked, examined: Examined) -> Iterator[Row]:
    """Rows about the nodes themselves, whatever is to run there."""
    counted = {node.name: node.resources.get("GPU", 0.0) for node in examined.nodes}
    yield cluster_rows.gpus(
        examined.ask(node_probes.graphics), counted, device=asked.run.scale.device if asked.run else "auto"
    )
    yield _reduction(asked, examined)
    is_remote = asked.storage is None or ("://" in asked.storage and not asked.storage.startswith("file://"))
    local = None if is_remote else Store(asked.storage or "").local_path()
    rooms = examined.ask(node_probes.room, None if local is None else str(local))
    stores = {node.name: node.resources.get("object_store_memory", 0.0) for node in examined.nodes}
    yield cluster_rows.shared_memory(_each(rooms, "shared"), stores)
    yield cluster_rows.disk(_each(rooms, "folders"))


def _each(answers: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: given if isinstance(given, Unanswered) else given[key] for name, given in answers.items()}


def _reduction(asked: Asked, examined: Examined) -> Row:
    members = examined.answering
    if len(members) < 2 <= len(examined.nodes):
        return unknown("all-reduce", "fewer than two nodes answer", "see the row nodes")
    if len(members) < 2:
        return skipped("all-reduce", "one node answers: there is nothing between nodes to measure")
    backend = "nccl" if all(node.resources.get("GPU", 0.0) >= 1 for node in members) else "gloo"
    megabytes = _FLOATS * 4 / 1e6
    first = members[0]
    port = examined.ask_each({first.name: (node_probes.open_port, first.address)})[first.name]
    if isinstance(port, Unanswered):
        return cluster_rows.reduction(
            f"{first.name} {port.why}", backend=backend, megabytes=megabytes, repeats=_REPEATS
        )
    words = (backend, first.address, port)
    rest = (len(members), _FLOATS, _REPEATS, asked.seconds)
    questions = {node.name: (node_probes.exchange, *words, rank, *rest) for rank, node in enumerate(members)}
    # importing torch takes its time too; processes of their own, because they choose among GPUs
    answers = examined.ask_each(questions, seconds=2 * asked.seconds, max_calls=1)
    problems = [f"{name} {given.why}" for name, given in answers.items() if isinstance(given, Unanswered)]
    measured = "; ".join(problems) or {name: megabytes / spent for name, spent in answers.items()}
    return cluster_rows.reduction(measured, backend=backend, megabytes=megabytes, repeats=_REPEATS)


def _storage(asked: Asked, examined: Examined) -> Row:
    """Write a file here and read it on every node, and the other way round; both are removed again."""
    if asked.storage is None:
        return skipped("storage", "give a CONFIG, or run.storage=..., to have it written and read on every node")
    content = secrets.token_hex(16)
    mark = f".raycls-doctor-{content[:12]}"
    replies = {node.name: f"{mark}-{number}" for number, node in enumerate(examined.nodes)}
    try:
        store = within(asked.seconds, Store, asked.storage)
        _refuse_lost(asked.storage, store)
        made = _missing(store)
        try:
            within(asked.seconds, store.write_bytes, mark, content.encode())
            questions = {name: (node_probes.visit, store.uri, mark, content, reply) for name, reply in replies.items()}
            answers = examined.ask_each(questions)
            wrote = [name for name, given in answers.items() if not isinstance(given, Unanswered) and given["wrote"]]
            seen = {name: within(asked.seconds, store.find_bytes, replies[name]) == content.encode() for name in wrote}
        finally:
            # First the mark: who comes late finds nothing and writes nothing.
            with suppress(RayclsError, TimeoutError):
                within(_TIDYING, _tidy, store, [mark, *replies.values()], made)
    except RayclsError as error:
        return cluster_rows.from_error("storage", error)
    except TimeoutError as error:
        return unknown("storage", f"{asked.storage}: {error}", "see whether this file system, or its server, is alive")
    return run_rows.storage(
        store.describe(), answers, is_local=store.is_local, replies=seen, relative=not note.is_kept(asked.storage)
    )


def _refuse_lost(storage: str, store: Store) -> None:
    """Refuse for a job what `raycls submit`, and a run in a job, would refuse."""
    if note.is_job():
        note.refuse_relative(storage, "run.storage")
    refuse_lost(store.uri)


def _missing(store: Store) -> list[Path]:
    """The folders that writing into `store` will make, the innermost first."""
    path = store.local_path()
    made: list[Path] = []
    while path is not None and not path.exists():
        made.append(path)
        path = path.parent
    return made


def _tidy(store: Store, names: list[str], made: list[Path]) -> None:
    for name in names:
        store.delete(name)
    for folder in made:
        with suppress(OSError):  # somebody uses it by now
            folder.rmdir()


def _data(asked: Asked, examined: Examined) -> Iterator[Row]:
    """A row for the path of the data, and one for an address that its paths start from."""
    if asked.run is None:
        yield skipped("data", "give a CONFIG to have its data looked at on every node")
        return
    source = asked.run.data.source
    path = source.path or (DEFAULT_PATH if source.name == "digits" else None)
    root = source.args.get("root")
    remote = [each for each in (path, root) if isinstance(each, str) and is_remote(each)]
    if path is not None and "://" not in path:
        path = os.path.abspath(expand(path, where="data.source.path"))
        answers = examined.ask(node_probes.listing, path, _ENTRIES)
        yield run_rows.data(path, answers, made_by_source=source.name == "digits")
    elif not remote:
        yield skipped("data", f"data.source {source.name} names no local path: only the source itself can tell")
    for uri in remote:
        answers = examined.ask(node_probes.objects, uri, _READ, _REPEATS)
        yield run_rows.objects(hidden(uri).partition("?")[0], answers, size_read=_READ)


def _working_directory(asked: Asked) -> Row:
    here = os.getcwd()
    try:
        package = within(asked.seconds, survey, Path(here))
        secret = [] if note.is_job() else credentials(package)
    except RayclsError as error:
        return cluster_rows.from_error("working directory", error)
    except (OSError, TimeoutError) as error:
        return unknown(
            "working directory", f"{here}: {error}", "start from a smaller folder, or see to its file system"
        )
    return run_rows.working_directory(here, package.size, package.biggest[:_BIGGEST], secret)


def _fit(asked: Asked, cluster: Cluster, examined: Examined) -> Row:
    run = asked.run
    if run is None:
        return skipped("fit", "give a CONFIG to see whether it fits")
    resources = [node.resources for node in examined.answering]
    cpus, gpus = (sum(node.get(name, 0.0) for node in resources) for name in ("CPU", "GPU"))
    device = device_of(run, cluster.gpus)
    executor = choose(run, resources, device, grows=cluster.grows, decoding_s=lambda: math.inf).executor
    run = with_executor(run, executor)
    try:
        check_fit(run, resources, device, executor)
        slots = Slots.of(run, device) if run.search.space else None
        if slots is not None:
            slots.check(resources)
    except RayclsError as error:
        row = cluster_rows.from_error("fit", error)
        if not cluster.grows:
            return row
        waits = f"{row.found}; this cluster grows, so the run would wait for nodes, {run.scale.wait} at most"
        return replace(row, verdict="warning", found=waits)
    if slots is not None:
        return Row("fit", "ok", f"trials: {slots.arithmetic(resources)}")
    image = 3 * run.data.image_size**2
    return run_rows.fit(
        workers=group_size(run, resources, device),
        threads=run.scale.threads,
        share=run.scale.cpus_per_worker,
        cpus=cpus,
        gpus=gpus,
        device=device,
        ahead=run.data.prefetch * run.data.batch_size * image if executor == "ray" else 0,
        store=sum(node.get("object_store_memory", 0.0) for node in resources),
    )


def _time(asked: Asked, cluster: Cluster, examined: Examined) -> Row:
    """A few steps of the real loop, where they would be trained: on a node with a GPU, or on this one."""
    run = asked.run
    if run is None:
        return skipped("time", "give a CONFIG to have a few of its steps trained")
    device = device_of(run, cluster.gpus)
    gpus = 1.0 if device == "cuda" else 0.0
    able = [node for node in examined.answering if node.resources.get("GPU", 0.0) >= gpus]
    if not able and cluster.grows:
        return skipped("time", f"no node can train on {device} yet, and the cluster grows only for a run")
    if not able:
        return unknown("time", f"no node that answers can train on {device}", "see the rows nodes and gpus")
    node = able[0]
    # Named like the folder of a private Ray: what a killed doctor leaves is removed by the next start.
    folder = os.path.join(tempfile.gettempdir(), f"raycls-{os.getpid()}-doctor{secrets.token_hex(4)}")
    words = (config.to_dict(run), folder, os.getcwd(), device, asked.seconds)
    try:
        facts = examined.ask_each(
            {node.name: (rehearse, *words)}, seconds=_STARTING + asked.seconds, num_gpus=gpus, max_calls=1
        )[node.name]
    finally:
        _remove(folder, node, examined)
    if isinstance(facts, Unanswered):
        return unknown("time", facts.why, "give it more time with --timeout")
    if "error" in facts:
        return cluster_rows.from_error("time", from_json(facts["error"]))
    places = sum(int(node.resources.get("CPU", 0.0) / run.scale.cpus) for node in examined.answering)
    places = cluster.gpus if device == "cuda" else places
    workers = group_size(run, [node.resources for node in examined.answering], device)
    return run_rows.estimate(facts, workers=workers, places=places, batch_size=run.data.batch_size)


def _remove(folder: str, node: Node, examined: Examined) -> None:
    examined.ask_each({node.name: (node_probes.remove, folder)}, seconds=_TIDYING)
    if node is examined.nodes[0]:
        shutil.rmtree(folder, ignore_errors=True)
