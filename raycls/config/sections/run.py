"""Every option of raycls: the one reference. `raycls config schema` prints it as JSON Schema.

The models are strict (a number is not a text), frozen (nothing changes after loading) and closed (an
unknown key is an error). A config never reads the machine it runs on: numbers that follow from it, such
as steps per epoch, belong to the plan.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from raycls.config.sections.duration import Duration
from raycls.config.sections.scale import ScaleConfig
from raycls.config.sections.search import SearchConfig, objective
from raycls.config.sections.track import TrackConfig
from raycls.config.sections.types import Count, Finite, Fraction, NotNegative, Operation, Positive, Section, Tuple
from raycls.config.sections.uri_secrets import has_secret

__all__ = [
    "AugmentConfig",
    "CheckpointConfig",
    "DataConfig",
    "EarlyStopConfig",
    "EvaluateConfig",
    "LossConfig",
    "ModelConfig",
    "OptimConfig",
    "Run",
    "RunSection",
    "ScaleConfig",
    "ScheduleConfig",
    "SourceConfig",
    "SplitConfig",
    "TrackConfig",
    "TrainConfig",
]


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


class SourceConfig(Section):
    """Where the samples are."""

    name: Annotated[str, Field(min_length=1)] = "folder"
    """`folder`, `manifest`, `cifar`, `arrays`, `digits`, an entry point, or `package.module:attribute`."""
    path: str | None = None
    """File or folder of the data, relative to the working directory."""
    args: dict[str, Any] = {}
    """Further arguments of the source. `folder`, `manifest`, `arrays`: `ignore` and `ignore_file`, patterns of what is
    left out. `folder`, `manifest`: `splits`, what folders or words of the column `split` stand for
    (`{Fold1: train, Fold2: test}`), or `none`. `manifest`: `root`, the folder that paths start from; `strip`, prefixes
    of paths that are taken away; `columns`, names of columns (`{path: filename, label: category}`); `encoding`.
    In `args` a value is what YAML 1.2 says: `001` is the number 1, and text in quotes; options that are text (`path`,
    `run.name`) take what was written."""


class SplitConfig(Section):
    """How samples are split where the data has no split of its own: stratified by class, seeded."""

    train: Fraction = 0.7
    """Part of the samples that is trained on."""
    val: Fraction = 0.2
    """Part for validation. Data with a train but no val split gives val/(train+val) of its train split."""
    test: Fraction = 0.1
    """Part for the final test."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seed of the split; its own, so that runs with several `run.seed` share one split."""

    @model_validator(mode="after")
    def _whole(self) -> SplitConfig:
        if abs(self.train + self.val + self.test - 1) > 1e-9:
            raise ValueError(f"train + val + test must be 1, they are {self.train + self.val + self.test:g}")
        if self.train == 0:
            raise ValueError("train must be greater than 0")
        return self


class DataConfig(Section):
    """Samples, batches, and who reads them."""

    source: SourceConfig = SourceConfig()
    """Where the samples are."""
    split: SplitConfig = SplitConfig()
    """Splits by fraction, for data without its own."""
    batch_size: Count = 64
    """Images per optimizer step over all workers together (the global batch)."""
    image_size: Count = 224
    """Height and width in pixels that the default augmentations produce."""
    executor: Literal["auto", "ray", "processes", "inline"] = "auto"
    """Who decodes: Ray Data (`ray`), processes beside each worker, or the worker itself (`inline`).
    All three give the same bytes. `auto` is `ray`, or `inline` where `scale.workers` is 0."""
    processes: Count = 2
    """Decoding processes of one worker, for the executor `processes`."""
    prefetch: Count = 4
    """Slices (one worker's part of one step) that are decoded ahead of the training."""
    formats: Annotated[tuple[Literal["jpeg", "png", "webp", "bmp", "tiff", "gif"], ...], Tuple] = (
        "jpeg",
        "png",
        "webp",
        "bmp",
        "tiff",
        "gif",
    )
    """Image formats that are decoded; another one is an error."""
    max_pixels: Count = 50_000_000
    """Largest image in pixels, checked before it is decoded. No operation of `augment` makes one of more than twice
    as many: where a thin image would become that large, the run ends and names it."""


class AugmentConfig(Section):
    """What happens to an image between decoding and the model.

    A list holds names or `{name: {argument: value}}`: `resize`, `center_crop`, `random_crop`,
    `random_resized_crop`, `horizontal_flip`, `vertical_flip`, `rotation`, `color_jitter`, an entry point,
    or `package.module:attribute`. `resize` takes `size` and `interpolation` (`bilinear`, or `bicubic`).
    """

    train: Annotated[tuple[Operation, ...], Tuple] | None = None
    """For training. Default: `random_resized_crop` to `data.image_size`, `horizontal_flip`."""
    eval: Annotated[tuple[Operation, ...], Tuple] | None = None
    """For evaluation. Default: `resize` to 8/7 of `data.image_size`, `center_crop` to `data.image_size`."""
    mean: Annotated[tuple[Finite, Finite, Finite], Tuple] = (0.485, 0.456, 0.406)
    """Subtracted from each channel, in 0..1. Default: ImageNet's."""
    std: Annotated[tuple[Positive, Positive, Positive], Tuple] = (0.229, 0.224, 0.225)
    """Each channel is divided by it. Default: ImageNet's."""


class ModelConfig(Section):
    """The network. The number of classes comes from the data."""

    name: Annotated[str, Field(min_length=1)] = "resnet18"
    """A torchvision classification model, `tiny_cnn`, `resnet18_cifar`, an entry point, or
    `package.module:attribute` (called with `num_classes` and `args`, returns a `torch.nn.Module`)."""
    args: dict[str, Any] = {}
    """Further arguments of the model; as in `data.source.args`, `001` is a number and `"001"` text."""
    weights: str | None = None
    """Name of a torchvision weights enum value (`IMAGENET1K_V2`, `DEFAULT`) or a local file (`.safetensors`, or a state
    dict or checkpoint saved by torch). Where a later layer names another model, `args` are left out, and so is a name
    that the new one has no weights of; a file stays. A file needs everything but the head, under any one prefix; an
    average (`ema`) in it is preferred. The head is matched by the class names that come with the weights (beside
    `model/model.safetensors` of a run, or in a checkpoint), and starts anew where none of them is the data's; without
    names one of the same size is taken as it is, and another starts anew. The header of a run says what was done, and
    where its preprocessing is not that of the weights."""
    init: Literal["default", "xavier_uniform", "kaiming"] = "default"
    """How convolutions and linear layers start; not applied to loaded weights."""


class LossConfig(Section):
    """What is minimised."""

    task: Literal["classification"] = "classification"
    """Cross entropy over one label per image."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Weight given to the uniform distribution (Szegedy et al. 2016, section 7)."""


class OptimConfig(Section):
    """The optimizer."""

    name: Literal["sgd", "adam", "adamw", "rmsprop"] = "sgd"
    """The algorithm, torch's."""
    lr: Positive = 0.1
    """Highest learning rate; it is never scaled by the number of workers."""
    weight_decay: NotNegative = 0.0
    """L2 for sgd, adam and rmsprop; decoupled for adamw."""
    weight_decay_on: Literal["all", "weights"] = "all"
    """`weights` leaves biases and normalisation parameters (those with one dimension) undecayed."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """For sgd and rmsprop."""
    nesterov: bool = False
    """For sgd."""
    betas: Annotated[tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]], Tuple] = (
        0.9,
        0.999,
    )
    """For adam and adamw."""
    eps: Positive = 1e-8
    """For adam, adamw and rmsprop."""
    alpha: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Smoothing constant of rmsprop."""
    clip_norm: Positive | Literal["off"] = "off"
    """Largest L2 norm of the whole gradient; a longer one is scaled down."""
    ema: Annotated[float, Field(gt=0, lt=1)] | Literal["off"] = "off"
    """Decay per step of an exponential moving average of the weights, which is then evaluated and kept."""
    ema_warmup: Literal["ramp", "off"] = "ramp"
    """For ema: how the average begins. `ramp`: its decay after t updates is at most (1 + t) / (10 + t), so that it soon
    forgets the first weights. `off`: `optim.ema` from the first update on."""

    @model_validator(mode="after")
    def _across(self) -> OptimConfig:
        if self.name == "sgd" and self.nesterov and self.momentum == 0:
            raise ValueError("nesterov: true needs momentum greater than 0, for example 0.9")
        return self


class ScheduleConfig(Section):
    """The learning rate over time, as a factor of `optim.lr`."""

    name: Literal["constant", "step", "multistep", "exponential", "cosine", "cosine_restarts", "plateau"] = "constant"
    """Its shape after the warm-up."""
    warmup: Duration = Duration(0, "st")
    """Linear from 0 to `optim.lr` over this time."""
    every: Duration = Duration(30, "ep")
    """For step: between two multiplications by gamma. For cosine_restarts: the first period."""
    milestones: Annotated[tuple[Duration, ...], Tuple] = ()
    """For multistep: when to multiply by gamma."""
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1
    """For step, multistep and plateau; for exponential the factor per epoch."""
    period_factor: Annotated[float, Field(ge=1)] = 1.0
    """For cosine_restarts: each period is this much longer than the one before."""
    min_factor: Fraction = 0.0
    """For cosine, cosine_restarts and plateau: the lowest factor of `optim.lr`."""
    patience: Count = 3
    """For plateau: evaluations without improvement before the rate drops."""


class EarlyStopConfig(Section):
    """When to give up."""

    patience: Count | Literal["off"] = "off"
    """Evaluations without improvement of `evaluate.metric` before the run ends."""
    min_delta: NotNegative = 0.0
    """Smallest change that is an improvement."""


class TrainConfig(Section):
    """The loop."""

    duration: Duration = Duration(10, "ep")
    """How long to train, in epochs or steps."""
    micro_batches: Count | Literal["auto"] = "auto"
    """Parts of a global batch that are computed one by one and added up: the most workers a run can have.
    `auto` is `scale.workers` (the most of them) at the first start; it stays what it was when the run is resumed."""
    reduction: Literal["auto", "exact", "fast"] = "auto"
    """How gradients are added over workers. `exact`: the same bits for any number of workers.
    `fast`: DistributedDataParallel. `auto`: exact on CPU, fast on GPU."""
    amp: Literal["auto", "bf16", "fp16", "off"] = "auto"
    """Mixed precision. `auto`: bf16 where the device has it natively, else fp16 on a GPU and off on a CPU."""
    memory_format: Literal["channels_last", "contiguous"] = "channels_last"
    """Layout of images and weights in memory."""
    ledger: Literal["off", "ids", "pixels"] = "off"
    """Write down which sample was trained when; with `pixels` the sha256 of its augmented pixels too."""
    non_finite: Literal["error", "skip"] = "error"
    """What a gradient with NaN or infinity does: end the run, or skip the step (10 in a row end it)."""
    early_stop: EarlyStopConfig = EarlyStopConfig()
    """When to give up."""
    budget: Duration | Literal["off"] = "off"
    """Wall-clock time after which the run checkpoints and ends, counted over all its starts."""
    stall_timeout: Duration | Literal["off"] = Duration(30, "m")
    """Time without progress after which the run ends with an error, and writes where every worker stood. Longer than
    any single step, evaluation batch and checkpoint takes."""

    @model_validator(mode="after")
    def _units(self) -> TrainConfig:
        if self.duration.unit not in ("ep", "st") or self.duration.value <= 0:
            raise ValueError(f"duration is in epochs or steps and greater than 0: {self.duration} is not")
        if isinstance(self.budget, Duration) and not self.budget.seconds:
            raise ValueError(f"budget is a time such as 2h: {self.budget} is not")
        if isinstance(self.stall_timeout, Duration) and not self.stall_timeout.seconds:
            raise ValueError(f"stall_timeout is a time such as 30m: {self.stall_timeout} is not")
        return self


class EvaluateConfig(Section):
    """Evaluation during training, and what `best` means."""

    every: Duration | Literal["off"] = Duration(1, "ep")
    """How often, in epochs, steps or per cent of the run; always at the end too."""
    split: Literal["val", "test", "train"] = "val"
    """The split that is evaluated during training."""
    batch_size: Count | Literal["auto"] = "auto"
    """Images of one forward. `auto`: `data.batch_size`, at most 256."""
    metric: Literal["top1", "top5", "loss", "f1_macro", "f1_weighted"] = "top1"
    """What the best checkpoint, early stopping and the plateau schedule look at."""
    keep: Literal["best", "last"] = "best"
    """Which weights `model/` holds at the end: those of the best evaluation by `metric`, or those after the last step.
    The last ones too where nothing was evaluated."""

    @model_validator(mode="after")
    def _units(self) -> EvaluateConfig:
        if isinstance(self.every, Duration) and (self.every.seconds is not None or self.every.value <= 0):
            raise ValueError(f"every is in epochs, steps or per cent and greater than 0: {self.every} is not")
        return self


class CheckpointConfig(Section):
    """What a crash cannot take."""

    every: Duration = Duration(1, "ep")
    """How often: epochs, steps, per cent of the run, or time. Always at the end too."""
    keep: Count = 2
    """How many of the newest checkpoints are kept, besides the best one."""

    @model_validator(mode="after")
    def _units(self) -> CheckpointConfig:
        if self.every.value <= 0:
            raise ValueError(f"every must be greater than 0: {self.every} is not")
        return self


class Run(Section):
    """One run, whole."""

    run: RunSection = RunSection()
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    train: TrainConfig = TrainConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    scale: ScaleConfig = ScaleConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    track: TrackConfig = TrackConfig()
    search: SearchConfig = SearchConfig()

    @model_validator(mode="after")
    def _across(self) -> Run:
        if self.data.executor == "ray" and self.scale.most == 0:
            raise ValueError(
                "data.executor: ray needs scale.workers of 1 or more; "
                "with scale.workers: 0 use data.executor: inline or processes"
            )
        if isinstance(self.train.micro_batches, int):
            if self.scale.most > self.train.micro_batches:
                raise ValueError(
                    f"scale.workers ({self.scale.most}) must not exceed train.micro_batches "
                    f"({self.train.micro_batches}): a worker without a micro-batch has nothing to do"
                )
            if self.train.micro_batches > self.data.batch_size:
                raise ValueError(
                    f"train.micro_batches ({self.train.micro_batches}) must not exceed "
                    f"data.batch_size ({self.data.batch_size})"
                )
        if self.schedule.name == "multistep" and not self.schedule.milestones:
            raise ValueError("schedule.name: multistep needs schedule.milestones, for example [30ep, 60ep]")
        if self.schedule.name == "plateau" and self.evaluate.every == "off":
            raise ValueError("schedule.name: plateau needs evaluate.every, it is off")
        if self.train.early_stop.patience != "off" and self.evaluate.every == "off":
            raise ValueError("train.early_stop.patience needs evaluate.every, it is off")
        self._search()
        return self

    def _search(self) -> None:
        if self.search.space and self.evaluate.every == "off":
            raise ValueError("evaluate.every is off: a search compares trials by their evaluations")
        metric, mode = objective(self.search, self.evaluate.metric)
        if self.search.mode not in ("auto", mode):
            raise ValueError(f"search.mode: {self.search.mode} looks for the worst {metric}; leave it out, or {mode}")
        target, highest = self.search.target, math.inf if metric == "loss" else 1.0
        if not isinstance(target, str) and not 0 <= target <= highest:
            valid = "0 or more" if metric == "loss" else "a share, from 0 to 1"
            raise ValueError(f"search.target: {target:g} is never reached: {metric} is {valid}")
        if self.search.scheduler.name == "pbt" and self.search.algorithm == "grid":
            raise ValueError(
                "search.scheduler.name: pbt changes values as it goes; with search.algorithm: grid each stays"
            )
        if self.search.space and self.scale.elastic:
            raise ValueError("scale.workers: [least, most] is for one run: the trials of a search have a fixed number")
        if self.search.gpus_per_trial != "auto" and self.scale.most > 1:
            raise ValueError(
                "search.gpus_per_trial is for trials of one worker; "
                "with scale.workers of 2 or more each worker has a GPU of its own"
            )
