"""Options of the data: where samples are, how they are split, read and augmented."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator, Field, model_validator

from raycls.config.sections.duration import Duration
from raycls.config.sections.types import Count, Finite, Fraction, Operation, Positive, Section, Tuple, UnderOne
from raycls.config.uri_secrets import has_secret

__all__ = [
    "LUMA",
    "WINDOWS",
    "AugmentConfig",
    "CacheConfig",
    "DataConfig",
    "FoldConfig",
    "PatchConfig",
    "SourceConfig",
    "SplitConfig",
    "Window",
]

LUMA = (19595, 38470, 7471)
"""Red, green and blue in a grey value, of 65536: ITU-R 601-2 luma in the integers of Pillow."""

WINDOWS = {
    "lung": {"center": -600.0, "width": 1500.0},
    "bone": {"center": 400.0, "width": 1800.0},
    "brain": {"center": 40.0, "width": 80.0},
    "soft_tissue": {"center": 50.0, "width": 400.0},
}
"""Ranges of Hounsfield units by the names that radiologists give them, with their usual values."""
Window = Literal["lung", "bone", "brain", "soft_tissue"] | dict[Literal["center", "width"], Finite]


def _of_channels(values: tuple[float, ...], channels: int, option: str) -> tuple[float, ...]:
    if channels not in (1, 3) and values == AugmentConfig.model_fields[option].default:
        return (0.5,) * channels
    if channels != 1 or len(values) == 1:
        return values
    return (sum(a * b for a, b in zip(LUMA, values, strict=True)) / sum(LUMA),)


def _as_list(value: Any) -> Any:
    return tuple(cast("list[Any]", value)) if isinstance(value, list) else (value,) if value else value


class SourceConfig(Section):
    """Where the samples are."""

    name: Annotated[str, Field(min_length=1)] = "folder"
    """`folder`, `manifest`, `hf_folder`, `cifar`, `arrays`, `digits`, `packed`, `parquet`, `webdataset`, `dicom`,
    `nifti`, an entry point, or `package.module:attribute`."""
    path: str | None = None
    """File or folder of the data, relative to the working directory; or an address, as in `run.storage`: `s3://`,
    `gs://` or `abfs://`. Public data: `s3://anonymous@bucket/photos?region=us-east-1`. Of `webdataset` also a pattern
    such as `shards/train-{0000..0127}.tar`."""
    args: dict[str, Any] = {}
    """Further arguments of the source. All but `cifar` and `digits`: `ignore` and `ignore_file`, patterns of what is
    left out. All that read files or folders: `splits`, what folders, shards or words of the column
    `split` stand for (`{Fold1: train, Fold2: test}`), or `none`. `manifest`: `root`, the folder or address that paths
    start from; `strip`, prefixes of paths that are taken away; `columns`, names of columns (`{path: filename, label:
    category}`); `encoding`; `multilabel`, true or what divides the labels of one cell, for images with any number of
    classes. `parquet`: `columns` (`{image: photo, label: species, key: id}`). `webdataset`: `columns` (`{image:
    left.jpg, label: json.species}`) and `classes`, the names that integers stand for, or a file with one a line.
    In `args` a value is what YAML 1.2 says: `001` is the number 1, and text in quotes; options that are text (`path`,
    `run.name`) take what was written. `dicom`: `keep_ids`, whether ids of patients and series stay as they are."""

    @model_validator(mode="after")
    def _no_secret(self) -> SourceConfig:
        if any(has_secret(value) for value in (self.path, self.args.get("root")) if isinstance(value, str)):
            raise ValueError(  # it would be written into every run folder
                "an address must not hold credentials: leave them to environment variables or a credentials file"
            )
        return self


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


_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


class CacheConfig(Section):
    """Objects of a store on the disk of the node that reads them."""

    dir: Annotated[str, Field(min_length=1)]
    """A folder on a local disk of every node. Runs may share it."""
    limit: Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)? ?([KMGT]i?)?B$")]
    """What it may take of the disk: `50GB`, `500MB`, `1.5TB`; `GiB` and the like are powers of 1,024."""

    @property
    def bytes(self) -> int:
        number = self.limit.rstrip("KMGTiB ")
        return int(float(number) * _UNITS[self.limit[len(number) : -1].strip()])


class FoldConfig(Section):
    """One fold of a cross-validation."""

    index: Annotated[int, Field(ge=0)] = 0
    """Which fold is the val split: 0 to `of` - 1."""
    of: Annotated[int, Field(ge=2, le=1000)] | Literal["off"] = "off"
    """How many folds there are. They hang on `data.split.seed` alone, and each sample is in exactly one."""

    @model_validator(mode="after")
    def _there(self) -> FoldConfig:
        if self.of != "off" and self.index >= self.of:
            raise ValueError(f"index must be less than of: there are folds 0 to {self.of - 1}")
        return self


class PatchConfig(Section):
    """Patches of volumes, cut at random for training."""

    size: Annotated[tuple[Count, Count, Count], Tuple] | Literal["off"] = "off"
    """Slices, rows and columns of a patch, such as `[64, 64, 64]`; `off`: whole volumes are trained."""
    per_volume: Annotated[int, Field(ge=1, le=256)] = 2
    """Patches of a volume in one step: it is read once for all of them, and counts as one sample, whose loss is their
    mean."""
    foreground: Fraction = 0.5
    """The probability that a patch has a voxel of a class other than the first in its middle (as near as the border
    allows): of a class that the volume has, each as likely, and of any of its voxels. Other patches lie anywhere."""


class DataConfig(Section):
    """Samples, batches, and who reads them."""

    source: SourceConfig = SourceConfig()
    """Where the samples are."""
    split: SplitConfig = SplitConfig()
    """Splits by fraction, for data without its own."""
    group: Literal["off"] | str | None = None
    """A column, such as `patient_id`, whose values are each in one split alone; the classes are in each split as
    nearly in proportion as the groups allow. Splits that the data brings are checked for it. Where nothing is set the
    series of a patient stay together (source `dicom`), and the header says so; `off` splits series by series."""
    fold: FoldConfig = FoldConfig()
    """Cross-validation, such as `{index: 0, of: 5}`: `train` and `val` are those of one fold, stratified, and with
    whole groups where `group` is set. `data.split.test` of the data is set aside first, the same in all folds."""
    weight: str | None = None
    """A column of numbers of at least 0, such as `confidence`: how much each training image counts in the loss, where
    their mean is 1. Evaluations count every image once."""
    batch_size: Count = 64
    """Images per optimizer step over all workers together (the global batch)."""
    image_size: Count = 224
    """Height and width in pixels that the default augmentations produce."""
    executor: Literal["auto", "ray", "processes", "inline"] = "auto"
    """Who decodes: Ray Data (`ray`), processes beside each worker, or the worker itself (`inline`).
    All three give the same bytes. `auto` chooses by cost: `ray` where other nodes or free CPUs can decode; `inline`
    where no CPU would be idle otherwise, where a worker's part of a batch takes less than 5 ms, and with
    `scale.workers: 0`. `inline` reads ahead in a thread where the steps leave a CPU idle, or run on a GPU, and samples
    are made without the generators of the process: by built-in sources and operations that draw on their own (crops,
    flips). The header of a run says which, and why or why not."""
    processes: Count = 2
    """Decoding processes of one worker, for the executor `processes`."""
    prefetch: Count = 4
    """Slices (one worker's part of one step) that are decoded ahead of the training."""
    cache: Literal["off", "memory"] | CacheConfig = "off"
    """`memory`: each process that decodes keeps the pixels of the images it has decoded, before augmentation, so that
    later epochs and evaluations decode nothing. The same bytes; refused where they do not fit.
    `{dir: /local/cache, limit: 50GB}`, for data behind an address: each node keeps the objects it has read, those used
    last, and asks for none of them again."""
    formats: Annotated[tuple[Literal["jpeg", "png", "webp", "bmp", "tiff", "gif", "npy"], ...], Tuple] = (
        "jpeg",
        "png",
        "webp",
        "bmp",
        "tiff",
        "gif",
    )
    """Image formats that are decoded; another one is an error. `npy`: arrays `[H, W, channels]` of numpy, of uint8 or
    uint16, that a manifest lists."""
    on_bad_image: Literal["error", "skip"] = "error"
    """What follows from a file that is no image that is decoded: the run ends and names it, or (`skip`) the sample is
    left out of its batch, its loss and the metrics. `bad_images.jsonl` of the run lists them. A file that cannot be
    read is an error always."""
    max_bad_fraction: UnderOne = 0.01
    """Part of the samples of a split that may be skipped as bad images: with more of them the run ends."""
    shuffle: Literal["full", "window", "none"] = "full"
    """The order of an epoch. `full`: any permutation. `window`, for shards that are cheap to read in a row only: chunks
    of `shuffle_chunk` images in a random order, mixed over `shuffle_window` chunks. `none`: as the data lists them."""
    shuffle_chunk: Count = 1024
    """Images in a row, as they lie in their shards, that stay near each other with `shuffle: window`."""
    shuffle_window: Count = 16
    """So many chunks are mixed at any time: an image is moved by less than `shuffle_window` times `shuffle_chunk`."""
    repeats: Annotated[int, Field(ge=1, le=64)] = 1
    """Repeated augmentation: each sample comes so many times in a row, augmented anew each time. An epoch has as many
    steps as ever; in every so many epochs each sample is trained as often as without it."""
    channels: Annotated[int, Field(ge=1, le=64)] = 3
    """Channels of the decoded images. 3 is RGB, where grey files repeat their value. 1 is grey: colour becomes what
    Pillow's `convert("L")` makes of it, the operations of `augment` see grey images, and `model.in_channels` is 1 too.
    With 3 and `model.in_channels: 1` images are decoded and augmented as RGB, and made grey on the device. Others are
    as many as the files have, of the format `npy`, or red, green, blue and alpha (4); `model.in_channels` is the same.
    """
    bit_depth: Literal[8, 16] = 8
    """Bits of each channel from the file to the network. 16, not with RGB: the values of 16-bit files as they are,
    those of 12 bits times 65535/4095 and of 8 bits times 257; white is 65535. Only operations that move pixels have
    16 bits."""
    max_pixels: Count = 50_000_000
    """Largest image in pixels, checked before it is decoded. No operation of `augment` makes one of more than twice
    as many: where a thin image would become that large, the run ends and names it."""
    window: Annotated[tuple[Window, ...], BeforeValidator(_as_list)] = ()
    """Of volumes: the range of values that becomes 0 to 1, `{center: 40, width: 400}` or a name (`lung`, `bone`,
    `brain`, `soft_tissue`); each of a list makes a channel. Default: from the lowest value of a volume to its highest,
    one channel. `model.in_channels` is the number of channels."""
    spacing: Annotated[tuple[Positive, Positive, Positive], Tuple] | None = None
    """Of volumes: the distances in mm between slices, rows and columns that all are resampled to. Default: as they
    are."""
    patch: PatchConfig = PatchConfig()
    """For `volume_segmentation`: what is trained of a volume, before `augment.train`. Evaluations see whole volumes
    (`evaluate.sliding_window`)."""

    @model_validator(mode="after")
    def _windows(self) -> DataConfig:
        for window in self.window:
            if isinstance(window, dict) and (window.keys() != {"center", "width"} or window["width"] <= 0):
                raise ValueError("window has a center and a width, and the width is greater than 0")
        return self


class AugmentConfig(Section):
    """What happens to an image between decoding and the model.

    A list holds names or `{name: {argument: value}}`: `resize`, `center_crop`, `random_crop`, `random_resized_crop`,
    `horizontal_flip`, `vertical_flip`, `rotation`, `affine`, `perspective`, `color_jitter`, `hsv`, `grayscale`,
    `gaussian_blur`, `sharpness`, `solarize`, `posterize`, `equalize`, `auto_augment`, `rand_augment`,
    `trivial_augment_wide`, `aug_mix`; `random_choice`, `random_order` and `random_apply` of a list `operations`; an
    entry point, or `package.module:attribute`. `resize` takes `size`, `interpolation` (`bilinear`, or `bicubic`) and
    `fit` (`side`: one number is the shorter side; `crop`, `pad`, `stretch`: exactly `size`).

    For volumes (`task.name: volume_classification`): `resize`, `center_crop`, `random_crop` and `pad` (each with a
    `size`, one number or `[slices, rows, columns]`), `flip` and `rotate90` (`axes`, of 0 to 2, and `p`), `intensity`
    (`shift`, `scale`, `p`), `noise` (`std`, `p`), or a plug-in. By default both lists are `resize` to
    `data.image_size`.
    """

    train: Annotated[tuple[Operation, ...], Tuple] | None = None
    """For training. Default: `random_resized_crop` to `data.image_size`, `horizontal_flip`."""
    eval: Annotated[tuple[Operation, ...], Tuple] | None = None
    """For evaluation. Default: `resize` to 8/7 of `data.image_size`, `center_crop` to `data.image_size`."""
    batch: Annotated[tuple[Operation, ...], Tuple] = ()
    """For training, on each micro-batch after normalisation: `mixup`, `cutmix`, `mixup_cutmix` (one or the other),
    `random_erasing`, an entry point, or `package.module:attribute` (called with `num_classes` and its arguments,
    returns a function from images and targets to both). `mixup` and `cutmix` take `alpha` and the probability `p`,
    `mixup_cutmix` takes `mixup_alpha`, `cutmix_alpha`, `p` and `switch`, the probability of CutMix, `random_erasing`
    takes `p`, `scale`, `ratio` and `fill`."""
    off_after: Duration | Literal["off"] = "off"
    """From when on training uses the operations of `eval` instead of `train`, and none on batches: in epochs, steps or
    per cent of the run, to the nearest whole epoch."""
    progressive: dict[str, Count] = {}
    """For `train`: the image size by time, such as `{0%: 128, 50%: 160}`: from each of these points on, to the nearest
    whole epoch, operations without a size of their own make this one instead of `data.image_size`."""
    mean: Annotated[tuple[Finite, ...], Tuple, Field(min_length=1)] = (0.485, 0.456, 0.406)
    """Subtracted from each channel, in 0..1: three numbers, or one where the network takes grey values, or one for each
    of `data.channels`. Default: ImageNet's, and 0.5 where there are other channels than its three."""
    std: Annotated[tuple[Positive, ...], Tuple, Field(min_length=1)] = (0.229, 0.224, 0.225)
    """Each channel is divided by it. Default: ImageNet's, and 0.5 where there are other channels than its three."""

    def normalisation(self, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel of images as a network of so many takes them.

        The mean of grey values is that of three channels, weighted as they are in `LUMA`, or the one that is given. So
        is the deviation where the channels go together, as in most images; it is smaller where they do not. Where
        nothing is given, channels that are neither grey nor RGB have 0.5 of both: values from -1 to 1.
        """
        return _of_channels(self.mean, channels, "mean"), _of_channels(self.std, channels, "std")

    def sizes(self) -> list[tuple[Duration, int]]:
        """The points of `progressive` and their sizes."""
        return [(Duration.parse(point), size) for point, size in self.progressive.items()]

    @model_validator(mode="after")
    def _units(self) -> AugmentConfig:
        after = self.off_after
        if isinstance(after, Duration) and (after.seconds is not None or after.value <= 0):
            raise ValueError(f"off_after is in epochs, steps or per cent and greater than 0: {after} is not")
        points = [point for point, _ in self.sizes()]
        if any(point.seconds is not None for point in points) or (points and all(point.value for point in points)):
            raise ValueError("progressive has a size from 0% on, and others from epochs, steps or per cent on")
        return self
