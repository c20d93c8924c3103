"""The answers of a network for a part of the images: the same bits in whichever process they are computed.

Images are cut into parts by their positions, and a part into batches of the size that the run evaluated with. What is
in a batch depends on nothing else, so neither do its answers. An image that cannot be decoded is left out of its batch
and has an error instead of an answer.
"""

from __future__ import annotations

import io
import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Self, cast

import numpy as np
import torch
from torch import nn

from raycls.allocator import keep_freed_memory
from raycls.data.making.bad import BadImageError
from raycls.data.samples import Keys, digest_of
from raycls.data.source import Split
from raycls.errors import CheckpointError, ConfigError, DataError, ModelError, RayclsError, kind_and_line
from raycls.run.folder import RunFolder
from raycls.run.model_file import sha256_of
from raycls.session.computing.parted import Compute
from raycls.session.predictions.masks import Masks, mask_of
from raycls.session.trained.answers import answers
from raycls.session.trained.thresholds import Thresholds
from raycls.session.trained.trained import Network, Trained
from raycls.tasks.crf.dense import Crf
from raycls.train.precision import arithmetic
from raycls.workdir import set_workdir

__all__ = ["Part", "Predictor", "Work"]

_AHEAD = 64
"""Images that a decoding thread may be ahead of the network."""


@dataclass(frozen=True)
class Work:
    """What is to be predicted. Plain values: it travels to other processes."""

    trained: Trained
    split: Split
    """The images, without labels."""
    top: int
    """How many of the likeliest classes are kept."""
    every: bool
    """Whether the probabilities of all classes are kept too."""
    device: str
    """`cpu` or `cuda`."""
    workdir: str
    """Where plug-ins come from."""
    part_rows: int
    """Images of a part: whole batches."""
    precision: str
    """`bf16`, `fp16` or `off`: one for all who compute."""
    temperature: float = 1.0
    layer: str = ""
    """The layer of the network whose inputs are asked for, instead of answers; empty where it is answers."""
    thresholds: Thresholds | None = None
    """Where an image has any number of classes; `every` is true there."""
    masks: Keys | None = None
    """What the mask of each image is called, where the answers are masks."""
    crf: tuple[tuple[str, Any], ...] = ()
    """The parameters of the CRF that is joined to masks; empty for none."""

    @property
    def batch(self) -> int:
        """Images of a batch, as the run evaluated."""
        return self.trained.plan.evaluate_batch

    @property
    def parts(self) -> int:
        return -(-len(self.split) // self.part_rows)

    @property
    def phase(self) -> str:
        """What is being done, for a display."""
        return f"extracting features of the split {self.split.name}" if self.layer else "predicting"

    @property
    def doing(self) -> str:
        return "predicting"

    @property
    def remedy(self) -> str:
        return "predict these images alone to find the one, and leave it out; rerun the command to resume"

    @contextmanager
    def computing(self) -> Iterator[Compute]:
        with Predictor(self) as predictor:
            yield lambda number: predictor.part(number).to_bytes()

    def place(self, number: int) -> str:
        """For messages: which images the part `number` has."""
        first = number * self.part_rows
        last = min(first + self.part_rows, len(self.split)) - 1
        keys = f"{self.split.key(first)} to {self.split.key(last)}"
        return f"part {number}, images {first + 1:,} to {last + 1:,}: {keys}"

    @property
    def facts(self) -> dict[str, Any]:
        """What decides the answers besides the images, as plain JSON."""
        run, provenance, several = self.trained.run, self.trained.provenance, self.thresholds
        return {
            **provenance,
            "top": self.top,
            "all": self.every,
            "temperature": self.temperature,
            **({"thresholds": several.source, "threshold_values": list(several.values)} if several else {}),
            "rows": len(self.split),
            "part_rows": self.part_rows,
            "threads": run.scale.threads,
            **({"masks": digest_of(self.masks.digest_parts())} if self.masks is not None else {}),
            **({"crf": dict(self.crf)} if self.crf else {}),
            "device": self.device,
            "precision": self.precision,
            "formats": list(self.split.formats),
            "max_pixels": self.split.max_pixels,
        }


@dataclass(frozen=True)
class Part:
    """The answers for the images of one part, in their order."""

    number: int
    classes: np.ndarray
    """The likeliest classes, `[n, k] int64`; -1 for an image without an answer."""
    top: np.ndarray
    """Their probabilities, `[n, k] float64`; NaN for an image without an answer."""
    probabilities: np.ndarray
    """Of all classes, `[n, C] float64`, or `[n, 0]` where they are not kept."""
    errors: tuple[str | None, ...]
    """Why an image has no answer."""
    unread: tuple[int, ...] = ()
    """Positions in the part of the images whose bytes could not be read here; another machine may see them."""
    features: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.float32))
    """What the layer `Work.layer` is given for each image that could be decoded, `[n, D] float32`."""
    labels: np.ndarray = field(default_factory=lambda: np.empty((0, 0), bool))
    """Which classes an image has, `[n, C] bool`, where it may have any number."""
    masks: Masks | None = None
    """Where the answers are masks."""

    def to_bytes(self) -> bytes:
        """For a file or another process; `from_bytes` gives it back."""
        texts = json.dumps([self.number, self.errors, self.unread]).encode()
        stream = io.BytesIO()
        np.savez(
            stream,
            texts=np.frombuffer(texts, np.uint8),
            classes=self.classes,
            top=self.top,
            probabilities=self.probabilities,
            features=self.features,
            labels=self.labels,
            **cast("dict[str, Any]", {} if self.masks is None else self.masks.arrays()),
        )
        return stream.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """ValueError where it is not what `to_bytes` made."""
        with np.load(io.BytesIO(data), allow_pickle=False) as found:
            number, errors, unread = json.loads(found["texts"].tobytes())
            arrays = found["classes"], found["top"], found["probabilities"]
            # an earlier version kept none of these
            more: dict[str, Any] = {name: found[name] for name in ("features", "labels") if name in found}
            return cls(number, *arrays, tuple(errors), tuple(unread), **more, masks=Masks.of(found))


class Predictor:
    """A context manager that makes parts of `work` in this process.

    `threads` beside this one decode ahead of the network, where decoding draws nothing at random; 0 for none.
    """

    def __init__(self, work: Work, threads: int = 0) -> None:
        set_workdir(work.workdir)
        self._work, self._trained = work, work.trained
        self._device = torch.device(work.device)
        self._arrays = self._trained.arrays()
        self._network: Network | None = None
        self._threads = 0 if self._trained.draws else threads
        self._pool: ThreadPoolExecutor | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        run, plan = self._trained.run, self._trained.plan
        keep_freed_memory()
        self._stack.enter_context(arithmetic(threads=run.scale.threads, strict=plan.reduction == "exact"))
        if self._threads:
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="raycls-decode")
            self._stack.callback(self._pool.shutdown, cancel_futures=True)
        return self

    def __exit__(self, *raised: object) -> None:
        self._stack.close()

    def part(self, number: int, told: Callable[[int], None] = lambda rows: None) -> Part:
        """The part `number`; `told` hears how many of its images are done.

        ModelError where the network fails: that is no fault of an image.
        """
        work = self._work
        start = number * work.part_rows
        rows = range(start, min(start + work.part_rows, len(work.split)))
        made = _Made.empty(len(rows), work)
        samples = self._samples(rows)
        for first in range(0, len(rows), work.batch):
            chosen = range(first, min(first + work.batch, len(rows)))
            batch = dict(zip(chosen, samples, strict=False))  # `chosen` first: no sample is taken without a place
            self._answer(made, batch, (start + first) // work.batch, start)
            told(chosen.stop)
        return made.part(number)

    def _answer(self, made: _Made, batch: Mapping[int, _Sample], index: int, start: int) -> None:
        """Fill in the answers of the batch at `index`, of a part that begins at the row `start`.

        Images of other shapes make a batch of their own.
        """
        groups: dict[Any, list[int]] = {}
        for place, sample in batch.items():
            if isinstance(sample, DataError):
                made.fail(place, sample)
            else:
                kind = tuple((name, array.dtype.str, array.shape) for name, array in sample.items())
                groups.setdefault(kind, []).append(place)
        for places in groups.values():
            samples = [sample for place in places if not isinstance(sample := batch[place], DataError)]
            if self._work.layer:
                made.keep(places, self._features(samples, index))
            elif self._work.masks is not None:
                self._mask(made, places, samples, index, start)
            else:
                made.fill(places, self._logits(samples, index))

    def _mask(
        self, made: _Made, places: Sequence[int], samples: Sequence[Mapping[str, np.ndarray]], index: int, start: int
    ) -> None:
        maps = self._asked(lambda network: network.maps_of(samples, batch=index))
        for place, sample, each in zip(places, samples, maps, strict=True):
            try:
                made.masks[place] = mask_of(self._opened().task, self._work.split, start + place, sample, each)
            except DataError as error:
                made.fail(place, error)

    def _features(self, samples: Sequence[Mapping[str, np.ndarray]], index: int) -> np.ndarray:
        given: list[torch.Tensor] = []

        def look(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            given.append(inputs[0])

        hook = self._opened().model.get_submodule(self._work.layer).register_forward_pre_hook(look)
        try:
            self._rows(samples, index)
        finally:
            hook.remove()
        return given[-1].float().cpu().numpy()

    def _opened(self) -> Network:
        if self._network is None:
            self._network = Network(self._trained, self._device, precision=self._work.precision)
            self._refuse_other_weights()
            if self._work.crf:
                self._network.task.crf = Crf(**dict(self._work.crf))  # type: ignore[attr-defined]
        return self._network

    def _rows(self, samples: Sequence[Mapping[str, np.ndarray]], index: int) -> dict[str, np.ndarray]:
        return self._asked(lambda network: network.rows_of(samples, batch=index))

    def _asked(self, ask: Callable[[Network], Any]) -> Any:
        network = self._opened()
        try:
            return ask(network)
        except RayclsError:
            raise
        except Exception as error:
            raise ModelError(
                "the network failed on images that it was asked about",
                where=self._trained.name,
                found=kind_and_line(error),
                valid=f"images of the size that the run evaluated, {self._trained.run.data.image_size} pixels",
            ) from error

    def _logits(self, samples: Sequence[Mapping[str, np.ndarray]], index: int) -> np.ndarray:
        found = self._rows(samples, index)
        logits = found.get("logits")
        if logits is None or logits.ndim != 2 or logits.shape[1] != len(self._trained.classes):
            raise ConfigError(
                f"the task {self._trained.run.task.name} has no answer of classes for each image",
                where=self._trained.name,
                found=", ".join(f"{name} {list(value.shape)}" for name, value in found.items()) or "Task.rows is empty",
                valid=f"logits of {len(self._trained.classes)} classes for each image, from Task.rows",
            )
        return logits

    def _refuse_other_weights(self) -> None:
        """The run may go on meanwhile: no file has answers of two networks."""
        if self._trained.weights.checkpoint:  # which never changes
            return
        folder = self._trained.folder
        found = sha256_of(folder)
        if found != self._trained.sha256:
            raise CheckpointError(
                "the weights of the run have changed since the command was started",
                where=folder.store.describe(RunFolder.WEIGHTS),
                found=found or "no sum of them",
                valid=self._trained.sha256,
                fix="start anew with --force once the training has ended, or choose a checkpoint with --weights step-N",
            )

    def _samples(self, rows: range) -> Iterator[_Sample]:
        """The samples of `rows`, in order."""
        if self._pool is None:
            yield from map(self._sample, rows)
            return
        waiting: deque[Future[_Sample]] = deque()
        for row in rows:
            waiting.append(self._pool.submit(self._sample, row))
            if len(waiting) > _AHEAD * self._threads:
                yield waiting.popleft().result()
        for future in waiting:
            yield future.result()

    def _sample(self, row: int) -> _Sample:
        try:
            return self._trained.sample(self._arrays, self._work.split, row)
        except DataError as error:
            return error


_Sample = Mapping[str, np.ndarray] | DataError


@dataclass(frozen=True)
class _Made:
    """What is filled in, image by image."""

    work: Work
    classes: np.ndarray
    top: np.ndarray
    probabilities: np.ndarray
    labels: np.ndarray
    errors: list[str | None]
    unread: list[int]
    features: dict[int, np.ndarray]
    masks: dict[int, Masks]

    @classmethod
    def empty(cls, rows: int, work: Work) -> Self:
        count = len(work.trained.classes)
        kept = min(work.top, count)
        return cls(
            work,
            np.full((rows, kept), -1, np.int64),
            np.full((rows, kept), np.nan),
            np.full((rows, count if work.every else 0), np.nan),
            np.zeros((rows, count if work.thresholds else 0), bool),
            [None] * rows,
            [],
            {},
            {},
        )

    def fail(self, place: int, error: DataError) -> None:
        self.errors[place] = f"{error.what}: {error.found}" if error.found else error.what
        if isinstance(error.__cause__, OSError | RayclsError) and not isinstance(error, BadImageError):
            self.unread.append(place)

    def keep(self, places: Sequence[int], features: np.ndarray) -> None:
        self.features.update(zip(places, features, strict=True))

    def fill(self, places: Sequence[int], logits: np.ndarray) -> None:
        thresholds = self.work.thresholds and self.work.thresholds.array
        found = answers(logits, self.work.top, temperature=self.work.temperature, thresholds=thresholds)
        for place, valid in zip(places, found.valid.tolist(), strict=True):
            if not valid:
                self.errors[place] = "the logits of the network are not finite"
        good = np.array(places)[found.valid]
        self.classes[good], self.top[good] = found.classes[found.valid], found.top[found.valid]
        if self.work.every:
            self.probabilities[good] = found.probabilities[found.valid]
        if found.labels is not None:
            self.labels[good] = found.labels[found.valid]

    def part(self, number: int) -> Part:
        arrays = self.classes, self.top, self.probabilities
        features = [self.features[place] for place in sorted(self.features)]
        more: dict[str, Any] = {"features": np.stack(features)} if features else {}
        if self.work.masks is not None:
            more["masks"] = Masks.of_each(len(self.errors), len(self.work.trained.classes), self.masks)
        return Part(number, *arrays, tuple(self.errors), tuple(self.unread), labels=self.labels, **more)
