"""A trained run as an ONNX file: the same answers for the same image files, or no file."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from PIL import Image
from torch import nn

from raycls.errors import DataError
from raycls.export.artefact import Artefact
from raycls.export.compare import compare, reference_of
from raycls.export.export import GATES, Exported, Wanted, export
from raycls.export.formats.network import half, to_onnx
from raycls.export.pictures import pictures
from raycls.export.preprocessing import Crop, Resize, preprocessing_of
from raycls.session.trained.trained import Network, Trained, open_trained


@pytest.fixture(scope="module")
def home(trained: Path) -> Path:
    return trained


@pytest.fixture(scope="module")
def graphs() -> list[onnx.ModelProto]:
    """What torch's exporter made of the run's network: it takes seconds."""
    return []


@pytest.fixture(scope="module")
def exported(home: Path, tmp_path_factory: pytest.TempPathFactory, graphs: list[onnx.ModelProto]) -> Exported:
    def kept(*args: Any) -> onnx.ModelProto:
        graphs.append(to_onnx(*args))
        return graphs[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setattr("raycls.export.export.to_onnx", kept)
        return export(open_trained("runs/shapes"), tmp_path_factory.mktemp("exported"), "shapes-fp32")


@pytest.fixture
def run(home: Path, monkeypatch: pytest.MonkeyPatch, exported: Exported, graphs: list[onnx.ModelProto]) -> Trained:
    """The run, whose network is exported once for all tests."""
    monkeypatch.chdir(home)
    monkeypatch.setattr("raycls.export.export.to_onnx", lambda *args: copy.deepcopy(graphs[0]))
    return open_trained("runs/shapes")


def test_the_file_answers_as_the_run_does_on_image_files(exported: Exported, home: Path) -> None:
    assert (exported.passed, exported.path.name) == (True, "shapes-fp32.onnx")
    found = exported.comparison
    assert (found.images, found.data, found.agreement) == (24, "split val", 1.0)
    assert found.difference < 2e-3  # some pixels differ by one level
    session = onnxruntime.InferenceSession(exported.path, providers=["CPUExecutionProvider"])
    ((name, kind, shape),) = [(node.name, node.type, node.shape) for node in session.get_inputs()]
    assert (name, kind, shape) == ("images", "tensor(uint8)", ["batch", "height", "width", 3])
    ((name, kind, shape),) = [(node.name, node.type, node.shape) for node in session.get_outputs()]
    assert (name, kind, shape) == ("probabilities", "tensor(float)", ["batch", 3])
    image = np.asarray(Image.open(home / "photos/circle/000.png").convert("RGB"))
    (twice,) = session.run(None, {"images": np.stack([image, image])})
    (once,) = session.run(None, {"images": image[None]})
    assert np.allclose(twice.sum(1), 1)
    assert np.allclose(twice, once, atol=1e-6)


def test_the_file_says_what_it_is(exported: Exported, run: Trained) -> None:
    assert sorted(path.name for path in exported.path.parent.iterdir()) == ["shapes-fp32.onnx", "shapes-fp32.onnx.json"]
    model = onnx.load(exported.path)
    assert [(entry.domain, entry.version) for entry in model.opset_import if entry.domain == ""] == [("", 20)]
    texts = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(texts["classes"]) == ["circle", "square", "stripes"]
    assert json.loads(texts["provenance"]) == run.provenance
    told = json.loads(texts["preprocessing"])
    assert told["operations"] == [{"resize": {"size": 28}}, {"center_crop": {"size": 24}}]
    assert (told["mean"], told["std"], told["where"]) == ([0.4, 0.5, 0.6], [0.2, 0.25, 0.3], "inside")
    assert json.loads(exported.report.read_text())["comparison"]["images"] == 24


def _blue_first(path: Path) -> None:
    """Change the order of the channels in a file."""
    model = onnx.load(path)
    model.graph.initializer.append(numpy_helper.from_array(np.array([2, 1, 0]), "order"))
    for node in model.graph.node:
        node.input[:] = ["blue_first" if name == "images" else name for name in node.input]
    model.graph.node.insert(0, helper.make_node("Gather", ["images", "order"], ["blue_first"], axis=3))
    onnx.save(model, path)


def test_other_channels_do_not_pass(exported: Exported, run: Trained, tmp_path: Path) -> None:
    import torch

    path = tmp_path / "bgr.onnx"
    path.write_bytes(exported.path.read_bytes())
    _blue_first(path)
    seen = pictures(run, split=None, data=None, most=1000, say=print)
    found = compare(reference_of(Network(run, torch.device("cpu")), seen), Artefact(path))
    assert len(found.failures(GATES["fp32"])) == 2
    assert found.difference > 0.05


@pytest.mark.parametrize(
    "changed",
    [
        {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
        {"steps": (Resize((24, 24)), Crop((24, 24)))},
        {"steps": (Resize((28,), "bicubic"), Crop((24, 24)))},
    ],
    ids=["mean", "size", "bicubic"],
)
def test_another_preprocessing_is_rejected(run: Trained, tmp_path: Path, changed: dict) -> None:
    own = preprocessing_of(run, (40, 40), inside=True)
    done = export(run, tmp_path, "wrong", preprocessing=replace(own, **changed))
    assert not done.passed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["wrong.onnx.rejected", "wrong.onnx.rejected.json"]
    assert json.loads(done.report.read_text())["passed"] is False


def test_half_precision_computes_in_float16_behind_the_same_ends(run: Trained, tmp_path: Path) -> None:
    done = export(run, tmp_path, "half", Wanted(precision="fp16"))
    assert done.passed
    kinds = {entry.data_type for entry in onnx.load(done.path).graph.initializer if entry.name.endswith("weight")}
    assert kinds == {onnx.TensorProto.FLOAT16}
    session = onnxruntime.InferenceSession(done.path, providers=["CPUExecutionProvider"])
    assert [node.type for node in (*session.get_inputs(), *session.get_outputs())] == ["tensor(uint8)", "tensor(float)"]


def test_layer_norm_and_gelu_stay_float32_in_half_precision(run: Trained) -> None:
    layers = [nn.Flatten(), nn.Linear(3 * 24 * 24, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 3)]
    network = to_onnx(nn.Sequential(*layers).eval(), preprocessing_of(run, (40, 40), inside=True))
    converted = half(network)
    del converted.graph.value_info[:]  # what the converter left is of before
    inferred = onnx.shape_inference.infer_shapes(converted, strict_mode=True).graph
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    kinds = {value.name: value.type.tensor_type.elem_type for value in values}
    kinds |= {entry.name: entry.data_type for entry in inferred.initializer}
    found: dict[str, set[int]] = {}
    for node in inferred.node:
        found.setdefault(node.op_type, set()).update(kinds[name] for name in (*node.input, *node.output) if name)
    assert found["LayerNormalization"] == found["Gelu"] == {onnx.TensorProto.FLOAT}
    assert found["Gemm"] == {onnx.TensorProto.FLOAT16}  # the weights are what a smaller file is for


def test_outside_takes_what_the_operations_and_the_normalisation_make(run: Trained, tmp_path: Path) -> None:
    done = export(run, tmp_path, "outside", Wanted(inside=False))
    assert done.passed
    assert done.comparison.difference < 1e-5  # nothing is resampled
    session = onnxruntime.InferenceSession(done.path, providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()
    assert (taken.type, taken.shape) == ("tensor(float)", ["batch", 3, 24, 24])


def test_a_program_of_torch_answers_as_the_run_does(run: Trained, home: Path, tmp_path: Path) -> None:
    import torch

    done = export(run, tmp_path, "shapes", Wanted(to="pt2"))
    assert (done.passed, done.path.name) == (True, "shapes.pt2")
    assert done.comparison.difference < 2e-3
    image = np.asarray(Image.open(home / "photos/square/000.png").convert("RGB"))
    module = torch.export.load(str(done.path)).module()
    said = module(torch.from_numpy(np.stack([image] * 3))).detach().numpy()
    assert np.allclose(said, Artefact(done.path).probabilities([image] * 3), atol=1e-6)
    assert Artefact(done.path).classes == ("circle", "square", "stripes")


def test_nothing_of_this_machine_but_the_name_of_the_run_is_in_a_file(exported: Exported, run: Trained) -> None:
    data = exported.path.read_bytes().replace(run.name.encode(), b"")
    assert b"site-packages" not in data
    assert str(Path(__file__).parents[2]).encode() not in data


@pytest.mark.parametrize(
    ("split", "fix"),
    [
        (None, "name other images with --data PATH, or put the data of the run where it was when it was trained"),
        ("train", "put the data of the run where it was when it was trained"),
    ],
)
def test_without_the_data_of_the_run_what_helps_here_is_said(
    home: Path, tmp_path: Path, split: str | None, fix: str
) -> None:
    folder = shutil.copytree(home / "runs" / "shapes", tmp_path / "elsewhere")
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(config.replace("path: photos", "path: gone"))
    with pytest.raises(DataError) as away:
        pictures(open_trained(str(folder)), split=split, data=None, most=8, say=print)
    assert (str(away.value.where).endswith("/gone"), away.value.fix) == (True, fix)
