"""The seam: a task owns what a sample is, what is minimised and what is measured.

The loop, the stream, the checkpoints, the searches and the displays know only `Task`. A task of your own is a subclass
in a file under the working directory, named in the config as `task.name: module:Class`. It is called with a `Setting`
and the arguments in `task.args`.

Where a sample comes from: the data source (`data.source`) hands over `raycls.data.samples.Samples`. Its `reader` has
the image of each sample, `parts` has whatever else belongs to one, such as a mask: `{"mask": reader}`. A task reads
`split.image(index)` (decoded, 8-bit RGB; `split.pixels` is what `data.channels` asks for), `split.read(index, "mask")`
(bytes or an array, as the reader has them) and `split.labels[index]`; of data with any number of classes per sample
that is a row of `split.sets`. Data without one integer label per sample leaves `labels` out (None): then `classes`
means what the task says, such as the classes of pixels, and may be empty.

How the bits stay free of the number of workers: `arrays` draws from the global generators of torch, numpy and Python
only inside `raycls.randomness.seeded(raycls.data.order.key(*key))`; `batch`, `loss` and `counts` may draw from them as
they like, for they are called with generators that follow from (seed, step, micro-batch). `batch` sees one micro-batch:
who mixes samples (MixUp, CutMix) finds the partners inside it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from raycls.config.names.metrics import Metric
from raycls.config.sections.data import AugmentConfig, PatchConfig
from raycls.config.sections.task import LossConfig
from raycls.config.sections.train import SlidingWindowConfig
from raycls.data.images.planes import RGB, Planes
from raycls.data.source import Split
from raycls.data.volumes.reading import AS_READ, Wanted
from raycls.tasks.reading import ONE, Reading

__all__ = ["AUGMENTED", "Key", "Metric", "Setting", "Task", "augmented", "tensor"]

Key = tuple[int, int, int]
"""(seed, epoch, sample); the epoch of an evaluated sample is -1."""


@dataclass(frozen=True)
class Setting:
    """What a run knows and a task may need."""

    seed: int
    classes: tuple[str, ...]
    """The class names of the data in the order of the labels."""
    image_size: int
    """`data.image_size`."""
    max_pixels: int
    """`data.max_pixels`."""
    augment: AugmentConfig
    """Operations, and the mean and standard deviation of each channel in 0..1."""
    loss: LossConfig
    channels_last: bool
    device: torch.device | None = None
    """Where `batch` puts tensors. None in a process that only makes samples, which asks for nothing but `arrays`: leave
    out there what is large, such as a teacher. Such networks belong to the task, never to `model.parameters()`."""
    class_counts: tuple[int, ...] = ()
    """The training samples of each class; empty where nothing is trained."""
    off_epoch: int = 0
    """The first epoch that is trained without augmentation (`augment.off_after`); 0: there is none; -1: all
    are (`train.overfit`)."""

    sizes: tuple[tuple[int, int], ...] = ()
    """`augment.progressive`: the first epoch of each size, ascending, and the size."""

    def size(self, epoch: int) -> int:
        """What operations without a size of their own make of a sample that is trained in `epoch`."""
        return next((size for first, size in reversed(self.sizes) if first <= epoch), self.image_size)

    def augments(self, epoch: int) -> bool:
        """Whether a sample that is trained in `epoch` gets the operations of training, else those of evaluation."""
        return not self.off_epoch or epoch < self.off_epoch

    batch_size: int = 64
    """`data.batch_size`: rows of a global batch."""
    channels: int = 3
    """`model.in_channels`: channels of the images that the network takes."""
    volumes: Wanted = AS_READ
    """`data.window` and `data.spacing`: how volumes are read (`raycls.data.volumes.reading.volume_of`)."""
    planes: Planes = RGB
    """`data.channels` and `data.bit_depth`: what images are decoded to."""
    patch: PatchConfig = field(default_factory=PatchConfig)
    """`data.patch`."""
    windows: SlidingWindowConfig = field(default_factory=lambda: SlidingWindowConfig(size="off"))
    """`evaluate.sliding_window`, whose size is not `auto`."""


class Task(ABC):
    """One sample, one batch, the loss, the counts and the metrics. See the module's docstring."""

    minimised: tuple[str, ...] = ("loss",)
    """Names of the sums of `loss` whose total is minimised. Only a single one may be called `loss`: that is what the
    history calls their total."""
    measured: tuple[str, ...] = ()
    """Names of the other sums of `loss`: their means over samples stand in the history beside the loss."""
    obeys: frozenset[str] = frozenset()
    """`augment.batch`, `augment.off_after`, `data.channels`, `data.patch`, `data.weight`, `evaluate.sliding_window` and
    `loss.balance`, where the task does what these options of the config say: another task is refused with them."""
    metrics: Mapping[str, Metric] = {}
    """What `evaluate.metric`, early stopping, the schedule `plateau` and searches may use: scalars of `summary` and how
    to read them. The first one is shown beside the loss."""

    volumes: bool = False
    """Whether samples are volumes: the operations of `augment` are then those of `raycls.data.volumes`."""
    masks: bool = False
    """Whether the answer is a class per pixel or voxel: commands that want one answer per sample refuse the task."""
    several: bool | None = None
    """Whether a sample has any number of classes (`Split.sets`) or one; None where the task takes what comes."""
    reading: Reading = ONE
    """How the `logits` that `rows` gives become probabilities and classes."""
    start: int = 0
    """At which row of the global batch the micro-batch begins that `batch` and `loss` of a training are called for."""
    least: int = 1
    """Images of a full micro-batch, at least, without which there is nothing to learn."""
    channels: tuple[int, ...] = ()
    """The `Setting.channels` that the task can give a network; empty where it takes what comes."""
    exact: bool = False
    """Whether the network needs `train.reduction: exact`: it keeps buffers that all workers add to."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    def network(self, model: nn.Module) -> nn.Module:
        """What is trained, evaluated and kept: `model`, what the config names, or a network around it."""
        return model

    @abstractmethod
    def arrays(self, split: Split, index: int, key: Key, *, train: bool) -> dict[str, np.ndarray]:
        """The sample at `index` of `split`, decoded and augmented: numbers or booleans, under the same names and of the
        same shapes for every sample. `train` is false for an evaluated sample.

        DataError where it cannot be made.
        """

    @abstractmethod
    def batch(self, arrays: Mapping[str, np.ndarray], *, train: bool) -> Any:
        """What `loss` and `counts` are handed, on the device. `arrays` are those of `arrays`, stacked `[B, ...]`, which
        may be read-only (see `tensor`)."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Any) -> Mapping[str, Tensor]:
        """The sums over samples that `minimised` and `measured` name, each a scalar; the first ones differentiable.

        Called in the precision of the run. Who divides, and by what, is decided once per global batch.
        """

    @abstractmethod
    def counts(self, model: nn.Module, batch: Any) -> Mapping[str, Tensor]:
        """What one batch of an evaluation adds: integers and floats of any shape, the same for every batch.

        Integers are added up exactly, floats as float64 in the order of the batches: so `summary` does not depend on
        the number of workers. Called in evaluation mode, in the precision of the run, without gradients.
        """

    @abstractmethod
    def summary(self, counts: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """The result of an evaluation as plain JSON, from the sums of `counts` (int64 and float64)."""

    def rows(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        """What the network says about each sample of a batch, `[B, ...]` by name: what predictions are made from.

        Called in evaluation mode, in the precision of the run, without gradients. None by default: such a task is
        evaluated, and `raycls predict` refuses it.
        """
        return {}

    def shown(self, batch: Any) -> tuple[np.ndarray, np.ndarray] | None:
        """A batch of training for people to look at: its images `[B, H, W, 3] uint8` with the normalisation undone, and
        the share of each class in each of them, `[B, C]`. None by default: such batches are not drawn."""
        return None

    def scalars(self, summary: Mapping[str, Any]) -> dict[str, int | float]:
        """The numbers of `summary` for one line of the history; `metrics` are among them."""
        return {name: value for name, value in summary.items() if type(value) in (int, float)}

    def example(self, sample: Mapping[str, np.ndarray]) -> tuple[Tensor, ...]:
        """What the network is called with for one black sample of the shape of `sample`, on `setting.device`."""
        black = {name: np.zeros((1, *array.shape), array.dtype) for name, array in sample.items()}
        batch = self.batch(black, train=False)
        return batch if isinstance(batch, tuple) else (batch,)

    def part(self, sample: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """As much of an evaluated sample as a try before a run needs: all of it, unless the task cuts it up itself."""
        return dict(sample)

    def outputs(self, rows: int) -> tuple[int, ...] | None:
        """The shape of what the network returns for `rows` samples; None where that is not looked at."""
        return None

    def constant(self, metric: str) -> str:
        """Why this metric is the same on this data whatever is predicted; empty where it is not."""
        return ""

    def outside(self) -> Mapping[str, Any]:
        """What the task reads besides the data, such as a teacher: plain JSON that says exactly which (`sha256`).

        It is looked at before anything starts and kept in the run folder; a run whose `outside` is another one when it
        is resumed is refused.
        """
        return {}

    def notes(self) -> Sequence[str]:
        """Lines about `outside` for the user, told when a run starts."""
        return ()

    @property
    def separate(self) -> bool:
        """Whether `arrays` leaves the generators of the process alone, so that it may run in a thread beside the steps.

        Of a task of one's own nobody knows.
        """
        return False

    @property
    def sums(self) -> tuple[str, ...]:
        """The names of all sums of `loss`, in the order in which they are added up."""
        return (*self.minimised, *self.measured)

    @property
    def layout(self) -> torch.memory_format:
        """How the weights lie in memory."""
        return torch.channels_last if self.setting.channels_last else torch.contiguous_format


AUGMENTED = "augmented"
"""The array, a boolean per sample, in which `arrays` hands `Setting.augments` on to `batch`, which knows no epoch."""


def augmented(arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether operations on the batch apply to this micro-batch of training: all of it is of one epoch."""
    return AUGMENTED not in arrays or bool(arrays[AUGMENTED].all())


def tensor(array: np.ndarray, device: torch.device | None) -> Tensor:
    """`array` on the device."""
    # Slices may lie in shared memory that must not be written to; torch has no read-only tensors.
    return torch.from_numpy(array if array.flags.writeable else array.copy()).to(device, non_blocking=True)
