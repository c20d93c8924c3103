"""INT8: what is quantised and how, on which images, and what stays float where it costs too much."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from raycls.export.artefact import Artefact
from raycls.export.export import GATES, Wanted, export
from raycls.export.int8 import static
from raycls.export.int8.sensitivity import groups_of, harm
from raycls.session.data.scored import find_record
from raycls.session.trained.trained import Trained, open_trained


@pytest.fixture
def run(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Trained:
    monkeypatch.chdir(trained)
    monkeypatch.setattr(static, "_SECONDS", 0.0)
    return open_trained("runs/shapes")


def _weights(path: Path) -> dict[str, tuple[int, int]]:
    """What each convolution and each multiplication multiplies by: type, and how many scales there are."""
    graph = onnx.load(path).graph
    known = {tensor.name: tensor for tensor in graph.initializer}
    made = {name: node for node in graph.node for name in node.output}
    found = {}
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            source = made.get(node.input[1])
            if source is None:
                found[node.name] = (known[node.input[1]].data_type, 0)
            else:
                assert source.op_type == "DequantizeLinear"
                scales = numpy_helper.to_array(known[source.input[1]])
                found[node.name] = (known[source.input[0]].data_type, scales.size)
    return found


def test_int8_weights_have_a_scale_per_channel_and_ranges_of_named_training_samples(
    run: Trained, tmp_path: Path
) -> None:
    wanted = Wanted(precision="int8", calibration=20, gate=replace(GATES["int8"], drop=100.0))
    done = export(run, tmp_path, "small", wanted)
    assert done.passed
    found = _weights(done.path)
    assert {kind for kind, _ in found.values()} == {TensorProto.INT8}
    assert all(scales > 1 for _, scales in found.values())
    facts = done.facts["int8"]
    record = find_record(run.folder)
    assert record is not None
    train = record.parts["train"]
    assert facts["calibration"]["data"] == "split train"
    assert facts["calibration"]["keys"] == [train.name(row * len(train) // 20) for row in range(20)]
    assert sorted(facts["milliseconds"]) == ["S8S8", "U8S8", "fp32"]
    assert min(facts["milliseconds"].values()) > 0
    assert (facts["float"], "harm" in facts) == ([], False)
    assert done.facts["precision"] == "int8"
    ends = Artefact(done.path)
    assert ends.probabilities([np.zeros((50, 40, 3), np.uint8)]).sum() == pytest.approx(1, abs=1e-5)


def test_where_int8_costs_too_much_its_worst_parts_stay_float(
    run: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gate that nothing keeps: half of the parts become float, those with the largest harm first."""
    wanted = Wanted(precision="int8", calibration=16, gate=replace(GATES["int8"], drop=-101.0))
    done = export(run, tmp_path, "small", wanted)
    assert (done.passed, done.path.name) == (False, "small.onnx.rejected")
    facts = done.facts["int8"]
    harms = list(facts["harm"].values())
    assert harms == sorted(harms, reverse=True)
    assert min(harms) >= 0
    assert facts["float"] == list(facts["harm"])[: len(harms) // 2]
    assert len(facts["float"]) >= 1
    found = _weights(done.path)
    for name, (kind, _) in found.items():
        part = next(part for part in facts["harm"] if name.startswith(part))
        assert (kind == TensorProto.FLOAT) == (part in facts["float"]), name
    assert "kept" in facts["milliseconds"]


def test_harm_is_the_divergence_of_what_the_network_says() -> None:
    """Log-odds 0 and 2 of two images become 1 and 2: the divergence is ln(cosh(1/2)) for the first, 0 for the other."""

    class Fake:
        nodes = [helper.make_node("Conv", ["x", "w"], ["y"], name="body/0_Conv")]

        def logits(self, network: object, most: int) -> np.ndarray:
            return np.array([[0.0, 0.0], [0.0, 2.0]] if network == "float" else [[0.0, 1.0], [0.0, 2.0]])

        def quantised(self, activations: str, *, alone: list[str]) -> str:
            assert (activations, alone) == ("U8S8", ["body/0_Conv"])
            return "int8"

    found = harm(Fake(), "U8S8", "float")  # type: ignore[arg-type]
    assert found == {"body": pytest.approx(np.log(np.cosh(0.5)) / 2)}


def test_parts_are_modules_as_fine_as_two_dozen_allow() -> None:
    def nodes(*scopes: str) -> list[onnx.NodeProto]:
        return [
            helper.make_node("Conv", ["x"], ["y"], name=f"{scope}/{index}_Conv") for index, scope in enumerate(scopes)
        ]

    two = nodes("layer1.0.conv1", "layer1.0.conv2", "layer2.0.conv1", "fc")
    two.append(helper.make_node("Relu", ["x"], ["y"], name="relu/4_Relu"))
    assert groups_of(two) == {
        "layer1.0.conv1": ["layer1.0.conv1/0_Conv"],
        "layer1.0.conv2": ["layer1.0.conv2/1_Conv"],
        "layer2.0.conv1": ["layer2.0.conv1/2_Conv"],
        "fc": ["fc/3_Conv"],
    }
    many = nodes(*(f"layer{stage}.{block}.conv{index}" for stage in (1, 2) for block in range(6) for index in range(3)))
    assert len(groups_of(many)) == 12
    assert groups_of(many)["layer1.0"] == [f"layer1.0.conv{index}/{index}_Conv" for index in range(3)]


@pytest.mark.parametrize(
    ("machine", "flags", "bits"),
    [("x86_64", "avx2 fma", 7), ("x86_64", "avx512_vnni", 8), ("AMD64", "avx_vnni", 8), ("aarch64", "asimd", 8)],
)
def test_weights_have_the_bits_that_the_cpu_adds_without_saturating(
    monkeypatch: pytest.MonkeyPatch, machine: str, flags: str, bits: int
) -> None:
    monkeypatch.setattr(static.platform, "machine", lambda: machine)
    monkeypatch.setattr(static.Path, "read_text", lambda path: f"flags : {flags}\n")
    assert static.weight_bits() == bits
