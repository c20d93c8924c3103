"""What differs between two configs, and which differences a resumed run may have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from raycls.config.errors import Path, dotted
from raycls.config.sections.run import Run
from raycls.config.sections.track import TrackConfig
from raycls.config.write import flow, leaves, to_dict

__all__ = ["HARMLESS", "NOT_SET", "Difference", "difference"]

NOT_SET = "(not set)"

HARMLESS: Mapping[str, str] = {
    **dict.fromkeys(("run.name", "run.storage"), "says where the run is kept, not what it is"),
    **dict.fromkeys(("data.executor", "data.cache"), "all executors give the same bytes, kept or decoded again"),
    "data.processes": "how many processes decode, not what they decode",
    "data.prefetch": "how far decoding runs ahead, not what it decodes",
    "train.budget": "when the run pauses; the steps stay the same",
    "scale.workers": "the global batch and its micro-batches do not depend on who computes them",
    "scale.cpus_per_worker": "what Ray sets aside, not what is computed",
    "scale.max_failures": "how often lost workers are replaced",
    "scale.max_preemption_failures": "how often nodes may be taken away",
    "scale.wait": "how long a run waits for nodes",
    "scale.resize_every": "when workers join",
    "train.stall_timeout": "when a run that hangs is ended",
    "train.activation_checkpointing": "what is kept in memory and what is computed again, to the same bits",
    "train.on_out_of_memory": "what a lack of memory does; where it divided micro-batches they stay divided",
    "train.profile": "what is traced, not what is trained",
    "checkpoint.every": "how much a crash can cost",
    "checkpoint.keep": "how many checkpoints stay",
    "evaluate.keep": "which of the trained weights stand in model/",
    **{f"track.{name}": "what is written down and shown" for name in TrackConfig.model_fields},
    "search": "what is tried beside this run, not what it is",
}
"""Options and sections a run may change when it is resumed, and why that does not make it another run."""


@dataclass(frozen=True)
class Difference:
    """One option that differs. `old` and `new` are YAML in one line, or `(not set)` for a missing argument."""

    path: str
    old: str
    new: str
    harmless: bool

    def __str__(self) -> str:
        return f"{self.path}: {self.old} -> {self.new}"


def difference(old: Run, new: Run) -> list[Difference]:
    """The options whose values differ, in the schema's order. Numbers of another type differ: 1 is not 1.0."""
    before = {path: flow(value) for path, value in leaves(to_dict(old))}
    after = {path: flow(value) for path, value in leaves(to_dict(new))}
    result: list[Difference] = []
    for path in dict.fromkeys((*before, *after)):
        was, now = before.get(path), after.get(path)
        if was == now or (was is None and _below(path, before)) or (now is None and _below(path, after)):
            continue
        result.append(Difference(dotted(path), was or NOT_SET, now or NOT_SET, _harmless(path)))
    return result


def _harmless(path: Path) -> bool:
    return any(dotted(path[:depth]) in HARMLESS for depth in range(1, len(path) + 1))


def _below(path: Path, values: Mapping[Path, str]) -> bool:
    """Whether there are values inside `path`: then an empty mapping on the other side is told by them."""
    return any(other[: len(path)] == path for other in values)
