"""`python -m raycls.export.pruning.child FOLDER`: structured pruning in a process of its own, which may be ended.

Torch-Pruning traces the network and follows which channels depend on each other. For some networks it does not end, or
takes all memory: the process that started this one watches the time, and this one its own memory. FOLDER holds
`task.json`; what comes of it is `result.json` there, and `model.safetensors` where it went well.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from raycls.errors import RayclsError, kind_and_line, to_json
from raycls.models import zoo
from raycls.models.pruned import describe
from raycls.models.surgery import buffers_kept, find_auxiliary_heads, find_head
from raycls.randomness import seeded
from raycls.run.kept import Weights
from raycls.session.trained.trained import build_network, open_trained

__all__ = ["INPUTS", "OUTPUT", "RESULT", "TASK", "TENSORS", "main", "peak_memory"]

TASK, RESULT, TENSORS = "task.json", "result.json", "model.safetensors"
INPUTS, OUTPUT = "input-", "output"
"""Names of the tensors of the trial forward pass beside those of the network."""
_EVERY_SECONDS = 0.1


def main(folder: Path) -> None:
    """Prune as `task.json` says, and write what came of it."""
    task = json.loads((folder / TASK).read_text())
    threading.Thread(target=_watch, args=(folder, task["memory"]), daemon=True).start()
    try:
        found = _prune(folder, task)
    except RayclsError as error:
        found = {"error": to_json(error)}
    except Exception as error:  # noqa: BLE001 - whatever the library or the network raises
        found = {"failed": kind_and_line(error)}
    _write(folder, found)


def peak_memory() -> int:
    """Bytes of memory that this process had at most."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def _watch(folder: Path, most: int) -> None:
    while peak_memory() <= most:
        time.sleep(_EVERY_SECONDS)
    _write(folder, {"memory": peak_memory()})
    os._exit(1)


def _write(folder: Path, found: dict[str, Any]) -> None:
    waiting = folder / f".{RESULT}.{threading.get_ident()}"
    waiting.write_text(json.dumps(found))
    os.replace(waiting, folder / RESULT)


def _prune(folder: Path, task: dict[str, Any]) -> dict[str, Any]:
    trained = open_trained(task["uri"])
    weights = Weights(**task["weights"])
    classes = len(trained.classes)
    model, _ = build_network(trained.run, trained.folder, trained.classes, weights, torch.device("cpu"))
    unpruned = trained.run.model.model_copy(update={"pruned": {}})
    before = zoo.build(unpruned, classes, trained.run.run.seed, load=False)
    example = tuple(torch.zeros(shape) for shape in task["shapes"])
    _cut_channels(model.eval(), example, classes, task["ratio"])
    pruned = describe(before, model)
    if pruned == trained.run.model.pruned:
        few = f"would lose all its channels at --ratio {task['ratio']:g}"
        found = f"no channel of it can go: each layer gives the outputs, or {few}, or is not known"
        return {"failed": found, "fix": "choose a smaller --ratio"}
    with seeded(0):
        inputs = tuple(torch.randn(2, *part.shape[1:]) for part in example)
        _train_once(model, inputs)
        with torch.no_grad():
            output = model.eval()(*inputs)
    tensors = {f"{INPUTS}{index}": part for index, part in enumerate(inputs)}
    network = {f"model.{name}": tensor.detach().contiguous().clone() for name, tensor in model.state_dict().items()}
    save_file({**network, **tensors, OUTPUT: output.contiguous()}, folder / TENSORS)
    return {"pruned": pruned}


def _cut_channels(model: nn.Module, example: tuple[Tensor, ...], classes: int, ratio: float) -> None:
    """Cut the part `ratio` of the channels of each layer, those of the smallest L2 norm over all that goes with them.

    DepGraph (Fang et al. 2023) says which channels go together. The outputs stay.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the library about layers that it leaves as they are
        import torch_pruning

        heads = [find_head(model, classes), *find_auxiliary_heads(model, classes)]
        pruner = torch_pruning.pruner.MagnitudePruner(
            model,
            example,  # pyright: ignore[reportArgumentType] - a tuple is what the network is called with
            importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=ratio,
            ignored_layers=[model.get_submodule(head) for head in heads if head is not None],
        )
        pruner.step()


def _train_once(model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """A forward and a backward pass as in training: a network that cannot do it cannot be fine-tuned. It leaves the
    network as it was."""
    with buffers_kept(model):
        model.train()(*inputs).sum().backward()
        model.zero_grad()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
