"""From a run to an artefact that was compared with it: the one function behind `raycls export`."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import onnx
import torch

from raycls.export.artefact import Artefact
from raycls.export.compare import Comparison, Gate, compare, reference_of
from raycls.export.formats.network import OPSET, check_task, half, refuse_unfit, to_onnx
from raycls.export.formats.onnx_file import assemble, metadata_of, serialised
from raycls.export.formats.pt2 import program, saved
from raycls.export.int8.quantise import quantise
from raycls.export.int8.static import Int8
from raycls.export.masks import Maps, compare_masks
from raycls.export.pictures import Pictures, pictures
from raycls.export.preprocessing import Preprocessing, preprocessing_of
from raycls.progress import progress
from raycls.run.folder import RunFolder
from raycls.session.trained.thresholds import Thresholds, thresholds_of
from raycls.session.trained.trained import Network, Trained
from raycls.tasks.build import gives_masks

__all__ = ["GATES", "REJECTED", "Exported", "Format", "Precision", "Wanted", "export"]

Format = Literal["onnx", "pt2"]
Precision = Literal["fp32", "fp16", "int8"]
REJECTED = ".rejected"
"""What the name of a file ends with that did not pass its gate."""
GATES: dict[str, Gate] = {
    "fp32": Gate(agreement=0.999, difference=0.02, drop=None),
    "fp16": Gate(agreement=0.999, difference=0.05, drop=None),
    "int8": Gate(agreement=None, difference=None, drop=0.5),
}
"""By precision, where nothing else is asked."""


@dataclass(frozen=True)
class Wanted:
    """What is to be exported, and what it has to keep."""

    to: Format = "onnx"
    precision: Precision = "fp32"
    inside: bool = True
    """Whether the artefact preprocesses images itself."""
    data: str | None = None
    """Other data to compare on; None: the split that was evaluated during the training."""
    images: int = 1000
    """Most images to compare on."""
    calibration: int = 128
    """Most training images that INT8 takes its ranges from."""
    tensorrt: bool = False
    """Whether INT8 is for TensorRT, whatever is faster here."""
    gate: Gate | None = None
    """None: that of `GATES`."""
    thresholds: Thresholds | None = None
    """Of images with any number of classes: they stand in the metadata, and the gate compares the classes that they
    give."""

    @property
    def suffix(self) -> str:
        return f".{self.to}"

    @property
    def kept(self) -> Gate:
        return self.gate or GATES[self.precision]


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
    """Write `name`.onnx and its report, `name`.onnx.json, into the local `folder`, each complete or not at all.

    The file is compared with the network of `trained` on the same image files; one that does not keep the gate is
    called `name`.onnx.rejected. `preprocessing` replaces that of the run: a test puts a wrong one in and sees the gate
    fail.
    ConfigError or ModelError where the run cannot be exported, DataError where there is nothing to compare on.
    """
    refuse_unfit(trained.run.task, wanted.precision, inside=wanted.inside)
    network, masks = Network(trained, torch.device("cpu"), precision="off"), gives_masks(trained.run.task)
    check_task(network)
    progress("opening the data")
    seen = pictures(trained, split=None, data=wanted.data, most=wanted.images, say=say)
    preprocessing = preprocessing or preprocessing_of(trained, _size(seen, wanted), inside=wanted.inside)
    progress("exporting the network")
    model = Maps(network.model).eval() if masks else network.model
    pt2 = wanted.to == "pt2"
    written = program(model, preprocessing, trained.reading) if pt2 else to_onnx(model, preprocessing)
    thresholds = wanted.thresholds or thresholds_of(trained)
    for line in thresholds.told if thresholds else ():
        say(line)
    wanted = replace(wanted, thresholds=thresholds)
    if masks:
        compared = partial(compare_masks, network, seen)
    else:
        compared = partial(compare, reference_of(network, seen, thresholds and thresholds.array))
    draft = _Draft(trained, wanted, preprocessing, compared, RunFolder(folder), name)
    try:
        if isinstance(written, onnx.ModelProto) and wanted.precision == "int8":
            draft.facts["int8"] = _int8(draft, written, say)
        elif isinstance(written, onnx.ModelProto) and wanted.precision == "fp16":
            draft.write(half(written))
        else:
            draft.write(written)
        return draft.finish(folder)
    finally:
        draft.discard()


def _size(seen: Pictures, wanted: Wanted) -> tuple[int, ...]:
    """That of an image, or of what the network is given."""
    if wanted.inside:
        return seen.image(0).shape[:2]
    sample = seen.sample(0)
    return sample["volume"].shape[1:] if "volume" in sample else sample["image"].shape[:2]


def _int8(draft: _Draft, graph: onnx.ModelProto, say: Callable[[str], None]) -> dict[str, Any]:
    calibration = pictures(draft.trained, split="train", data=None, most=draft.wanted.calibration, say=say)

    def passes(quantised: onnx.ModelProto, facts: dict[str, Any]) -> bool:
        told = {key: value for key, value in facts.items() if key in ("activations", "weight_bits", "float")}
        return not draft.write(quantised, {"int8": told}).failures(draft.wanted.kept)

    with tempfile.TemporaryDirectory(prefix="raycls-int8-") as scratch:
        return quantise(
            Int8(graph, draft.preprocessing, calibration, Path(scratch), tensorrt=draft.wanted.tensorrt), graph, passes
        )


class _Draft:
    """A file on its way: written under a name of its own, compared as it lies there, then named as it has earned."""

    def __init__(
        self,
        trained: Trained,
        wanted: Wanted,
        preprocessing: Preprocessing,
        compared: Callable[[Artefact], Comparison],
        folder: RunFolder,
        name: str,
    ) -> None:
        self.trained, self.wanted, self.preprocessing, self.compared = trained, wanted, preprocessing, compared
        self.folder, self.name = folder, name
        self.facts: dict[str, Any] = {}
        self._waiting = f".{name}.comparing{wanted.suffix}"
        self._comparison: Comparison | None = None

    def write(
        self, network: onnx.ModelProto | torch.export.ExportedProgram, more: Mapping[str, Any] | None = None
    ) -> Comparison:
        """Write the file with `network`, in place of one before, and compare it. `more` is for its metadata."""
        trained = self.trained
        metadata = metadata_of(self.preprocessing, trained.classes, trained.provenance, self.wanted.precision)
        if (several := self.wanted.thresholds) is not None:
            each = dict(zip(trained.classes, several.values, strict=True))
            metadata |= {"activation": "sigmoid", "thresholds": each, "thresholds_of": several.source}
        masks = gives_masks(trained.run.task)
        metadata |= {"answers": "masks"} if masks else {}
        metadata |= dict(more or {})
        if isinstance(network, onnx.ModelProto):
            metadata["opset"] = OPSET
            operator = trained.reading.operator
            about = self.preprocessing, metadata, len(trained.classes), operator
            data = serialised(assemble(network, *about, masks=masks))
        else:
            data = saved(network, metadata)
        self.folder.store.write_bytes(self._waiting, data)
        digest = hashlib.sha256(data).hexdigest()
        self.facts = {"file": f"{self.name}{self.wanted.suffix}", "sha256": digest, "bytes": len(data), **metadata}
        path = self.folder.path(self._waiting)
        self._comparison = self.compared(Artefact(str(path)))
        return self._comparison

    def finish(self, folder: Path) -> Exported:
        """Name the file, and write its report beside it."""
        found, gate, target = self._comparison, self.wanted.kept, f"{self.name}{self.wanted.suffix}"
        if found is None:
            raise ValueError("nothing was written")
        failures = tuple(found.failures(gate))
        facts = {**self.facts, "passed": not failures, "failures": list(failures), "gate": asdict(gate)}
        facts["comparison"] = found.to_dict()
        final = target + REJECTED if failures else target
        report = f"{final}.json"
        for old in (final, report):
            self.folder.store.delete(old)
        self.folder.store.move(self._waiting, final)
        self.folder.write_json(report, facts)
        return Exported(folder / final, folder / report, facts, found, failures)

    def discard(self) -> None:
        self.folder.store.delete(self._waiting)
