"""What the nodes of a joined cluster see, asked once before a run is placed on them.

A worker on a node that does not see the run folder or the data would fail much later, after the GPUs were taken.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import ray

from raycls.cluster.ask import Unanswered, ask
from raycls.cluster.connection import Cluster
from raycls.cluster.files.read import MARKET
from raycls.config.paths import expand
from raycls.config.sections.run import Run
from raycls.errors import LaunchError, RayclsError
from raycls.jobs.note import missing_secrets
from raycls.launch.placing.fit import DECODING_CPUS, executor_of, workers_on
from raycls.progress import progress
from raycls.quantities import plural
from raycls.run.folder import RunFolder
from raycls.run.versions import differences, installed

__all__ = ["PREEMPTIBLE", "Mark", "Sight", "is_preemptible", "marked"]

PREEMPTIBLE = "raycls_preemptible"
"""A custom resource that says the same as Ray's label `spot`, for nodes whose labels are not ours to set."""
_SECONDS = 60.0
"""How long the nodes have to answer: a process starts on each."""


@dataclass(frozen=True)
class Mark:
    """A file in the run folder that the driver knows the content of."""

    folder: str
    """URI of the run folder."""
    name: str
    digest: str
    """sha256 of the file, in hex."""


def is_preemptible(node: Mapping[str, Any]) -> bool:
    """Whether a node, as `ray.nodes()` tells of it, may be taken away at any time: by Ray's label, or `PREEMPTIBLE`."""
    return node.get("Labels", {}).get(MARKET) == "spot" or node["Resources"].get(PREEMPTIBLE, 0.0) > 0


@contextmanager
def marked(folder: RunFolder) -> Iterator[Mark]:
    """A new file in the folder, for the length of the block."""
    content = secrets.token_bytes(32)
    name = f".seen-{secrets.token_hex(8)}.tmp"
    folder.store.write_bytes(name, content)
    try:
        yield Mark(folder.uri, name, hashlib.sha256(content).hexdigest())
    finally:
        folder.store.delete(name)


@dataclass
class Sight:
    """Asks each node once, also those that join later."""

    run: Run
    mark: Mark | None
    """None where there is no run folder to be seen."""
    cluster: Cluster
    device: str
    say: Callable[[str], None]
    asked: set[str] = field(default_factory=set[str])
    """Ids of the nodes that need not be asked any more."""

    def check(self) -> None:
        """Ask the nodes that may get a worker or decode whether they see the run folder, the data and the secrets.

        Nothing is asked of a private Ray, or of the driver's own node. Raises LaunchError that names the nodes. A node
        that dies or does not answer in time is left to the check that every worker makes for itself.
        """
        if self.cluster.private:
            return
        own = ray.get_runtime_context().get_node_id()
        alive = [node for node in ray.nodes() if node["Alive"]]
        if not self.asked:
            _warn_of_preemption(alive, own, self.say)
            self.asked.add(own)
        data = _local_data(self.run)
        decodes = executor_of(self.run) == "ray"
        questions: list[tuple[str, Mark | None, str]] = []
        for node in alive:
            trains = workers_on(self.run.scale.cpus_per_worker, node["Resources"], self.device) > 0
            reads = node["Resources"].get("CPU", 0.0) >= DECODING_CPUS if decodes else trains
            if node["NodeID"] not in self.asked and (trains or reads):
                questions.append((node["NodeID"], self.mark if trains else None, data if reads else ""))
        self.asked.update(node for node, _, _ in questions)
        answers = _ask(questions, self.say)
        _refuse_blind(answers, RunFolder(self.mark.folder) if self.mark else None, data)
        for answer in answers:
            changed = differences(answer["versions"], installed())
            if changed:
                where = f"on the node {answer['host']}: {', '.join(changed)}"
                self.say(f"warning: {where}; other packages may give other bits")


def _local_data(run: Run) -> str:
    """The absolute path of the data where it is a file or folder here; empty for anything else."""
    path = run.data.source.path
    there = os.path.abspath(expand(path, where="data.source.path")) if path else ""
    return there if there and os.path.exists(there) else ""


def _warn_of_preemption(alive: Sequence[dict[str, Any]], own: str, say: Callable[[str], None]) -> None:
    lasting = [node for node in alive if not is_preemptible(node)]
    if lasting and all(node["NodeID"] != own for node in lasting):
        say("warning: the driver runs on a preemptible node, and the run ends with it: start it on the head node")


def _ask(questions: Sequence[tuple[str, Mark | None, str]], say: Callable[[str], None]) -> list[dict[str, Any]]:
    if not questions:
        return []
    progress(f"asking {plural(len(questions), 'node')} what they see")
    answers = ask({node: (_look, mark, data) for node, mark, data in questions}, _SECONDS)
    for node, given in answers.items():
        if isinstance(given, Unanswered) and given.raised:
            raise LaunchError(
                "a node cannot run raycls",
                where=f"node {node[:12]}",
                found=given.raised,
                fix="install raycls and what it needs on every node, in the same versions",
            )
        if isinstance(given, Unanswered):  # it died meanwhile, or is frozen
            say(f"warning: the node {node[:12]} {given.why}")
    return [given for given in answers.values() if not isinstance(given, Unanswered)]


def _look(mark: Mark | None, data: str) -> dict[str, Any]:
    """What this node sees. Runs there."""
    seen = ""
    if mark is not None:
        try:
            content = RunFolder(mark.folder).store.find_bytes(mark.name)
            seen = "nothing there" if content is None else "another file"
            if content is not None and hashlib.sha256(content).hexdigest() == mark.digest:
                seen = ""
        except RayclsError as error:
            seen = error.found or error.what
    return {
        "host": socket.gethostname(),
        "address": ray.util.get_node_ip_address(),
        "unseen": seen,
        "no_data": bool(data) and not os.path.exists(data),
        "secrets": missing_secrets(os.environ),
        "versions": installed(),
    }


def _refuse_blind(answers: Sequence[dict[str, Any]], folder: RunFolder | None, data: str) -> None:
    def named(key: str) -> list[str]:
        return [f"{answer['host']} ({answer['address']})" for answer in answers if answer[key]]

    if folder is not None and named("unseen"):
        raise LaunchError(
            "run.storage is not shared: a node that would train does not see the run folder",
            where=folder.store.describe(),
            found=f"{next(answer['unseen'] for answer in answers if answer['unseen'])} on {', '.join(named('unseen'))}",
            fix="set run.storage to a folder or URI that every node reaches; nothing was started",
        )
    if named("no_data"):
        raise LaunchError(
            "the data is not on every node",
            where=data,
            found=f"nothing there on {', '.join(named('no_data'))}",
            fix="set data.source.path to a folder that every node reaches; nothing was started",
        )
    if named("secrets"):
        missing = sorted({name for answer in answers for name in answer["secrets"]})
        raise LaunchError(
            "the job needs secrets that are not set on every node",
            where=", ".join(named("secrets")),
            found=f"not in the environment: {', '.join(missing)}",
            fix="start Ray on the nodes with these variables set",
        )
