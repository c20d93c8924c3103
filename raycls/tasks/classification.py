"""What is optimised: from the bytes of a slice to a loss that is a sum over samples."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from raycls.data.order import key
from raycls.tasks.losses import Loss

__all__ = ["Classification", "MicroBatch", "digests"]


@dataclass(frozen=True)
class MicroBatch:
    """A part of the global batch: `images` `[B, 3, H, W] float32`, `labels` `[B] int64`, on the device."""

    index: int
    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


class Classification:
    """One label per image.

    Everything it returns is a sum over samples: who divides, and by what, is decided once per global batch.
    """

    def __init__(
        self,
        *,
        seed: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        loss: Loss,
        amp: torch.dtype | None,
        channels_last: bool,
        device: torch.device,
    ) -> None:
        self.seed = seed
        self._loss = loss
        self.amp = amp
        self.device = device
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        # (x / 255 - mean) / std as one multiplication and one addition
        self._scale = (1 / (255 * torch.tensor(std, dtype=torch.float64))).float().to(device).view(1, 3, 1, 1)
        shift = -torch.tensor(mean, dtype=torch.float64) / torch.tensor(std, dtype=torch.float64)
        self._shift = shift.float().to(device).view(1, 3, 1, 1)

    def images(self, pixels: np.ndarray) -> Tensor:
        """`[B, H, W, 3] uint8` to normalised `[B, 3, H, W] float32` on the device, in the chosen layout."""
        moved = _tensor(pixels).to(self.device, non_blocking=True).permute(0, 3, 1, 2)
        images = moved.to(torch.float32, memory_format=self.layout)
        return images.mul_(self._scale).add_(self._shift)

    def micro_batches(
        self, pixels: np.ndarray, labels: np.ndarray, parts: list[tuple[int, int, int]]
    ) -> Iterator[MicroBatch]:
        """The `(micro-batch, start, stop)` parts of a slice, one at a time."""
        targets = _tensor(labels).to(self.device, non_blocking=True)
        for index, start, stop in parts:
            if start == stop:
                yield MicroBatch(index, torch.empty(0, 3, 0, 0), targets[:0])
            else:
                yield MicroBatch(index, self.images(pixels[start:stop]), targets[start:stop])

    def seed_forward(self, step: int, micro: int) -> None:
        """Seed what dropout and its like draw from: a function of the position, never carried along.

        numpy's and Python's generators too: layers that are left out at random often ask these.
        """
        seed = key(self.seed, step, micro) >> 1
        # torch.manual_seed would also leave a note, with a traceback, for GPUs that nobody uses: a millisecond.
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        np.random.seed(seed & 0xFFFFFFFF)
        random.seed(seed)

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=self.amp or torch.bfloat16, enabled=self.amp is not None)

    def loss(self, model: nn.Module, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        """Summed loss (differentiable) and the number of correct top-1 predictions of a micro-batch."""
        with self.autocast():
            logits = model(batch.images)
        logits = logits.float()
        loss = self._loss(logits, batch.labels)
        correct = (logits.detach().argmax(1) == batch.labels).sum()
        return loss, correct


def digests(pixels: np.ndarray) -> list[str]:
    """sha256 of each image of `[B, H, W, C] uint8`, over its bytes in that order."""
    return [hashlib.sha256(image.tobytes()).hexdigest() for image in pixels]


def _tensor(array: np.ndarray) -> Tensor:
    # Slices may lie in shared memory that must not be written to; torch has no read-only tensors.
    return torch.from_numpy(array if array.flags.writeable else array.copy())


class generators_put_back:  # noqa: N801 - used like a function
    """The loop seeds torch's generator for every forward pass; a process that trains itself gets its own back."""

    def __enter__(self) -> None:
        self.before = torch.get_rng_state(), np.random.get_state(), random.getstate()

    def __exit__(self, *error: object) -> None:
        torch.set_rng_state(self.before[0])
        np.random.set_state(self.before[1])
        random.setstate(self.before[2])
