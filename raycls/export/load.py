"""Opens an ONNX file only where all of it is in its folder.

An ONNX file may name other files for its weights. One that names a file elsewhere (`../../secrets`, `/etc/...`, a
link) would have it read, and what was read become a part of what the network says.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from raycls.errors import ModelError

__all__ = ["check_external_data", "read_onnx"]


def read_onnx(path: str | Path) -> onnx.ModelProto:
    """The model at `path` without the weights of other files. ModelError where it is none, or where one of those
    files is not in its folder."""
    try:
        model = onnx.load(path, load_external_data=False)
    except (OSError, DecodeError) as error:
        raise ModelError("this is no ONNX file that can be read", where=str(path), found=str(error)) from error
    check_external_data(model, path)
    return model


def check_external_data(model: onnx.ModelProto, path: str | Path) -> None:
    """ModelError where a tensor of `model`, which was read from `path`, is in a file outside of its folder."""
    folder = os.path.realpath(Path(path).parent)
    for tensor in _tensors(model):
        if not uses_external_data(tensor):
            continue
        location = ExternalDataInfo(tensor).location
        there = os.path.realpath(os.path.join(folder, location))
        if not location or os.path.isabs(location) or os.path.commonpath([folder, there]) != folder:
            raise ModelError(
                "an ONNX file must not have weights outside of its folder",
                where=str(path),
                found=f"{tensor.name or 'a tensor'} in {location or 'a file without a name'}",
                valid=f"files in {folder}",
                fix="do not use this file unless you know who made it; put its weights beside it and name them so",
            )


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from _of_graph(model.graph)
    for function in model.functions:
        yield from _of_nodes(function.node)
    for training in model.training_info:
        yield from _of_graph(training.initialization)
        yield from _of_graph(training.algorithm)


def _of_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _of_nodes(graph.node)


def _of_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            yield from (sparse.values, sparse.indices)
        for graph in (attribute.g, *attribute.graphs):
            yield from _of_graph(graph)
