"""Options of the loop, of evaluation during training, and of checkpoints."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from raycls.config.sections.duration import Duration
from raycls.config.sections.types import Count, NotNegative, Section, Tuple, UnderOne

__all__ = [
    "CheckpointConfig",
    "EarlyStopConfig",
    "EvaluateConfig",
    "ProfileConfig",
    "RewindConfig",
    "SlidingWindowConfig",
    "TrainConfig",
]


class EarlyStopConfig(Section):
    """When to give up."""

    patience: Count | Literal["off"] = "off"
    """Evaluations without improvement of `evaluate.metric` before the run ends."""
    min_delta: NotNegative = 0.0
    """Smallest change that is an improvement."""


class RewindConfig(Section):
    """When to go back to an earlier checkpoint."""

    after: Count = 10
    """Steps in a row whose gradient is not finite. The checkpoint is the last one of `checkpoint.every` before them."""
    times: Count = 1
    """How often; the next time ends the run."""


class ProfileConfig(Section):
    """A trace of what every operation of some steps took, in `profile/` of the run folder."""

    steps: Count | Literal["off"] = "off"
    """How many steps are traced, on every worker."""
    after: Annotated[int, Field(ge=0)] = 10
    """Steps of each start that are trained before: the first ones are slower than the others."""


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
    activation_checkpointing: Literal["off", "on"] = "off"
    """Less memory for more time: parts of the network keep only their input for the backward pass, and run again there.
    Which parts is measured, `raycls model` says it. The bits of the run stay the same."""
    batch_norm: Literal["micro_batch", "sync"] = "micro_batch"
    """Over which images batch norm takes its statistics in training. `sync`: those of the global batch (SyncBN), which
    takes as many workers as there are micro-batches, at every start."""
    compile: Literal["off", "default"] = "off"
    """`default`: train with `torch.compile`, anew for each size of a micro-batch. Faster steps after minutes of
    compiling, and other bits than without; the same ones on any number of workers. Evaluations are without it."""
    memory_format: Literal["channels_last", "contiguous"] = "channels_last"
    """Layout of images and weights in memory."""
    ledger: Literal["off", "ids", "pixels"] = "off"
    """Write down which sample was trained when; with `pixels` the sha256 of its augmented pixels too."""
    non_finite: Literal["error", "skip", "rewind"] = "error"
    """What a gradient with NaN or infinity does: end the run, or skip the step (10 in a row end it). `rewind`: skip,
    and after several in a row go back to an earlier checkpoint and leave out what came since."""
    rewind: RewindConfig = RewindConfig()
    """When to go back, with `non_finite: rewind`."""
    on_out_of_memory: Literal["error", "split"] = "error"
    """What too little memory for a forward and backward pass does: end the run, or do the step again with twice as many
    micro-batches, and so on from there. With `split` and several workers `reduction: auto` is exact."""
    early_stop: EarlyStopConfig = EarlyStopConfig()
    """When to give up."""
    overfit: Count | Literal["off"] = "off"
    """Train and evaluate on so many images of the training split, the same in every split and without augmentation: a
    network and a loss that can learn will know them by heart."""
    fast_dev_run: bool = False
    """Two steps with an evaluation and a checkpoint after each, on few images and without trackers, in a run folder
    whose name ends with `-dev`: whether everything works before a long run."""
    profile: ProfileConfig = ProfileConfig()
    """A trace of some steps, which Perfetto opens."""
    budget: Duration | Literal["off"] = "off"
    """Wall-clock time after which the run checkpoints and ends, counted over all its starts."""
    stall_timeout: Duration | Literal["off"] = Duration(30, "m")
    """Time without progress after which the run ends with an error, and writes where every worker stood. Longer than
    any single step, evaluation batch and checkpoint takes."""

    @model_validator(mode="after")
    def _units(self) -> TrainConfig:
        if self.duration.unit not in ("ep", "st") or self.duration.value <= 0:
            raise ValueError(f"duration is in epochs or steps and greater than 0: {self.duration} is not")
        if self.compile != "off" and self.activation_checkpointing != "off":
            raise ValueError(
                f"compile: {self.compile} decides by itself what runs again in the backward pass: "
                "set it or activation_checkpointing to off"
            )
        if self.compile != "off" and self.batch_norm == "sync":
            raise ValueError(
                f"compile: {self.compile} and batch_norm: sync do not go together: set one of them to off or "
                "micro_batch"
            )
        if isinstance(self.budget, Duration) and not self.budget.seconds:
            raise ValueError(f"budget is a time such as 2h: {self.budget} is not")
        if isinstance(self.stall_timeout, Duration) and not self.stall_timeout.seconds:
            raise ValueError(f"stall_timeout is a time such as 30m: {self.stall_timeout} is not")
        return self


class SlidingWindowConfig(Section):
    """Whole volumes through a network for patches: by windows that overlap, whose logits are averaged."""

    size: Annotated[tuple[Count, Count, Count], Tuple] | Literal["auto", "off"] = "auto"
    """Slices, rows and columns of a window. `auto`: `data.patch.size`, and `off` where no patches are trained; `off`:
    volumes as a whole."""
    overlap: UnderOne = 0.5
    """Part of a window that the next one covers again, at least; windows are at even distances."""
    mode: Literal["gaussian", "constant"] = "gaussian"
    """Weights of the voxels of a window in the average: a Gaussian around its middle, of a standard deviation of an
    eighth of its side, or all equal."""
    batch_size: Count = 1
    """Windows of one forward. Libraries of convolutions may round otherwise with other numbers of them; the number of
    workers changes no bit."""


class EvaluateConfig(Section):
    """Evaluation during training, and what `best` means."""

    every: Duration | Literal["off"] = Duration(1, "ep")
    """How often, in epochs, steps or per cent of the run; always at the end too."""
    split: Literal["val", "test", "train"] = "val"
    """The split that is evaluated during training."""
    batch_size: Count | Literal["auto"] = "auto"
    """Images of one forward. `auto`: `data.batch_size`, at most 256; with windows 1, so that volumes may differ in
    size."""
    sliding_window: SlidingWindowConfig = SlidingWindowConfig()
    """For `volume_segmentation`."""
    metric: Annotated[str, Field(min_length=1)] = "top1"
    """What the best checkpoint, early stopping and the plateau schedule look at: a metric of the task. Of
    `classification`: `top1`, `top5`, `loss`, `f1_macro` or `f1_weighted`. Of a segmentation `dice`, where nothing is
    said."""
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
