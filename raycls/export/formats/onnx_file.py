"""One ONNX file: preprocessing, network and probabilities, with what a reader has to know of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import onnx
from onnx import TensorProto, helper

from raycls import __version__
from raycls.errors import ModelError
from raycls.export.artefact import IMAGES, PROBABILITIES
from raycls.export.formats.network import LOGITS, PIXELS
from raycls.export.preprocessing import Preprocessing

__all__ = ["assemble", "metadata_of", "serialised"]

_MOST_BYTES = 2**31 - 1
"""A protocol buffer cannot be larger."""


def assemble(
    network: onnx.ModelProto,
    preprocessing: Preprocessing,
    metadata: Mapping[str, Any],
    classes: int,
    operator: str,
    *,
    masks: bool = False,
) -> onnx.ModelProto:
    """`network` (`normalised` -> `logits`) from `images` to `probabilities` `[batch, classes] float32` (where the
    answers are `masks`, of each pixel), by the `operator` of ONNX that makes these of logits."""
    graph = network.graph
    nodes, constants = preprocessing.nodes(IMAGES, PIXELS) if preprocessing.inside else ([], [])
    if preprocessing.inside:
        height, width = preprocessing.fixed or ("height", "width")
        image = helper.make_tensor_value_info(IMAGES, TensorProto.UINT8, ["batch", height, width, 3])
    else:
        image = helper.make_tensor_value_info(
            IMAGES, TensorProto.FLOAT, ["batch", preprocessing.channels, *preprocessing.size]
        )
        nodes = [helper.make_node("Identity", [IMAGES], [PIXELS], name="preprocess/outside")]
    over: dict[str, Any] = {"axis": 1} if operator == "Softmax" else {}
    last = helper.make_node(operator, [LOGITS], [PROBABILITIES], name="probabilities", **over)
    ends = helper.make_tensor_value_info(
        PROBABILITIES, TensorProto.FLOAT, ["batch", classes, *(preprocessing.size if masks else ())]
    )
    whole = helper.make_graph(
        [*nodes, *graph.node, last],
        "raycls",
        [image],
        [ends],
        initializer=[*constants, *graph.initializer],
        value_info=[*graph.value_info, *graph.input, *graph.output],
    )
    model = helper.make_model(
        whole,
        opset_imports=network.opset_import,
        functions=network.functions,
        ir_version=network.ir_version,
        producer_name="raycls",
        producer_version=__version__,
    )
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in metadata.items()}
    helper.set_model_props(model, texts)
    return model


def metadata_of(
    preprocessing: Preprocessing, classes: Sequence[str], provenance: Mapping[str, Any], precision: str
) -> dict[str, Any]:
    """What stands in the metadata of every artefact: names of the entries -> plain JSON."""
    return {
        "classes": list(classes),
        "preprocessing": preprocessing.to_dict(),
        "provenance": dict(provenance),
        "precision": precision,
        "raycls": __version__,
    }


def serialised(model: onnx.ModelProto) -> bytes:
    """`model` as one file, checked. ModelError where it is too large for one."""
    size = model.ByteSize()
    if size > _MOST_BYTES:
        raise ModelError(
            "the network is too large for one ONNX file",
            found=f"{size / 2**30:.1f} GiB",
            valid="less than 2 GiB",
            fix="export it with --precision fp16, which halves it, or with --to pt2",
        )
    onnx.checker.check_model(model)
    return model.SerializeToString()
