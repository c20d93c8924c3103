"""ONNX files that name other files: in their folder or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from raycls.errors import ModelError
from raycls.export.artefact import Artefact
from raycls.export.load import read_onnx


def _external(location: str) -> TensorProto:
    tensor = numpy_helper.from_array(np.ones(4, np.float32), "weights")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def _save(path: Path, *, initializer: TensorProto | None = None, constant: TensorProto | None = None) -> None:
    """`x + weights`; `constant` is inside of the branches of an `If`, two graphs deep."""
    floats = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])
    nodes = [helper.make_node("Add", ["x", "weights"], ["y"])]
    if constant is not None:
        branch = helper.make_graph(
            [helper.make_node("Constant", [], ["inner"], value=constant)], "branch", [], [floats]
        )
        nodes = [helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])], [floats])
    if initializer is not None:
        graph.initializer.append(initializer)
    path.write_bytes(helper.make_model(graph).SerializeToString())


def test_weights_in_the_same_folder_are_taken(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    for location in ("weights.bin", "parts/weights.bin", "./parts/../weights.bin"):
        _save(tmp_path / "model.onnx", initializer=_external(location))
        assert [tensor.name for tensor in read_onnx(tmp_path / "model.onnx").graph.initializer] == ["weights"]


@pytest.mark.parametrize("kind", ["initializer", "constant"])
@pytest.mark.parametrize("location", ["../weights.bin", "parts/../../weights.bin", "/tmp/weights.bin", ""])
def test_weights_elsewhere_are_refused(tmp_path: Path, kind: str, location: str) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (tmp_path / "weights.bin").write_bytes(np.ones(4, np.float32).tobytes())
    _save(folder / "model.onnx", **{kind: _external(location)})
    for opened in (read_onnx, Artefact):
        with pytest.raises(ModelError) as refused:
            opened(folder / "model.onnx")
        assert "outside of its folder" in refused.value.what
        assert refused.value.where == str(folder / "model.onnx")
        assert (location or "without a name") in str(refused.value.found)


def test_a_link_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (tmp_path / "weights.bin").write_bytes(np.ones(4, np.float32).tobytes())
    (folder / "weights.bin").symlink_to(tmp_path / "weights.bin")
    _save(folder / "model.onnx", initializer=_external("weights.bin"))
    with pytest.raises(ModelError):
        read_onnx(folder / "model.onnx")


def test_what_is_no_onnx_file_or_not_ours_is_told(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_bytes(b"\xff" * 40)
    with pytest.raises(ModelError) as refused:
        Artefact(tmp_path / "text.onnx")
    assert "no ONNX file" in refused.value.what
    with pytest.raises(ModelError):
        Artefact(tmp_path / "missing.onnx")
    _save(tmp_path / "foreign.onnx", initializer=numpy_helper.from_array(np.ones(4, np.float32), "weights"))
    with pytest.raises(ModelError) as refused:
        Artefact(tmp_path / "foreign.onnx")
    assert refused.value.found == "no classes in its metadata"
    assert onnx.load(tmp_path / "foreign.onnx").graph.node[0].op_type == "Add"
