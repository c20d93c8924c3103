"""From a run to an artefact that was compared with it: the one function behind `raycls export`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from raycls.export.artefact import Artefact
from raycls.export.compare import Comparison, Gate, compare
from raycls.export.network import check_task, half, to_onnx
from raycls.export.onnx_file import assemble, metadata_of, serialised
from raycls.export.pictures import Pictures, pictures
from raycls.export.preprocessing import Preprocessing, preprocessing_of
from raycls.progress import progress
from raycls.run.folder import RunFolder
from raycls.session.trained.trained import Network, Trained

__all__ = ["GATES", "REJECTED", "Exported", "Precision", "Wanted", "export"]

Precision = Literal["fp32", "fp16", "int8"]
REJECTED = ".rejected"
"""What the name of a file ends with that did not pass its gate."""
GATES: dict[str, Gate] = {
    "fp32": Gate(agreement=0.999, difference=0.01, drop=None),
    "fp16": Gate(agreement=0.999, difference=0.05, drop=None),
    "int8": Gate(agreement=None, difference=None, drop=0.5),
}
"""By precision, where nothing else is asked."""


@dataclass(frozen=True)
class Wanted:
    """What is to be exported, and what it has to keep."""

    precision: Precision = "fp32"
    inside: bool = True
    """Whether the artefact preprocesses images itself."""
    data: str | None = None
    """Other data to compare on; None: the split that was evaluated during the training."""
    images: int = 1000
    """Most images to compare on."""
    gate: Gate | None = None
    """None: that of `GATES`."""

    @property
    def suffix(self) -> str:
        return ".onnx"


@dataclass(frozen=True)
class Exported:
    """What `export` wrote."""

    path: Path
    """The file; its name ends with `.rejected` where it did not pass."""
    report: Path
    """The same facts as JSON."""
    facts: dict[str, Any]
    comparison: Comparison
    failures: tuple[str, ...]
    """Why it did not pass, in words; empty where it did."""

    @property
    def passed(self) -> bool:
        return not self.failures


def export(
    trained: Trained,
    folder: Path,
    name: str,
    wanted: Wanted = Wanted(),
    *,
    preprocessing: Preprocessing | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Exported:
    """Write `name`.onnx and `name`.json into the local `folder`, each complete or not at all.

    The file is compared with the network of `trained` on the same image files; one that does not keep the gate is
    called `name`.onnx.rejected, and its report `name`.rejected.json. `preprocessing` replaces that of the run: a test
    puts a wrong one in and sees the gate fail.
    ConfigError or ModelError where the run cannot be exported, DataError where there is nothing to compare on.
    """
    network = Network(trained, torch.device("cpu"))
    check_task(network)
    progress("opening the data")
    seen = pictures(trained, split=None, data=wanted.data, most=wanted.images, say=say)
    height, width = seen.image(0).shape[:2] if wanted.inside else seen.sample(0)["image"].shape[:2]
    preprocessing = preprocessing or preprocessing_of(trained, (height, width), inside=wanted.inside)
    progress("exporting the network")
    graph = to_onnx(network.model, preprocessing)
    if wanted.precision == "fp16":
        graph = half(graph)
    metadata = metadata_of(preprocessing, trained.classes, trained.provenance, wanted.precision)
    data = serialised(assemble(graph, preprocessing, metadata, len(trained.classes)))
    facts = {"file": f"{name}.onnx", "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), **metadata}
    return _gated(network, seen, folder, name, data, wanted.gate or GATES[wanted.precision], facts)


def _gated(
    network: Network, seen: Pictures, folder: Path, name: str, data: bytes, gate: Gate, facts: dict[str, Any]
) -> Exported:
    """Write the file, compare it as it lies there, and give it the name that it has earned."""
    store = RunFolder(folder).store
    waiting, target = f".{name}.comparing.onnx", f"{name}.onnx"
    try:
        store.write_bytes(waiting, data)
        found = compare(network, Artefact(folder / waiting), seen)
        failures = tuple(found.failures(gate))
        facts = {**facts, "passed": not failures, "gate": asdict(gate), "comparison": found.to_dict()}
        facts["failures"] = list(failures)
        final, report = (target + REJECTED, f"{name}{REJECTED}.json") if failures else (target, f"{name}.json")
        for old in (final, report):
            store.delete(old)
        store.move(waiting, final)
        RunFolder(store).write_json(report, facts)
    finally:
        store.delete(waiting)
    return Exported(folder / final, folder / report, facts, found, failures)
