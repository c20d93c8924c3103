"""Every option of raycls: the one reference. `raycls config schema` prints it as JSON Schema.

The models are strict (a number is not a string), frozen (nothing changes after loading) and closed (an
unknown key is an error). A config never reads the machine it runs on: numbers that follow from it, such
as steps per epoch, belong to the plan.
"""

from __future__ import annotations

from typing import Annotated, Any, cast

from pydantic import Field, field_validator, model_validator

from raycls.config.names.metrics import METRICS, SEGMENTATION
from raycls.config.names.planes import check_planes
from raycls.config.sections.data import AugmentConfig, DataConfig
from raycls.config.sections.finetune import FinetuneConfig
from raycls.config.sections.model import ModelConfig
from raycls.config.sections.optim import OptimConfig, ScheduleConfig
from raycls.config.sections.scale import ScaleConfig
from raycls.config.sections.search import SearchConfig, objective
from raycls.config.sections.task import LossConfig, TaskConfig
from raycls.config.sections.track import TrackConfig
from raycls.config.sections.train import CheckpointConfig, EvaluateConfig, SlidingWindowConfig, TrainConfig
from raycls.config.sections.types import RuleError, Section
from raycls.config.uri_secrets import has_secret

__all__ = ["Run", "RunSection"]


class RunSection(Section):
    """Which run this is and where it is kept."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")] = "run"
    """Name of the run folder. Default: the name of the config file. The same name resumes the run."""
    storage: Annotated[str, Field(min_length=1)] = "runs"
    """Folder or URI that holds run folders: `s3://bucket/runs?region=eu-west-1`, `gs://`, `abfs://`, or an S3 server of
    your own, `s3://bucket/runs?endpoint_override=host:9000&scheme=http&region=us-east-1`. Credentials come from the
    environment."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seed of the initial weights, the order of samples, augmentation and dropout."""

    @field_validator("storage")
    @classmethod
    def _no_secret(cls, value: str) -> str:
        if has_secret(value):  # it would be written into every run folder
            raise ValueError(
                "an address must not hold credentials: leave them to environment variables or a credentials file"
            )
        return value


class Run(Section):
    """One run, whole."""

    run: RunSection = RunSection()
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    model: ModelConfig = ModelConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    task: TaskConfig = TaskConfig()
    loss: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    train: TrainConfig = TrainConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    scale: ScaleConfig = ScaleConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    track: TrackConfig = TrackConfig()
    search: SearchConfig = SearchConfig()

    @model_validator(mode="before")
    @classmethod
    def _judged_by(cls, values: Any) -> Any:
        """A segmentation has no top1: it is judged by its Dice where the config says nothing."""
        if not isinstance(values, dict):
            return values
        given = cast("dict[str, Any]", values)
        task, evaluate = given.get("task"), given.get("evaluate", {})
        if not isinstance(task, dict) or not isinstance(evaluate, dict) or "metric" in evaluate:
            return given
        name, told = cast("dict[str, Any]", task).get("name"), cast("dict[str, Any]", evaluate)
        if not isinstance(name, str) or METRICS.get(name) is not SEGMENTATION:
            return given
        return {**given, "evaluate": {**told, "metric": next(iter(SEGMENTATION))}}

    @property
    def windows(self) -> SlidingWindowConfig:
        """`evaluate.sliding_window`, whose size is not `auto`."""
        given = self.evaluate.sliding_window
        return given.model_copy(update={"size": self.data.patch.size}) if given.size == "auto" else given

    @property
    def evaluation(self) -> EvaluateConfig:
        """`evaluate`; with windows its `auto` batches have one sample, for volumes of several sizes make no batch."""
        auto = self.evaluate.batch_size == "auto" and self.windows.size != "off"
        return self.evaluate.model_copy(update={"batch_size": 1}) if auto else self.evaluate

    @model_validator(mode="after")
    def _across(self) -> Run:
        if self.data.executor == "ray" and self.scale.max_workers == 0:
            raise ValueError(
                "data.executor: ray needs scale.workers of 1 or more; "
                "with scale.workers: 0 use data.executor: inline or processes"
            )
        if isinstance(self.train.micro_batches, int):
            if self.scale.max_workers > self.train.micro_batches:
                raise ValueError(
                    f"scale.workers ({self.scale.max_workers}) must not exceed train.micro_batches "
                    f"({self.train.micro_batches}): a worker without a micro-batch has nothing to do"
                )
            if self.train.micro_batches > self.data.batch_size:
                raise ValueError(
                    f"train.micro_batches ({self.train.micro_batches}) must not exceed "
                    f"data.batch_size ({self.data.batch_size})"
                )
        if self.train.batch_norm == "sync":
            self._sync()
        if self.data.repeats > 1 and self.loss.balance == "sampler":
            raise ValueError(
                f"data.repeats ({self.data.repeats}) and loss.balance: sampler are two orders of the samples: "
                "a run has one"
            )
        if self.schedule.name == "multistep" and not self.schedule.args.get("milestones"):
            raise ValueError("schedule.name: multistep needs schedule.args.milestones, for example [30ep, 60ep]")
        if self.schedule.name == "plateau" and self.evaluate.every == "off":
            raise ValueError("schedule.name: plateau needs evaluate.every, it is off")
        if self.train.early_stop.patience != "off" and self.evaluate.every == "off":
            raise ValueError("train.early_stop.patience needs evaluate.every, it is off")
        if self.train.non_finite == "rewind" and self.checkpoint.every.seconds is not None:
            raise ValueError(
                "train.non_finite: rewind goes back to a step that no clock decides: checkpoint.every in epochs, steps "
                f"or per cent, not {self.checkpoint.every}"
            )
        self._cache()
        check_planes(self.data, self.augment, self.model)
        self._search()
        return self

    def _cache(self) -> None:
        """Files that the first operation has decoded smaller are not whole: kept, they would be other pixels."""
        first = [entry[0] for entry in (self.augment.train, self.augment.eval) if entry]
        crops = [entry.get("random_resized_crop") or {} for entry in first if isinstance(entry, dict)]
        if self.data.cache == "memory" and any(crop.get("resampling") == "fast" for crop in crops):
            raise RuleError(
                f"data.cache: {self.data.cache} keeps whole images, and random_resized_crop with resampling: fast "
                "decodes large ones smaller: that would be other pixels",
                fix="data.cache=off, or resampling: exact in augment.train",
            )

    def _sync(self) -> None:
        workers, parts = max(1, self.scale.max_workers), self.train.micro_batches
        if self.scale.elastic or (isinstance(parts, int) and parts != workers):
            fixed = parts if isinstance(parts, int) else workers
            raise RuleError(
                f"train.batch_norm: sync needs one worker for each micro-batch, all at once: scale.workers is "
                f"{self.scale.workers}, train.micro_batches {parts}",
                fix=f"scale.workers={fixed}, or train.batch_norm=micro_batch",
            )

    def _search(self) -> None:
        if self.search.space and self.evaluate.every == "off":
            raise ValueError("evaluate.every is off: a search compares trials by their evaluations")
        if self.task.name in METRICS:  # those of a plug-in are known once it is imported
            objective(self.search, self.evaluate.metric, METRICS[self.task.name])
        if self.search.scheduler.name == "pbt" and self.search.algorithm == "grid":
            raise ValueError(
                "search.scheduler.name: pbt changes values as it goes; with search.algorithm: grid each stays"
            )
        if self.search.space and self.scale.elastic:
            raise ValueError(
                "scale.workers: [min, max] is for a single run: the trials of a search have a fixed number"
            )
        if self.search.gpus_per_trial != "auto" and self.scale.max_workers > 1:
            raise ValueError(
                "search.gpus_per_trial is for trials of one worker; "
                "with scale.workers of 2 or more each worker has a GPU of its own"
            )
