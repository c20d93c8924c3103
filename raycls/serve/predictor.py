"""One copy of a trained network that answers requests: decode, batch, compute. It knows neither HTTP nor Ray."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from raycls.data.images.planes import planes_of
from raycls.data.samples import UnfitError
from raycls.errors import DataError, ModelError
from raycls.serve.answer import Answer, refused
from raycls.serve.batches import Batches
from raycls.session.trained.answers import answers
from raycls.session.trained.thresholds import Thresholds
from raycls.session.trained.trained import Network, Trained
from raycls.workdir import set_workdir

__all__ = ["Predictor", "Served", "check"]

_NAME = "the image"


@dataclass(frozen=True)
class Served:
    """What a replica needs to be one. It travels to other processes, which read the weights themselves."""

    trained: Trained
    device: str
    """Of torch: `cpu` or `cuda`."""
    threads: int
    """CPU threads of the network; as many decode beside it."""
    max_batch: int
    max_pixels: int
    """Width times height of an image, checked before it is decoded."""
    workdir: str
    """Where plug-ins are."""
    thresholds: Thresholds | None = None
    """Where an image has any number of classes."""


class Predictor:
    """The network with its weights. `predict` is called from one event loop."""

    def __init__(self, served: Served) -> None:
        set_workdir(served.workdir)
        torch.set_num_threads(served.threads)
        self._trained, self._max_pixels = served.trained, served.max_pixels
        self._thresholds = served.thresholds
        self._network = Network(served.trained, torch.device(served.device))
        self._arrays = served.trained.arrays()
        self._drawing = threading.Lock() if served.trained.draws else nullcontext()
        self._decoding = ThreadPoolExecutor(served.threads + 1, thread_name_prefix="decode")
        self._computing = ThreadPoolExecutor(1, thread_name_prefix="compute")
        self._batches = Batches[dict[str, np.ndarray], np.ndarray](self._batch, most=served.max_batch)
        side = max(256, 2 * served.trained.run.data.image_size)
        black = self._sample(planes_of(served.trained.run.data).black(side, side))
        self._computing.submit(self._logits, [black]).result()  # the first call is slow, and says what is wrong

    def close(self) -> None:
        """End the threads."""
        self._decoding.shutdown()
        self._computing.shutdown()

    async def predict(self, data: bytes, top: int) -> Answer:
        """What the network says about the encoded image `data`, with the `top` most probable classes.

        Whoever sent what is no image, or one that the network cannot be shown, gets 4xx and disturbs no other.
        """
        try:
            sample = await asyncio.get_running_loop().run_in_executor(self._decoding, self._made, data)
        except DataError as error:
            if error.where is None:  # of the task or a plug-in, see `_made`
                raise
            return refused(422, error.what, found=error.found, valid=error.valid)
        batched = await self._batches.result(sample)
        return Answer(200, self._answer(batched.value, top), batched.first_of)

    def _made(self, data: bytes) -> dict[str, np.ndarray]:
        """The sample of an encoded image. A DataError about the image says where; one about the code does not."""
        split = replace(self._trained.split([_NAME], _One(data)), max_pixels=self._max_pixels)
        pixels = np.asarray(split.pixels(0))
        try:
            return self._sample(pixels)
        except UnfitError:
            raise
        except DataError as error:
            error.where = None
            raise

    def _sample(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        with self._drawing:
            return self._trained.sample(self._arrays, self._trained.split([_NAME], _One(pixels)), 0)

    async def _batch(self, samples: Sequence[Mapping[str, np.ndarray]]) -> list[np.ndarray]:
        return await asyncio.get_running_loop().run_in_executor(self._computing, self._logits, samples)

    def _logits(self, samples: Sequence[Mapping[str, np.ndarray]]) -> list[np.ndarray]:
        """`[C] float32` of each sample. An evaluation without a crop makes samples of several shapes: each shape is a
        batch of its own."""
        groups: dict[Any, list[int]] = {}
        for row, sample in enumerate(samples):
            groups.setdefault(tuple((name, array.shape) for name, array in sample.items()), []).append(row)
        found: dict[int, np.ndarray] = {}
        for rows in groups.values():
            with self._drawing:
                said = self._network.rows_of([samples[row] for row in rows])
            if "logits" not in said:
                raise ModelError(
                    "the task of this run gives no logits, so there is nothing to answer with",
                    where=f"task.name: {self._trained.run.task.name}",
                    found=", ".join(said) or "nothing from Task.rows",
                    valid="a task whose `rows` gives `logits` [B, C]",
                )
            found |= zip(rows, said["logits"], strict=True)
        return [found[row] for row in range(len(samples))]

    def _answer(self, logits: np.ndarray, top: int) -> dict[str, Any]:
        several = self._thresholds
        found = answers(logits[None], top, thresholds=several and several.array)
        if not found.valid[0]:
            raise ModelError("the network gave values that are not finite")
        names = [self._trained.classes[place] for place in found.classes[0]]
        pairs = zip(names, found.top[0].tolist(), strict=True)
        classes = [{"class": name, "probability": probability} for name, probability in pairs]
        if several is None or found.labels is None:
            return {**classes[0], "top": classes, "model": self._trained.provenance}
        chances = found.probabilities[0].tolist()
        labels = [
            {"class": self._trained.classes[place], "probability": chances[place], "threshold": several.values[place]}
            for place in np.flatnonzero(found.labels[0]).tolist()
        ]
        return {"labels": labels, "top": classes, "model": {**self._trained.provenance, "thresholds": several.source}}


def check(served: Served) -> None:
    """Build the network here and show it a black image, so that what is wrong with a run is said before anything is
    started. Raises what `Network` raises, and ModelError where the task gives no logits."""
    threads = torch.get_num_threads()
    try:
        Predictor(replace(served, device="cpu")).close()
    finally:
        torch.set_num_threads(threads)


@dataclass(frozen=True)
class _One:
    """A reader of one image."""

    data: bytes | np.ndarray

    def read(self, index: int) -> bytes | np.ndarray:
        return self.data

    def locate(self, index: int) -> str:
        return _NAME
