"""INT8 as TensorRT reads it: by the graph alone, as there is no GPU to ask."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from raycls.export.export import GATES, Wanted, export
from raycls.export.int8 import static
from raycls.session.trained.trained import open_trained


def test_zero_points_are_0_and_weights_and_biases_stay_float(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained)
    monkeypatch.setattr(static, "_SECONDS", 0.0)
    gate = replace(GATES["int8"], drop=100.0)
    wanted = Wanted(precision="int8", calibration=16, images=8, tensorrt=True, gate=gate)
    done = export(open_trained("runs/shapes"), tmp_path, "small", wanted)
    facts = done.facts["int8"]
    assert (facts["activations"], sorted(facts["milliseconds"])) == ("S8S8", ["S8S8", "fp32"])

    graph = onnx.load(done.path).graph
    known = {tensor.name: tensor for tensor in graph.initializer}
    made = {name: node for node in graph.node for name in node.output}
    pairs = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert pairs
    for node in pairs:
        zero = known[node.input[2]]
        assert zero.data_type == TensorProto.INT8 and not np.any(numpy_helper.to_array(zero))
    weighted = [node for node in graph.node if node.op_type in ("Conv", "Gemm")]
    assert len(weighted) >= 3
    for node in weighted:
        back = made[node.input[1]]
        quantised = made[back.input[0]]
        assert (quantised.op_type, back.op_type) == ("QuantizeLinear", "DequantizeLinear")
        assert known[quantised.input[0]].data_type == TensorProto.FLOAT
        assert known[node.input[2]].data_type == TensorProto.FLOAT
