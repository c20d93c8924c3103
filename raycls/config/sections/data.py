"""Options of the data: where samples are, how they are split, read and augmented."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from raycls.config.sections.types import Count, Finite, Fraction, Operation, Positive, Section, Tuple

__all__ = ["AugmentConfig", "DataConfig", "SourceConfig", "SplitConfig"]


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
