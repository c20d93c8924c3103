"""`raycls init`: look at a folder of images, a manifest or an `.npz`, and write a config that trains on it.

The rules are few and written into the config as comments, so that a reader sees why a value is what it is.
"""

from __future__ import annotations

import json
import os
import shlex
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from raycls.config.load import load_text
from raycls.config.paths import expand
from raycls.config.sections.data import DataConfig, SourceConfig
from raycls.data.ignore import as_options
from raycls.data.source import Dataset, Split, open_dataset
from raycls.data.sources.recognised import recognised
from raycls.data.sources.remote.address import is_remote
from raycls.errors import ConfigError, DataError
from raycls.progress import counted

__all__ = ["Survey", "compose", "describe", "open_folder", "survey", "write"]

_LOOKED_AT = 48
_SMALL = 64
_SIZES = (96, 128, 160, 192, 224)
_LISTED = 20
_IMBALANCE = 3.0
_RELATIVE = "   # relative to where the command is typed"


@dataclass(frozen=True)
class Survey:
    """What was found: images per split and class, and the width and height in pixels of a sample of them."""

    path: str
    source: str
    """The name of the source that reads it, such as `folder`."""
    args: dict[str, Any]
    """Arguments of the source that it was read with."""
    classes: tuple[str, ...]
    counts: dict[str, tuple[int, ...]]
    """Split -> images per class, in the order of `classes`."""
    own_splits: tuple[str, ...]
    """The splits that the data came with; none where all are cut by the default fractions of raycls."""
    sizes: tuple[tuple[int, int], ...]
    unreadable: tuple[str, ...] = ()
    """Why images of the sample could not be decoded."""
    notes: tuple[str, ...] = ()
    """How the folder was read, where that is not plain from its names."""

    @property
    def origin(self) -> str:
        """Where the splits come from, in words."""
        if not self.own_splits:
            return "cut by fraction, stratified"
        if "val" in self.own_splits or "val" not in self.counts:
            return "the data has them"
        own = " and ".join(name for name in self.counts if name in self.own_splits)
        return f"the data has {own}; val is cut from its train by data.split, stratified"

    @property
    def total(self) -> int:
        return sum(sum(counts) for counts in self.counts.values())

    @property
    def train(self) -> int:
        return sum(self.counts["train"])

    @property
    def short_side(self) -> int:
        """Median of the shorter sides in pixels."""
        return int(median(min(size) for size in self.sizes))

    @property
    def one_size(self) -> bool:
        return len(set(self.sizes)) == 1

    @property
    def imbalance(self) -> float:
        """Images of the largest class per image of the smallest one, in the training split."""
        counts = self.counts["train"]
        return max(counts) / max(1, min(counts))

    @property
    def elongated(self) -> bool:
        """Whether a square cut out of the middle would lose more than half of a typical image."""
        return median(max(size) / min(size) for size in self.sizes) > 2

    @property
    def characters(self) -> bool:
        """Whether the classes are named like digits or letters, which mean another thing when mirrored."""
        return all(len(name) == 1 for name in self.classes)


def survey(path: str, *, ignore: tuple[str, ...] = (), overrides: Sequence[str] = ()) -> Survey:
    """Look at the folder `path`: every file's name, and the pixels of at most 48 images.

    `overrides` are options of `data.source`, such as `data.source.args.splits=none`. DataError where the folder
    cannot be trained on: fewer than two classes, files that are no images, nothing readable. ConfigError for
    other options.
    """
    config, dataset = open_folder(path, ignore, overrides)
    path, args = config.source.path or path, config.source.args
    sizes, unreadable = _look(dataset.splits["train"])
    if not sizes:
        raise DataError("none of the images that were looked at can be decoded", where=path, found=unreadable[0])
    counts = {name: tuple(split.counts().tolist()) for name, split in dataset.splits.items()}
    return Survey(
        path=path,
        source=config.source.name,
        args=args,
        classes=dataset.classes,
        counts=counts,
        own_splits=dataset.own_splits,
        sizes=tuple(sizes),
        unreadable=tuple(unreadable),
        notes=dataset.notes,
    )


def open_folder(path: str, ignore: tuple[str, ...], overrides: Sequence[str]) -> tuple[DataConfig, Dataset]:
    """The folder or file of `survey` as a data set, and the config that opens it."""
    path, args = _source(path, ignore, overrides)
    name = recognised(expand(path, where="data.source.path")) or "folder"
    config = DataConfig(source=SourceConfig(name=name, path=path, args=args))
    return config, _open(config)


def describe(found: Survey) -> list[str]:
    """Classes, counts, sizes and imbalance, in lines for a reader."""
    per_class = np.sum([np.asarray(counts) for counts in found.counts.values()], axis=0).tolist()
    order = sorted(range(len(found.classes)), key=lambda index: (-per_class[index], found.classes[index]))
    lines = [f"{found.total} images of {len(found.classes)} classes in {found.path}"]
    lines += [f"  {per_class[index]:>8}  {found.classes[index]}" for index in order[:_LISTED]]
    if len(order) > _LISTED:
        least = order[-1]
        lines.append(f"  and {len(order) - _LISTED} more, down to {per_class[least]} of {found.classes[least]}")
    splits = ", ".join(f"{sum(counts)} {name}" for name, counts in found.counts.items())
    lines += found.notes
    lines.append(f"splits: {splits} ({found.origin})")
    widths, heights = zip(*found.sizes, strict=True)
    if found.one_size:
        size = f"all {widths[0]}x{heights[0]}"
    else:
        size = (
            f"{min(widths)}x{min(heights)} to {max(widths)}x{max(heights)}, "
            f"median {median(widths):g}x{median(heights):g}"
        )
    lines.append(f"pixels: {size} (width x height, {len(found.sizes)} images looked at)")
    lines.append(f"imbalance: {_imbalance(found.imbalance)}")
    lines += [f"not readable, training will stop at it: {reason}" for reason in found.unreadable]
    if found.unreadable:
        plain = found.source == "folder" and not found.args  # else the config knows what the path alone does not say
        checked = shlex.quote(found.path) if plain else "CONFIG"
        lines.append(f"raycls init {checked} --check looks at every image, and says how to leave out such")
    return lines


def compose(found: Survey, *, out: str) -> str:
    """The text of a config that trains on `found`; `out` is the file's name in its own header."""
    small = found.short_side <= _SMALL
    size = _image_size(found)
    batch = _batch_size(found.train, small)
    steps = -(-found.train // batch)
    epochs = min(60, max(10, -(-1500 // steps)))
    args = f"    args: {_text(found.args)}\n" if found.args else ""
    return (
        f"# {len(found.classes)} classes, {found.train} training images. Written by `raycls init`.\n"
        f"# Command:  raycls train {shlex.quote(out)}\n"
        f"# Expected: not measured yet.\n\n"
        f"data:\n"
        f"  source:\n    name: {found.source}\n"
        f"    path: {_text(found.path)}{'' if is_remote(found.path) else _RELATIVE}\n{args}"
        f"  # splits: {found.origin}\n"
        f"  batch_size: {batch}   # over all workers together; {steps} steps per epoch\n"
        f"  image_size: {size}   # half of the images looked at have a shorter side of {found.short_side} or less\n\n"
        + _augment(found, size, small)
        + _model(small)
        + f"train:\n  duration: {epochs}ep\n"
        f"  micro_batches: {_micro_batches(batch)}   # the most workers that the run can have\n\n"
        + _evaluate(found)
        + "scale:\n  workers: 1   # 0: in this process, without Ray, for a debugger\n"
    )


def write(text: str, path: Path, check: Callable[[Path], None] = lambda path: None) -> None:
    """Write `text` to `path` in one step: another process sees the old file or the new one, never half of it.

    `check` is given the new file first, beside `path` and of the same suffix; where it raises, all stays as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            os.chmod(name, 0o644)
            check(Path(name))
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        raise ConfigError(f"cannot write {path}", found=str(error), fix="choose another --out FILE") from error


def _source(path: str, ignore: tuple[str, ...], overrides: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The path and the arguments of the source, as the command line says."""
    for text in overrides:
        if not text.startswith(("data.source.args", "data.source.path=")):
            raise ConfigError(
                "raycls init takes options of the source alone",
                where="command line",
                found=text,
                valid="data.source.args.NAME=VALUE, data.source.path=DIR",
                fix="leave it out, and give it to raycls train or write it into the config",
            )
    source = load_text("", "raycls init", overrides).run.data.source
    args = {**source.args}
    if ignore:
        given = args.get("ignore", [])
        args["ignore"] = [*([given] if isinstance(given, str) else given), *ignore]
    return source.path or path, args


def _open(config: DataConfig) -> Dataset:
    try:
        return open_dataset(config)
    except DataError as error:
        # There is no config yet that the remedy could be written into; other options go after DIR as they are.
        others = error.fix is None or "args.ignore" not in error.fix or "args.splits" in error.fix
        fix = error.fix if others else as_options(str(error.fix))
        raise DataError(error.what, where=error.where, found=error.found, valid=error.valid, fix=fix) from error


def _look(split: Split) -> tuple[list[tuple[int, int]], list[str]]:
    """Sizes (width, height) of images spread evenly over the split, and the reasons of those that failed."""
    chosen = np.unique(np.linspace(0, len(split) - 1, min(len(split), _LOOKED_AT)).round().astype(int)).tolist()
    sizes: list[tuple[int, int]] = []
    unreadable: list[str] = []
    for index in counted(chosen, "looking at images", len(chosen), "images"):
        try:
            sizes.append(split.image(index).size)
        except DataError as error:
            unreadable.append(" ".join(part for part in (error.what, error.where, error.found) if part))
    return sizes, unreadable


def _image_size(found: Survey) -> int:
    if found.short_side <= _SMALL:
        return max(8, -(-found.short_side // 4) * 4)
    return max((size for size in _SIZES if size <= found.short_side), default=_SMALL)


def _batch_size(train: int, small: bool) -> int:
    """A power of two that leaves about 20 steps per epoch, as far as 128 (small images) or 64 go.

    Or the nearest number that leaves no last batch of one image, over which batch normalisation learns nothing.
    """
    wanted = max(4, train // 20)
    batch = min(128 if small else 64, 1 << (wanted.bit_length() - 1), train)
    return next(size for size in (*range(batch, 1, -1), *range(batch + 1, train + 1)) if train % size != 1)


def _micro_batches(batch: int) -> int:
    return max(1, min(4, batch // 2))


def _evaluate(found: Survey) -> str:
    """What is evaluated, and the metric that decides: one that the images of that split can tell something about."""
    split = next(name for name in ("val", "test", "train") if name in found.counts)
    why_split = "" if split == "val" else f"   # too few images for a val split: what is best is best on {split}"
    absent = found.counts[split].count(0)
    metric, why = "top1", ""
    if found.imbalance > _IMBALANCE and not absent:
        metric, why = "f1_macro", "   # the classes are of unequal size: every class counts the same"
    elif found.imbalance > _IMBALANCE:
        why = f"   # the classes are of unequal size, but {absent} of them {_have(absent)} no image in {split}"
    return f"evaluate:\n  split: {split}{why_split}\n  metric: {metric}{why}\n\n"


def _imbalance(ratio: float) -> str:
    if ratio == 1:
        return "none, every class has as many images"
    return f"the largest class has {ratio:.3g} times the images of the smallest"


def _have(count: int) -> str:
    return "has" if count == 1 else "have"


def _augment(found: Survey, size: int, small: bool) -> str:
    whole = f"resize: {{size: [{size}, {size}]}}"
    flip = [] if found.characters else ["horizontal_flip"]
    if small or found.elongated:
        # The images that were not looked at may be of another size; one of this size is left as it is.
        train = [whole, f"random_crop: {{size: {size}, padding: {max(1, size // 8)}}}", *flip]
        evaluate = [whole]
    else:
        train = [f"random_resized_crop: {{size: {size}, scale: [0.35, 1.0]}}", *flip]
        evaluate = [f"resize: {{size: {round(size * 8 / 7)}}}", f"center_crop: {{size: {size}}}"]
    why = "   # no mirror images: the classes look like characters" if found.characters else ""
    lines = [f"augment:{why}", "  train:", *(f"    - {line}" for line in train)]
    lines += ["  eval:", *(f"    - {line}" for line in evaluate)]
    return "\n".join(lines) + "\n\n"


def _model(small: bool) -> str:
    if small:
        model = "model:\n  name: tiny_cnn   # resnet18_cifar is larger and more accurate\n  args: {width: 64}\n\n"
        rate = "2e-3"
    else:
        model = (
            "model:\n  name: resnet18\n"
            "  # weights: IMAGENET1K_V1   # start from ImageNet (downloaded once): better with few images;\n"
            "  #                            then lower optim.lr to 2e-4\n\n"
        )
        rate = "1e-3"
    optim = f"optim:\n  name: adamw\n  lr: {rate}\n  weight_decay: 0.05\n  weight_decay_on: weights\n\n"
    return model + optim + "schedule:\n  name: cosine\n  warmup: 1ep\n\n"


def _text(value: object) -> str:
    """A JSON text is a YAML text, whatever a path holds."""
    return json.dumps(value, ensure_ascii=False)
