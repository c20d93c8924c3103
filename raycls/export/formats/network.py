"""The network of a run as an ONNX graph from normalised pixels to logits."""

from __future__ import annotations

import warnings
from ast import literal_eval
from typing import Any

import onnx
import torch
from torch import nn

from raycls.config.sections.task import TaskConfig
from raycls.errors import ConfigError, ModelError, kind_and_line
from raycls.export.preprocessing import Preprocessing
from raycls.session.trained.trained import Network
from raycls.tasks.build import gives_masks, takes_volumes
from raycls.tasks.classification import Classification
from raycls.tasks.multilabel import MultiLabel
from raycls.tasks.segmentation.task import Segmentation
from raycls.tasks.segmentation.volumes import VolumeSegmentation
from raycls.tasks.volumes import VolumeClassification

__all__ = ["LOGITS", "OPSET", "PIXELS", "check_task", "example", "half", "refuse_unfit", "to_onnx"]

OPSET = 20
"""Of every file: the one that torch's exporter writes by default. `antialias` of `Resize` needs 18."""
PIXELS, LOGITS = "normalised", "logits"
_FLOAT = ("LayerNormalization", "Gelu")
"""Operations that a float16 file computes in float32: sums of squares lose most in float16, and onnxruntime 1.32 cannot
open every graph that has these in float16."""
_WEIGHT = ".weight"
_SCOPES = "pkg.torch.onnx.name_scopes"
"""Where torch's exporter writes the path of modules down to a node, as a list of Python."""


def check_task(network: Network) -> None:
    """ConfigError where the task feeds the network otherwise than the built-in tasks do."""
    kind = type(network.task)
    own = min((_own(kind, known) for known in _KNOWN), key=len)
    if own:
        raise ConfigError(
            "only networks of the built-in classification and segmentation can be exported",
            where="task.name",
            found=f"{network.trained.run.task.name}, which has its own {' and '.join(own)}",
            valid="classification, multilabel, segmentation, those of volumes, or a subclass that makes samples, "
            "batches and rows as they do",
        )


def refuse_unfit(task: TaskConfig, precision: str, *, inside: bool) -> None:
    """ConfigError for what is not done of volumes and masks."""
    if not (takes_volumes(task) or gives_masks(task)):
        return
    if inside:
        raise ConfigError(
            "volumes and masks are exported without their preprocessing",
            where="--preprocess inside",
            found=task.name,
            valid="--preprocess outside: the file takes what the network takes, and its metadata says how that is made",
            fix="export what the network takes: --preprocess=outside",
        )
    if precision == "int8":
        raise ConfigError(
            "the ranges of INT8, and the layers that stay float, are chosen by the accuracy of classes of images",
            where="--precision int8",
            found=task.name,
            valid="fp32, fp16",
            fix="--precision=fp32",
        )


_KNOWN = (Classification, MultiLabel, VolumeClassification, Segmentation, VolumeSegmentation)


def _own(kind: type, known: type) -> list[str]:
    """What a task does otherwise than `known`."""
    return [name for name in ("arrays", "batch", "rows") if getattr(kind, name) is not getattr(known, name)]


def example(preprocessing: Preprocessing) -> torch.Tensor:
    """Two black images `[2, channels, h, w] float32`, or volumes: torch takes a batch of one for a constant."""
    return torch.zeros(2, preprocessing.channels, *preprocessing.size)


def to_onnx(model: nn.Module, preprocessing: Preprocessing) -> onnx.ModelProto:
    """`model` (in evaluation mode, on the CPU): `normalised` `[batch, 1 or 3, h, w]` -> `logits` `[batch, C]`, float32.

    ModelError where torch cannot export it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's exporter about itself; what matters is compared afterwards
            program: Any = torch.onnx.export(
                model,
                (example(preprocessing),),
                dynamo=True,
                input_names=[PIXELS],
                output_names=[LOGITS],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                opset_version=OPSET,
                verbose=False,
            )
        return _tidy(program.model_proto)
    except Exception as error:
        raise ModelError(
            "torch cannot export this network",
            found=kind_and_line(error.__cause__ or error),
            valid="a network that torch.export traces, with any number of images in a batch",
            fix="let `forward` neither branch on values nor use the number of images as a constant",
        ) from error


def _tidy(network: onnx.ModelProto) -> onnx.ModelProto:
    """Without the stack traces of this machine, and with nodes named after the modules that they come from."""
    graph = network.graph
    for number, node in enumerate(graph.node):
        node.name = f"{_module(node)}/{number}_{node.op_type}"
        del node.metadata_props[:]
        node.doc_string = ""
    for named in (*graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del named.metadata_props[:]
        named.doc_string = ""
    for function in network.functions:
        for node in function.node:
            del node.metadata_props[:]
            node.doc_string = ""
    return network


def _module(node: onnx.NodeProto) -> str:
    """That of its weight; batch norm that was folded into a convolution leaves its own name behind otherwise."""
    weights = [name.removesuffix(_WEIGHT) for name in node.input if name.endswith(_WEIGHT)]
    scopes = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), "[]")
    modules = weights or [scope for scope in literal_eval(scopes)[-2:-1] if scope and not scope.startswith("_empty_")]
    return modules[0] if modules else "network"


def half(network: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph computing in float16, with float32 at its ends.

    By onnxruntime's converter, after batch norm was folded in float32: it keeps operations in float32 that float16
    cannot do, and values too small for float16 from becoming 0. Those of `_FLOAT` stay float32 too.
    """
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
    from onnxscript import ir

    blocked = [*DEFAULT_OP_BLOCK_LIST, *_FLOAT]
    model = ir.from_proto(convert_float_to_float16(network, keep_io_types=True, op_block_list=blocked))
    model.graph.sort()  # the converter appends its casts, and ONNX wants every node after those it needs
    return ir.to_proto(model)
