"""INT8 by static quantisation: weights per output channel, activations by what they were on training images.

Quantised and dequantised tensors stand in the graph (QDQ), which every execution provider of onnxruntime takes apart in
its own way. Which type the activations should have is a matter of the CPU, so both are built and timed: uint8 with int8
weights (U8S8) and int8 with int8 (S8S8).
"""

from __future__ import annotations

import platform
from collections.abc import Collection, Mapping
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quant_pre_process, quantize_static

from raycls.export.artefact import normalised, session
from raycls.export.formats.network import LOGITS, PIXELS
from raycls.export.pictures import Pictures
from raycls.export.preprocessing import Preprocessing
from raycls.export.timing import interleaved
from raycls.progress import counted, progress

__all__ = ["ACTIVATIONS", "Int8", "milliseconds", "weight_bits"]

ACTIVATIONS = {"U8S8": QuantType.QUInt8, "S8S8": QuantType.QInt8}
_TENSORRT = {"ActivationSymmetric": True, "AddQDQPairToWeight": True, "DedicatedQDQPair": True, "QuantizeBias": False}
"""TensorRT takes zero points of 0 alone, quantises weights and biases itself, and wants a pair of its own for each
input: NVIDIA, "TensorRT Developer Guide", section "Explicit Quantization"."""
_SECONDS = 3.0
"""Of a timing."""


def weight_bits() -> int:
    """Bits of a weight for this CPU. Without VNNI, x86 adds two products of 8 bits in 16 and saturates: 7 bits fit.

    onnxruntime, "Quantize ONNX models", section "Data type selection", recommends the same.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return 8
    try:
        return 8 if "vnni" in Path("/proc/cpuinfo").read_text() else 7
    except OSError:
        return 7


class Int8:
    """Quantises one network in several ways. What the activations were is looked at once."""

    def __init__(
        self,
        network: onnx.ModelProto,
        preprocessing: Preprocessing,
        calibration: Pictures,
        scratch: Path,
        *,
        tensorrt: bool = False,
    ) -> None:
        """`calibration` are the images whose activations give the ranges; `scratch` is a folder for files; `tensorrt`:
        as TensorRT reads it."""
        self.kinds = ("S8S8",) if tensorrt else tuple(ACTIVATIONS)
        self._options = _TENSORRT if tensorrt else {}
        self.calibration, self.preprocessing = calibration, preprocessing
        self._scratch, self._ranges = scratch, scratch / "ranges.json"
        self._network = scratch / "network.onnx"
        # Shapes for the quantiser, which warns where it was not run. Its optimiser would rename the nodes.
        quant_pre_process(network, self._network, skip_optimization=True, skip_symbolic_shape=True)

    @cached_property
    def nodes(self) -> list[onnx.NodeProto]:
        return list(onnx.load(self._network).graph.node)

    @cached_property
    def inputs(self) -> list[np.ndarray]:
        """What the network is given for each image of the calibration, `[1, channels, h, w] float32`."""
        rows = counted(range(len(self.calibration)), "reading images of the calibration", len(self.calibration))
        mean, std = self.preprocessing.mean, self.preprocessing.std
        return [normalised(self.calibration.sample(row)["image"][None], mean, std) for row in rows]

    def quantised(
        self, activations: str, *, floats: Collection[str] = (), alone: Collection[str] | None = None
    ) -> onnx.ModelProto:
        """The network in INT8, without the nodes `floats`; or with nothing but the nodes `alone` in INT8."""
        target = self._scratch / "quantised.onnx"
        if not self._ranges.exists():
            progress("calibrating")
        quantize_static(
            self._network,
            target,
            _Reader(self.inputs),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=weight_bits() == 7,
            activation_type=ACTIVATIONS[activations],
            weight_type=QuantType.QInt8,
            nodes_to_quantize=None if alone is None else list(alone),
            nodes_to_exclude=list(floats),
            calibration_cache_path=self._ranges,
            extra_options=dict(self._options),
        )
        return onnx.load(target)

    def logits(self, network: onnx.ModelProto, most: int) -> np.ndarray:
        """Of the first `most` images of the calibration, `[B, C]`."""
        running = session(network.SerializeToString())
        return np.concatenate([np.asarray(running.run([LOGITS], {PIXELS: one})[0]) for one in self.inputs[:most]])


class _Reader(CalibrationDataReader):
    def __init__(self, inputs: list[np.ndarray]) -> None:
        self._rest = iter(inputs)

    def get_next(self) -> dict[str, np.ndarray] | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        image = next(self._rest, None)
        return None if image is None else {PIXELS: image}


def milliseconds(networks: Mapping[str, onnx.ModelProto], image: np.ndarray) -> dict[str, float]:
    """The shortest time that each network took for `image` `[1, 3, h, w]` on one thread, by name.

    They take turns, so that what else the machine does meets all of them alike.
    """
    running = {name: session(network.SerializeToString(), threads=1) for name, network in networks.items()}
    calls = {name: partial(one.run, [LOGITS], {PIXELS: image}) for name, one in running.items()}
    times = interleaved(calls, seconds=_SECONDS, phase="timing INT8")
    return {name: 1e3 * min(seconds) for name, seconds in times.items()}
