"""Which parts of a network INT8 harms most: each is quantised alone, and what the network says is compared."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from raycls.export.int8.static import Int8
from raycls.progress import counted
from raycls.tasks.reading import ONE, Reading

__all__ = ["groups_of", "harm"]

_MOST_GROUPS = 24
_IMAGES = 32
_WEIGHTED = ("Conv", "Gemm", "MatMul")


def groups_of(nodes: Sequence[onnx.NodeProto]) -> dict[str, list[str]]:
    """Names of the nodes in each part of a network, by the name of its module: `layer1.0`, `head`.

    As fine as gives at most 24 parts; a part without a convolution or a multiplication by weights is none.
    """
    scopes = {node.name: node.name.rpartition("/")[0] for node in nodes}
    found: dict[str, list[str]] = {}
    for depth in range(1, 1 + max((scope.count(".") + 1 for scope in scopes.values()), default=1)):
        finer: dict[str, list[str]] = {}
        for name, scope in scopes.items():
            finer.setdefault(".".join(scope.split(".")[:depth]), []).append(name)
        weighted = {".".join(scopes[node.name].split(".")[:depth]) for node in nodes if node.op_type in _WEIGHTED}
        finer = {part: names for part, names in finer.items() if part in weighted}
        if found and len(finer) > _MOST_GROUPS:
            break
        found = finer
    return found


def harm(int8: Int8, activations: str, network: onnx.ModelProto, reading: Reading = ONE) -> dict[str, float]:
    """The Kullback-Leibler divergence from what the network says to what it says with one part in INT8, by part, in
    nats and as the mean over up to 32 images of the calibration; the largest first."""
    truth = reading.probabilities(int8.logits(network, _IMAGES))
    parts = groups_of(int8.nodes)
    found: dict[str, float] = {}
    for part, names in counted(parts.items(), "looking which layers INT8 harms", len(parts), "parts"):
        said = reading.probabilities(int8.logits(int8.quantised(activations, alone=names), _IMAGES))
        found[part] = reading.divergence(truth, said)
    return dict(sorted(found.items(), key=lambda item: -item[1]))
