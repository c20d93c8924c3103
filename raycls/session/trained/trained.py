"""A trained run as its folder holds it: the config, the classes, which weights, and a network that gives answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn

from raycls.config import load as config
from raycls.config.names.builtin import TASKS
from raycls.config.sections.run import Run
from raycls.data.images.planes import planes_of
from raycls.data.making.sample import Arrays, collate, made
from raycls.data.order import key
from raycls.data.samples import Keys, Reader
from raycls.data.source import Split
from raycls.errors import ConfigError, ModelError
from raycls.models import zoo
from raycls.models.surgery import restore
from raycls.randomness import kept as generators_kept
from raycls.randomness import seed_all
from raycls.run import kept
from raycls.run.folder import RunFolder
from raycls.run.kept import Weights
from raycls.session.plan_file import incomplete, required_plan
from raycls.session.setup import make_arrays, make_task
from raycls.session.trained.precision import answering
from raycls.session.trained.temperature import temperature_of
from raycls.tasks.base import Task
from raycls.tasks.build import gives_masks, operations_of, reading_of
from raycls.tasks.reading import Reading
from raycls.train.plan import Plan
from raycls.train.precision import autocast

__all__ = ["Network", "Trained", "build_network", "open_trained"]

_NO_EPOCH = -1


@dataclass(frozen=True)
class Trained:
    """A run that has weights. Plain values: it travels to other processes, which read the weights themselves."""

    uri: str
    """Opens the run folder in any process."""
    name: str
    """How messages and artefacts call the run: its folder, without options of the address."""
    run: Run
    plan: Plan
    classes: tuple[str, ...]
    """Class names in the order of the network's outputs."""
    weights: Weights
    sha256: str
    """Of `model/model.safetensors`, in hexadecimal; empty where the weights are those of a checkpoint."""

    @property
    def folder(self) -> RunFolder:
        return RunFolder(self.uri)

    @property
    def provenance(self) -> dict[str, Any]:
        """Which run and which weights of it an artefact comes from, as plain JSON."""
        return kept.provenance_of(self.name, self.weights, self.sha256)

    def precision_on(self, device: torch.device) -> str:
        """What its answers are computed in: that of its evaluations where the device has it, see `answering`."""
        plan = self.plan
        return answering(plan.precision, device, trained_on=plan.device, chosen=self.run.train.amp)

    @property
    def temperature(self) -> float:
        """What the logits of these weights are divided by before they are probabilities; 1.0 where none was fitted."""
        return temperature_of(self.folder, self.weights)

    @property
    def reading(self) -> Reading:
        """How the logits of the network become probabilities and classes."""
        return reading_of(self.run.task)

    @property
    def draws(self) -> bool:
        """Whether making a sample may draw from the generators of the process, which the network does too."""
        augment, size = self.run.augment, self.run.data.image_size
        return (
            self.run.task.name not in TASKS
            or operations_of(self.run.task)(augment.eval, train=False, image_size=size).random
        )

    def arrays(self) -> Arrays:
        """What makes samples as the run evaluates them; it travels to other processes."""
        return make_arrays(self.run, self.classes)

    def split(self, keys: Sequence[str], reader: Reader) -> Split:
        """Images without known labels, decoded as the run decodes: `reader` reads that of `keys[i]` at `i`."""
        data, names = self.run.data, keys if isinstance(keys, Keys) else Keys(keys)
        labels = np.zeros(len(names), np.int64)
        how: dict[str, Any] = {"formats": tuple(data.formats), "max_pixels": data.max_pixels}
        return Split("predict", self.classes, labels, names, reader, **how, planes=planes_of(data))

    def sample(self, arrays: Arrays, split: Split, row: int) -> dict[str, np.ndarray]:
        """The sample at `row` as an evaluation makes it, not normalised: `image` `[H, W, 3] uint8` and so on.

        DataError where it cannot be made.
        """
        return made(arrays, split, row, (self.plan.seed, _NO_EPOCH, row), train=False)


class Network:
    """The network of a trained run on a device, in evaluation mode, with its task."""

    def __init__(self, trained: Trained, device: torch.device, *, precision: str | None = None) -> None:
        """`precision` is `off` for float32, None for that of the evaluations of the run."""
        self.trained, self.device = trained, device
        self.precision = precision or trained.precision_on(device)
        self.model, self.task = build_network(trained.run, trained.folder, trained.classes, trained.weights, device)
        self.model.eval()

    @torch.inference_mode()
    def rows(self, arrays: Mapping[str, np.ndarray], *, batch: int = 0) -> dict[str, np.ndarray]:
        """`Task.rows` of samples stacked `[B, ...]`, on the CPU: `logits` `[B, C] float32` of the built-in task.

        To the bit those of an evaluation whose batch at the position `batch` has these samples.
        """
        return self._asked(self.task.rows, arrays, batch)

    @torch.inference_mode()
    def maps_of(self, samples: Sequence[Mapping[str, np.ndarray]], *, batch: int = 0) -> np.ndarray:
        """What a network whose answers are masks says of each pixel or voxel, `[B, C, ...] float32`, as `rows_of`; with
        `Segmentation.crf` what that makes of it."""
        task: Any = self.task
        arrays = collate(samples, lambda row: f"row {row}")
        return self._asked(
            lambda model, given: {"maps": task.answers(task.logits(model, given), given)}, arrays, batch
        )["maps"]

    def _asked(
        self, ask: Callable[[nn.Module, Any], Mapping[str, Any]], arrays: Mapping[str, np.ndarray], batch: int
    ) -> dict[str, np.ndarray]:
        with generators_kept(), self._autocast:
            seed_all(key(self.trained.plan.seed, _NO_EPOCH, batch) >> 1, self.device)
            found = ask(self.model, self.task.batch(arrays, train=False))
        return {name: value.to("cpu").numpy() for name, value in found.items()}

    def rows_of(self, samples: Sequence[Mapping[str, np.ndarray]], *, batch: int = 0) -> dict[str, np.ndarray]:
        """`rows` of samples that are not stacked yet."""
        return self.rows(collate(samples, lambda row: f"row {row}"), batch=batch)

    @cached_property
    def _autocast(self) -> torch.autocast:
        return autocast(self.precision, self.device)


def open_trained(
    uri: str, *, weights: str | None = None, overrides: Sequence[str] = (), masks: bool = False
) -> Trained:
    """Read what the run folder `uri` (a path or `s3://...`) holds, without its weights. `masks`: whether the answers
    may be masks, which others refuse.

    `weights` is `best`, `last` or `step-N`, see `raycls.run.kept.choose`; None is what `model/` holds. `overrides` are
    `path=value` texts, such as `data.max_pixels=1e9`; who takes them from a user says which are allowed.
    ConfigError where there is no run or no such weights.
    """
    folder = RunFolder(uri)
    folder.store.check()
    text = folder.read_config()
    chosen = kept.choose(folder, weights)
    run = config.load_text(text, folder.store.describe(RunFolder.CONFIG), overrides).run
    if not masks:
        _refuse_masks(run)
    plan, info = required_plan(folder), folder.read_json(RunFolder.MODEL_INFO) or {}
    classes = info.get("classes") or ((folder.read_json(RunFolder.ENV) or {}).get("data") or {}).get("classes")
    if classes is None:
        raise incomplete(folder, RunFolder.MODEL_INFO)
    sha256 = "" if chosen.checkpoint else str(info.get("sha256", ""))
    return Trained(folder.uri, folder.store.describe(), run, plan, tuple(classes), chosen, sha256)


def _refuse_masks(run: Run) -> None:
    if gives_masks(run.task):
        raise ConfigError(
            "this command is not for runs whose answers are masks",
            where="task.name",
            found=run.task.name,
            valid="raycls train, eval and report; the command itself for tasks with one answer per image",
        )


def build_network(
    run: Run, folder: RunFolder, classes: Sequence[str], weights: Weights, device: torch.device
) -> tuple[nn.Module, Task]:
    """The network with the weights of a run on `device`, and the task that feeds it."""
    tensors = kept.load(folder, weights)
    task = make_task(run, classes, device)
    model = zoo.build(run.model, len(classes), run.run.seed, load=False)
    model = task.network(model)
    _refuse_other_network(folder, model, tensors)
    restore(model, tensors)
    return model.to(device=device, memory_format=task.layout), task  # pyright: ignore[reportCallIssue]


def _refuse_other_network(folder: RunFolder, model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """ModelError where the config, or the plug-in that it names, has been changed since the training."""
    there, wanted = ({name: list(value.shape) for name, value in of.items()} for of in (tensors, model.state_dict()))
    differ = [name for name in {**wanted, **there} if there.get(name) != wanted.get(name)]
    if differ:
        first = differ[0]
        shapes = [str(of.get(first, "nothing of this name")) for of in (there, wanted)]
        more = f"; and {len(differ) - 1:,} more" if len(differ) > 1 else ""
        raise ModelError(
            "the weights of the run are those of another network than its config describes",
            where=folder.store.describe(RunFolder.CONFIG),
            found=f"{first}: {shapes[0]} in the weights, {shapes[1]} in the network{more}",
            valid="the section model, and the plug-in that it names, as they were when the run was trained",
            fix="undo what was changed there since; another network is another run",
        )
