"""Networks of volumes, and those whose answers are masks, as files: the same answers in onnxruntime, or no file."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from harness.errors import raised
from harness.jobs import job_of, train
from harness.masks import lesion, write_images, write_volumes
from harness.phantom import phantom, write_data
from torch import nn

from raycls.config.load import load_text
from raycls.errors import ConfigError, DataError
from raycls.export.artefact import Artefact
from raycls.export.export import Exported, Wanted, export
from raycls.export.formats.network import to_onnx
from raycls.export.masks import compare_masks
from raycls.session.trained.trained import Network, Trained, open_trained

_COMMON = "optim: {lr: 0.05}\ntrain: {duration: 4ep, micro_batches: 2, amp: off}\nevaluate: {keep: last}\n"
_KINDS = {
    "images": """
data: {source: {name: masks, args: {classes: [background, disc, spot]}}, batch_size: 4}
augment: {train: [{center_crop: {size: 16}}], eval: [{resize: {size: [18, 22]}}]}
task: {name: segmentation, args: {ignore_index: 255}}
model: {name: unet, args: {width: 4, depth: 2}}
""",
    "volumes": """
data: {source: {name: masks, args: {classes: [background, lesion]}}, batch_size: 4, window: [bone, lung]}
augment: {train: [], eval: []}
task: {name: volume_segmentation}
model: {name: unet, in_channels: 2, args: {dimensions: 3, width: 4, depth: 2}}
""",
    "classes": """
data: {source: {name: nifti}, batch_size: 4, window: [bone]}
augment: {train: [{resize: {size: [8, 12, 12]}}], eval: [{resize: {size: [8, 12, 12]}}]}
task: {name: volume_classification}
model: {name: resnet3d, in_channels: 1, args: {depth: 10, width: 4, stem: 3x3x3}}
""",
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trained]:
    root = tmp_path_factory.mktemp("runs")
    write_images(root / "images", {"train": 6, "val": 3})
    write_volumes(root / "volumes", {"train": 4, "val": 2})
    write_data(root / "classes", 4, "nifti")
    found: dict[str, Trained] = {}
    for name, text in _KINDS.items():
        options = [f"run.storage={root}", f"run.name=run-{name}", f"data.source.path={root / name}"]
        run = load_text(text + _COMMON, "a.yaml", [*options, "scale.workers=0", "data.executor=inline"]).run
        assert train(job_of(run), 0)["state"] == "done"
        found[name] = open_trained(str(root / f"run-{name}"), masks=True)
    return found


def _exported(trained: Trained, folder: Path, **wanted: Any) -> Exported:
    return export(trained, folder, "n", Wanted(inside=False, **wanted))


@pytest.mark.parametrize(
    ("kind", "shape"), [("images", [3, 18, 22]), ("volumes", [2, 10, 20, 24]), ("classes", [1, 8, 12, 12])]
)
def test_onnxruntime_says_what_the_run_says(
    kind: str, shape: list[int], runs: dict[str, Trained], tmp_path: Path
) -> None:
    done = _exported(runs[kind], tmp_path)
    assert done.passed and done.comparison.agreement == 1 and done.comparison.difference < 1e-4, done.failures
    assert done.comparison.metric == ("top1" if kind == "classes" else "dice")
    assert done.comparison.accuracy == done.comparison.artefact_accuracy
    session = onnxruntime.InferenceSession(str(done.path), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["batch", *shape]
    given = np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)
    (found,) = session.run(None, {"images": given})
    spatial: tuple[int, ...] = () if kind == "classes" else tuple(shape[1:])
    assert found.shape == (3, len(runs[kind].classes), *spatial) and np.allclose(found.sum(1), 1, atol=1e-5)
    preprocessing = json.loads(session.get_modelmeta().custom_metadata_map["preprocessing"])
    assert preprocessing["input"]["size"] == shape[1:]
    if kind == "volumes":
        assert preprocessing["windows"] == [[-500, 1300], [-1350, 150]]
        # from Hounsfield units to a mask with nothing but what the metadata says
        volume = phantom(100, 0).astype(np.float32)
        limits = preprocessing["windows"]
        channels = [((volume - low) / (high - low)).clip(0, 1) * 2 - 1 for low, high in limits]
        (maps,) = session.run(None, {"images": np.stack(channels)[None].astype(np.float32)})
        said, truth = maps[0].argmax(0) == 1, lesion(volume.astype(np.int16)) == 1
        assert (maps[0].max() > 0.5) and said.shape == truth.shape


def test_the_dice_of_the_gate_is_that_of_the_evaluation(runs: dict[str, Trained], tmp_path: Path) -> None:
    for kind in ("images", "volumes"):
        done = _exported(runs[kind], tmp_path / kind, to="pt2")
        lines = runs[kind].folder.store.read_bytes("history.jsonl").decode().splitlines()
        last = [record for record in map(json.loads, lines) if "dice" in record][-1]
        assert done.passed and done.comparison.accuracy == pytest.approx(last["dice"], abs=1e-12)


@pytest.mark.parametrize("kind", ["volumes", "classes"])
def test_classes_in_another_order_do_not_pass(
    kind: str, runs: dict[str, Trained], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def turned(model: nn.Module, *about: Any) -> Any:
        other = copy.deepcopy(model)
        head: Any = other.get_submodule("model.fc" if kind == "volumes" else "fc")
        with torch.no_grad():
            head.weight.copy_(head.weight.flip(0))
        return to_onnx(other, *about)

    monkeypatch.setattr("raycls.export.export.to_onnx", turned)
    done = _exported(runs[kind], tmp_path)
    assert not done.passed and done.path.name == "n.onnx.rejected"


def test_half_precision_passes_and_what_cannot_be_done_is_refused(runs: dict[str, Trained], tmp_path: Path) -> None:
    done = _exported(runs["volumes"], tmp_path, precision="fp16")
    assert done.passed and 0 < done.comparison.difference < 0.05
    with raised(ConfigError, where="--precision int8"):
        _exported(runs["classes"], tmp_path, precision="int8")
    with raised(ConfigError, where="--preprocess inside"):
        export(runs["images"], tmp_path, "n", Wanted())


def test_samples_of_another_size_cannot_be_compared(runs: dict[str, Trained], tmp_path: Path) -> None:
    class Odd:
        keys = ("odd",)
        told = ""

        def __len__(self) -> int:
            return 1

        def sample(self, row: int) -> dict[str, np.ndarray]:
            return {"volume": np.zeros((2, 9, 20, 24), np.float32)}

    written = Artefact(_exported(runs["volumes"], tmp_path).path)
    network = Network(runs["volumes"], torch.device("cpu"), precision="off")
    odd: Any = Odd()
    with raised(DataError, where="odd", found="[9, 20, 24], and [10, 20, 24] of the first one"):
        compare_masks(network, odd, written)
