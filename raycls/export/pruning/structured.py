"""Whole channels cut, in a process with limits, and the result made again from its description before it counts."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from raycls.config.sections.model import ModelConfig, Pruned
from raycls.errors import ConfigError, ModelError, RayclsError, from_json, kind_and_line
from raycls.export.pruning.child import INPUTS, OUTPUT, RESULT, TASK, TENSORS
from raycls.models import zoo
from raycls.models.surgery import restore
from raycls.progress import progress
from raycls.session.trained.trained import Trained

__all__ = ["Limits", "check_extra", "cut_channels"]

_CHILD = "raycls.export.pruning.child"
_TOLERANCE = 1e-4
"""Of the largest output: the network that is made again adds in another order where its memory lies otherwise."""


@dataclass(frozen=True)
class Limits:
    """What the search for channels that depend on each other may take."""

    seconds: float = 300.0
    memory: float = 8 * 2.0**30
    """Bytes."""


def check_extra() -> None:
    """ConfigError with the line that installs it where Torch-Pruning is missing."""
    if find_spec("torch_pruning") is None:
        raise ConfigError(
            "structured pruning needs the package torch-pruning",
            where="--structured",
            found="it is not installed",
            fix="pip install 'raycls[prune]'",
        )


def cut_channels(
    trained: Trained,
    model: ModelConfig,
    ratio: float,
    shapes: Sequence[Sequence[int]],
    limits: Limits,
) -> tuple[dict[str, Pruned], dict[str, Tensor]]:
    """What `model.pruned` says of the network without the part `ratio` of its channels, and its tensors.

    `model` is the section that makes the network (see `zoo.settled`), `shapes` what it takes for one sample, with the
    1 in front. ModelError where it cannot be pruned, in `limits`, so that it runs and can be made again.
    """
    with tempfile.TemporaryDirectory(prefix="raycls-prune-") as scratch:
        folder = Path(scratch)
        task = {
            "uri": trained.uri,
            "weights": asdict(trained.weights),
            "ratio": ratio,
            "shapes": [list(shape) for shape in shapes],
            "memory": limits.memory,
        }
        (folder / TASK).write_text(json.dumps(task))
        found = _result(folder, limits)
        tensors = load_file(folder / TENSORS)
    pruned: dict[str, Pruned] = found["pruned"]
    network = {name.removeprefix("model."): tensor for name, tensor in tensors.items() if name.startswith("model.")}
    inputs = tuple(tensors[f"{INPUTS}{index}"] for index in range(len(shapes)))
    _check_same(trained, model.model_copy(update={"pruned": pruned}), network, inputs, tensors[OUTPUT])
    return pruned, network


def _result(folder: Path, limits: Limits) -> dict[str, Any]:
    """What the child wrote; ModelError where it failed or took too much."""
    progress("looking for channels that depend on each other")
    command = [sys.executable, "-m", _CHILD, str(folder)]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=limits.seconds, check=False)
    except subprocess.TimeoutExpired as error:
        raise _cannot(f"not done after {limits.seconds:g} s", "--time-limit, in seconds, allows more") from error
    if not (folder / RESULT).is_file():
        last = (ended.stderr.strip().splitlines() or ["nothing said"])[-1]
        raise _cannot(f"its process ended with code {ended.returncode}: {last[:200]}")
    found = json.loads((folder / RESULT).read_text())
    if "error" in found:
        raise from_json(found["error"])
    if "memory" in found:
        more = "--memory-limit, in GiB, allows more"
        raise _cannot(f"{found['memory'] / 2**30:.1f} GiB of memory, and no end", more)
    if "failed" in found:
        raise _cannot(found["failed"], found.get("fix"))
    return found


def _check_same(
    trained: Trained, model: ModelConfig, tensors: dict[str, Tensor], inputs: tuple[Tensor, ...], expected: Tensor
) -> None:
    """The network as every other process will make it computes what the pruned one did."""
    try:
        made = zoo.build(model, len(trained.classes), trained.run.run.seed, load=False)
        restore(made, tensors)
        with torch.no_grad():
            output = made.eval()(*inputs)
    except RayclsError:
        raise
    except Exception as error:
        raise _cannot(f"it cannot be made again from its sizes: {kind_and_line(error)}") from error
    apart = float((output - expected).abs().max())
    if not apart <= _TOLERANCE * max(1.0, float(expected.abs().max())):
        raise _cannot(f"made again from its sizes, its outputs differ by {apart:.3g}")


def _cannot(found: str, fix: str | None = None) -> ModelError:
    others = "prune single weights: leave --structured out"
    return ModelError(
        "this network cannot be pruned by channels; nothing was written",
        where="--structured",
        found=found,
        valid="a network that Torch-Pruning can follow and that runs afterwards, as ResNets, ConvNeXt or EfficientNet",
        fix=f"{fix}; or {others}" if fix else others,
    )
