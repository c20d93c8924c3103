"""Options of the task: what is optimised and measured."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from raycls.config.sections.types import Positive, Section

__all__ = ["LossConfig", "TaskConfig"]


class TaskConfig(Section):
    """What a sample is, what is minimised and what is measured."""

    name: Annotated[str, Field(min_length=1)] = "classification"
    """`classification` (one label per image), `multilabel` (any number), `distillation` (one, from a teacher), `simclr`
    and `moco` (pretraining without labels), `volume_classification` (one label per volume), `segmentation` and
    `volume_segmentation` (a class per pixel or voxel), an entry point, or `package.module:Class`, a subclass of
    `raycls.tasks.base.Task`."""
    args: dict[str, Any] = {}
    """Further arguments of the task. `multilabel`: the exponents `gamma_positive` and `gamma_negative` (0; Ridnik et
    al. 2021). `distillation`: `teacher` (a run folder, or a model section with weights such as `{name: resnet50,
    weights: FILE}`), `temperature` (4), `weight` of the teacher's part of the loss (0.9); Hinton et al. 2015;
    `features` (0, off), the weight of a loss on the features of both networks; Tung and Mori 2019. `simclr` (Chen et
    al. 2020): `temperature` (0.5), `dimensions` of the projection (128). `moco` (v2): `temperature` (0.2),
    `dimensions`, `queue` (4096 keys), `momentum` (0.999) of the slow encoder, `groups` (4) into which a micro-batch is
    cut for batch normalisation. `segmentation` and `volume_segmentation`: `loss` (`ce_dice`, `cross_entropy`, `dice`,
    `tversky` with `alpha` 0.3 and `beta` 0.7, `focal` with `gamma` 2), `values` of the classes in a mask (0, 1, 2 ...),
    `ignore_index` (none), `background` (false), whether the first class counts in macro averages and overlaps."""


class LossConfig(Section):
    """What is minimised."""

    name: Annotated[str, Field(min_length=1)] = "cross_entropy"
    """`cross_entropy`, `bce`, `focal`, `poly`, `symmetric_cross_entropy`, an entry point, or
    `package.module:attribute` (called with `args`, returns a function from logits and targets to their loss, summed
    over the samples)."""
    args: dict[str, Any] = {}
    """Further arguments of the loss. `cross_entropy`: `label_smoothing` (0), the weight given to the uniform
    distribution (Szegedy et al. 2016, section 7). `bce`: `label_smoothing` (0), `threshold` (off), the share of a mixed
    label above which a class is fully there, `over_classes` (mean, or sum). `focal`: `gamma` (2). `poly`: `epsilon`
    (1), `label_smoothing` (0). `symmetric_cross_entropy`: `alpha` (0.1) and `beta` (1), the weights of cross entropy
    and of its reverse, `log_zero` (-4)."""
    balance: Literal["none", "weights", "effective_number", "sampler", "logit_adjust"] = "none"
    """What is done about classes of different sizes, in training alone. `weights`: a sample weighs the more the rarer
    its class, in proportion to 1 / n, with a mean of 1 over the training samples. `effective_number`: the same with the
    effective number of samples (Cui et al. 2019). `sampler`: an epoch draws every class equally often, and the samples
    of a class in turn. `logit_adjust`: the logarithms of the parts of the classes are added to the logits (Menon et al.
    2021)."""
    balance_beta: Annotated[float, Field(gt=0, lt=1)] = 0.9999
    """For effective_number: beta; nearer to 1 is nearer to `weights`, and 0 to none."""
    balance_tau: Positive = 1.0
    """For logit_adjust: tau, by which the logarithms are multiplied."""

    @model_validator(mode="after")
    def _across(self) -> LossConfig:
        if self.name == "bce" and self.balance == "logit_adjust":
            raise ValueError("balance: logit_adjust is for losses of a softmax; with name: bce use weights or sampler")
        return self
