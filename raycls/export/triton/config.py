"""`config.pbtxt`: what Triton Inference Server has to know of an exported network, as protobuf text.

The fields are those of `inference.ModelConfig` in `model_config.proto` of triton-inference-server/common.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from raycls.export.artefact import IMAGES, PROBABILITIES

__all__ = ["LABELS", "MODEL", "Serving", "config_text", "contract"]

MODEL, LABELS = "model.onnx", "labels.txt"
_WORKSPACE_BYTES = 2**30
_WARM_SIZE = 256


class _Word(str):
    """The name of an enum's value, which has no quotes."""

    __slots__ = ()


@dataclass(frozen=True)
class Serving:
    """How Triton runs a network."""

    max_batch: int = 32
    """Images that are computed together at most."""
    queue_microseconds: int = 1000
    """For how long a request waits for others."""
    instances: int = 1
    """Copies of the network on each device."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """`auto`: the GPUs where there are some, else the CPU."""
    tensorrt: Literal["fp16", "int8"] | None = None
    """The precision in which TensorRT, within onnxruntime, computes on a GPU; None: without TensorRT."""


def config_text(name: str, facts: Mapping[str, Any], serving: Serving) -> str:
    """The file for the model `name`. `facts` are those of the exported file: `classes`, `preprocessing`."""
    message = {
        "name": name,
        "backend": "onnxruntime",
        "default_model_filename": MODEL,
        "max_batch_size": serving.max_batch,
        **contract(facts),
        "version_policy": {"latest": {"num_versions": 1}},
        "dynamic_batching": {"max_queue_delay_microseconds": serving.queue_microseconds},
        "instance_group": [{"count": serving.instances, "kind": _Word(f"KIND_{serving.device.upper()}")}],
        **({"optimization": _tensorrt(serving.tensorrt)} if serving.tensorrt else {}),
        "model_warmup": [_warmup(facts, size) for size in dict.fromkeys((1, serving.max_batch))],
    }
    return "\n".join(_lines(message)) + "\n"


def contract(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What clients rely on: input and output, which all versions of a model have in common."""
    kind, dims = _input(facts)
    output = {"name": PROBABILITIES, "data_type": _Word("TYPE_FP32"), "dims": [len(facts["classes"])]}
    return {
        "input": [{"name": IMAGES, "data_type": kind, "dims": dims}],
        "output": [{**output, "label_filename": LABELS}],
    }


def _input(facts: Mapping[str, Any]) -> tuple[_Word, list[int]]:
    """Type and sides of one image, without the batch; -1 is any."""
    takes = facts["preprocessing"]["input"]
    size = [-1, -1] if takes["size"] == "any" else list(takes["size"])
    if takes["layout"] == "NHWC":
        return _Word("TYPE_UINT8"), [*size, 3]
    return _Word("TYPE_FP32"), [facts["preprocessing"].get("network_channels", 3), *size]


def _warmup(facts: Mapping[str, Any], batch: int) -> dict[str, Any]:
    """A black batch, before the server says that it is ready: the first one is slow."""
    kind, dims = _input(facts)
    shape = [_WARM_SIZE if side < 0 else side for side in dims]
    inputs = {"key": IMAGES, "value": {"data_type": kind, "dims": shape, "zero_data": True}}
    return {"name": f"batch of {batch}", "batch_size": batch, "inputs": inputs}


def _tensorrt(precision: str) -> dict[str, Any]:
    parameters = {
        "precision_mode": precision.upper(),
        "max_workspace_size_bytes": str(_WORKSPACE_BYTES),
        "trt_engine_cache_enable": "true",
    }
    pairs = [{"key": key, "value": value} for key, value in parameters.items()]
    return {"execution_accelerators": {"gpu_execution_accelerator": [{"name": "tensorrt", "parameters": pairs}]}}


def _lines(message: Mapping[str, Any], indent: str = "") -> list[str]:
    """Protobuf text format: https://protobuf.dev/reference/protobuf/textformat-spec/"""
    found: list[str] = []
    for name, value in message.items():
        values: list[Any] = value if isinstance(value, list) else [value]
        if isinstance(value, list) and all(type(one) is int for one in values):
            found.append(f"{indent}{name}: [ {', '.join(map(str, values))} ]")
            continue
        for one in values:
            if isinstance(one, Mapping):
                found += [f"{indent}{name} {{", *_lines(one, f"{indent}  "), f"{indent}}}"]
            else:
                found.append(f"{indent}{name}: {_scalar(one)}")
    return found


def _scalar(value: str | int | bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, _Word | int):
        return str(value)
    # Octal escapes of UTF-8 are read everywhere, whatever is in the text.
    return '"' + "".join(chr(byte) if _is_plain(byte) else f"\\{byte:03o}" for byte in value.encode()) + '"'


def _is_plain(byte: int) -> bool:
    return 32 <= byte < 127 and byte not in b'"\\'
