"""When things happen: every number that follows from the config and the data, and none that the cluster decides."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from raycls.config.sections.duration import Duration
from raycls.config.sections.track import TrackConfig
from raycls.config.sections.train import CheckpointConfig, EvaluateConfig, TrainConfig
from raycls.data.order import Order

__all__ = ["Plan", "due"]


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
    left_out: tuple[int, ...] = ()
    """Ids of training samples that are gone since the first start, ascending: see `Order`. `samples` counts them."""

    @property
    def order(self) -> Order:
        return Order(self.seed, self.samples, self.batch_size, self.micro_batches, self.left_out)

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
        empty = [name for name in ("reduction", "device", "precision", "left_out") if not getattr(self, name)]
        return {name: value for name, value in asdict(self).items() if name not in empty}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Plan:
        """From `to_dict`, or from the `plan.json` of another version, which may hold more."""
        values = {field.name: data[field.name] for field in fields(cls) if field.name in data}
        return cls(**{**values, "left_out": tuple(data.get("left_out", ()))})


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
) -> Plan:
    """Count the run in steps. `workers` only decides `train.micro_batches: auto`, at the first start."""
    per_epoch = -(-samples // batch_size)
    total = max(1, train.duration.steps(per_epoch))

    def steps(every: Duration) -> int:
        return max(1, every.steps(per_epoch, total))

    micro = train.micro_batches if isinstance(train.micro_batches, int) else max(1, workers)
    seconds = checkpoint.every.seconds
    return Plan(
        seed=seed,
        samples=samples,
        classes=classes,
        batch_size=batch_size,
        micro_batches=micro,
        steps_per_epoch=per_epoch,
        total_steps=total,
        log_every=steps(track.log_every),
        evaluate_every=0 if isinstance(evaluate.every, str) or not evaluate_rows else steps(evaluate.every),
        evaluate_rows=evaluate_rows,
        evaluate_batch=min(batch_size, 256) if isinstance(evaluate.batch_size, str) else evaluate.batch_size,
        checkpoint_every=0 if seconds is not None else steps(checkpoint.every),
        checkpoint_seconds=seconds or 0.0,
        budget_seconds=0.0 if isinstance(train.budget, str) else train.budget.seconds or 0.0,
    )
