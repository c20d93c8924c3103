"""When things happen: every number that follows from the config and the data, and none that the cluster decides."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from raycls.config.sections.data import AugmentConfig
from raycls.config.sections.duration import Duration
from raycls.config.sections.track import TrackConfig
from raycls.config.sections.train import CheckpointConfig, EvaluateConfig, TrainConfig
from raycls.data.order import Order
from raycls.data.orders.balanced import Balanced, Labels
from raycls.data.orders.repeated import Repeated
from raycls.data.orders.windowed import Windowed
from raycls.train.recovery.divided import Divided

__all__ = ["Plan", "due", "make_plan", "micro_batches_of"]


def due(step: int, every: int) -> bool:
    """Whether something that happens every `every` steps happens once `step` steps are done; 0 is never."""
    return every > 0 and step % every == 0


@dataclass(frozen=True)
class Plan:
    """The run in steps. It is written to the run folder at the first start and stays what it was."""

    seed: int
    samples: int
    classes: int
    batch_size: int
    micro_batches: int
    steps_per_epoch: int
    total_steps: int
    log_every: int
    evaluate_every: int
    evaluate_rows: int
    evaluate_batch: int
    checkpoint_every: int
    """Steps between checkpoints; 0 where they are made by time."""
    checkpoint_seconds: float
    budget_seconds: float
    """0: no limit."""
    reduction: str = ""
    """`exact` or `fast`. Like device and precision, it is that of the first start, and empty before it is known."""
    device: str = ""
    """`cpu` or `cuda`."""
    precision: str = ""
    """`off`, `bf16` or `fp16`."""
    off_epoch: int = 0
    """The first epoch whose samples are made as in an evaluation (`augment.off_after`); 0: there is none."""
    sizes: tuple[tuple[int, int], ...] = ()
    """`augment.progressive`: the first epoch of each size, ascending, and the size; empty: always `data.image_size`."""
    left_out: tuple[int, ...] = ()
    """Ids of training samples that are gone since the first start, ascending: see `Order`. `samples` counts them."""
    left_out_labels: tuple[int, ...] = ()
    """The classes that these had, where `loss.balance` counts them still."""
    sampler: str = ""
    """`balanced`: the order is that of `raycls.data.orders.balanced`; empty: every sample once per epoch."""
    labels: Labels | None = field(default=None, compare=False, repr=False)
    """The class of each training sample by its id, where `loss.balance` asks; from the data, never written."""

    repeats: int = 1
    """`data.repeats`."""
    shuffle: str = "full"
    """`data.shuffle`: `full`, `window` or `none`; see `raycls.data.orders.windowed`."""
    shuffle_chunk: int = 0
    shuffle_window: int = 0
    """In samples, as `Windowed` has them; 0 where `shuffle` is not `window`."""
    rewind_every: int = 0
    """Steps between the checkpoints that `train.non_finite: rewind` goes back to; 0: it does not. Like the order, it
    stays what it was at the start, for the bits hang on it."""
    divided: Divided = ()
    """Where memory ran out, see `train.on_out_of_memory`. `micro_batches` and `order` are those of the start."""

    @property
    def order(self) -> Order:
        usual = self.seed, self.samples, self.batch_size, self.micro_batches, self.left_out
        if self.repeats > 1:
            return Repeated(*usual, repeats=self.repeats)
        if self.shuffle != "full":
            return Windowed(*usual, chunk=self.shuffle_chunk, window=self.shuffle_window)
        return Balanced(*usual, labels=self.labels) if self.sampler else Order(*usual)

    def epochs(self, step: int) -> float:
        """Epochs done after `step` steps."""
        return step / self.steps_per_epoch

    def evaluates_after(self, step: int) -> bool:
        return self.evaluate_every > 0 and (due(step, self.evaluate_every) or step == self.total_steps)

    def logs_after(self, step: int) -> bool:
        # With every evaluation too: its line shows the training up to it.
        return due(step, self.log_every) or self.evaluates_after(step) or step == self.total_steps

    def to_dict(self) -> dict[str, Any]:
        """As `plan.json` has it: without what is not known, or not left out."""
        values = {field: getattr(self, field.name) for field in fields(self) if field.name != "labels"}
        return {field.name: value for field, value in values.items() if value != field.default}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Plan:
        """From `to_dict`, or from the `plan.json` of another version, which may hold more."""
        values = {field.name: data[field.name] for field in fields(cls) if field.name in data}
        sizes = tuple((first, size) for first, size in data.get("sizes", ()))
        divided = tuple((first, parts) for first, parts in data.get("divided", ()))
        tuples = {name: tuple(data.get(name, ())) for name in ("left_out", "left_out_labels")}
        return cls(**{**values, **tuples, "sizes": sizes, "divided": divided})


def make_plan(
    *,
    seed: int,
    samples: int,
    classes: int,
    evaluate_rows: int,
    batch_size: int,
    workers: int,
    train: TrainConfig,
    evaluate: EvaluateConfig,
    checkpoint: CheckpointConfig,
    track: TrackConfig,
    augment: AugmentConfig,
) -> Plan:
    """Count the run in steps. `workers` only decides `train.micro_batches: auto`, at the first start."""
    per_epoch = -(-samples // batch_size)
    total = max(1, train.duration.steps(per_epoch))

    def steps(every: Duration) -> int:
        return max(1, every.steps(per_epoch, total))

    seconds = checkpoint.every.seconds
    sizes = augment.sizes() if train.overfit == "off" else []  # nothing is augmented there
    return Plan(
        seed=seed,
        samples=samples,
        classes=classes,
        batch_size=batch_size,
        micro_batches=micro_batches_of(train, workers),
        steps_per_epoch=per_epoch,
        total_steps=total,
        log_every=steps(track.log_every),
        evaluate_every=0 if isinstance(evaluate.every, str) or not evaluate_rows else steps(evaluate.every),
        evaluate_rows=evaluate_rows,
        evaluate_batch=min(batch_size, 256) if isinstance(evaluate.batch_size, str) else evaluate.batch_size,
        checkpoint_every=0 if seconds is not None else steps(checkpoint.every),
        checkpoint_seconds=seconds or 0.0,
        rewind_every=steps(checkpoint.every) if train.non_finite == "rewind" else 0,
        budget_seconds=0.0 if isinstance(train.budget, str) else train.budget.seconds or 0.0,
        off_epoch=0 if isinstance(augment.off_after, str) else augment.off_after.epochs(per_epoch, total),
        sizes=tuple(sorted((point.epochs(per_epoch, total), size) for point, size in sizes)),
    )


def micro_batches_of(train: TrainConfig, workers: int) -> int:
    """Parts of a global batch of a run that starts with `workers` workers at the most."""
    return train.micro_batches if isinstance(train.micro_batches, int) else max(1, workers)
