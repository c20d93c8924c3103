"""Opens a data set: names the samples, sorts the classes, makes the splits. Pixels are read later, one by one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from PIL import Image

from raycls.config.names.builtin import SOURCES
from raycls.config.paths import expand
from raycls.config.sections.data import DataConfig, SourceConfig
from raycls.config.write import override
from raycls.data.ignore import pattern_of, patterns_of
from raycls.data.images.decoding import turbo
from raycls.data.images.decoding.decode import Pixels, decoded
from raycls.data.images.decoding.turbo import Encoded
from raycls.data.images.planes import RGB, Planes, for_people, held, planes_of
from raycls.data.label_sets import label_names, reordered, samples_of
from raycls.data.rows import reader_of
from raycls.data.samples import Files, Keys, Reader, Samples, digest_of
from raycls.data.sources.arguments import check_types
from raycls.data.sources.remote.cache import with_cache
from raycls.data.sources.remote.objects import Objects
from raycls.data.sources.returned import arranged
from raycls.data.splits.limit import Limit
from raycls.data.splits.split import Groups, divide
from raycls.data.splits.weighted import Weights
from raycls.errors import ConfigError, DataError
from raycls.plugins import builder
from raycls.quantities import first_names

__all__ = [
    "SOURCES",
    "Dataset",
    "Files",
    "Keys",
    "Pool",
    "Reader",
    "Samples",
    "Split",
    "check_source",
    "cut",
    "fingerprint",
    "open_dataset",
    "open_pool",
]


@dataclass(frozen=True)
class Split:
    """Samples of one split. It crosses processes without pixels: names, labels, and where to read."""

    name: str
    classes: tuple[str, ...]
    labels: np.ndarray
    """Class of each sample, `[N] int64`."""
    keys: Keys
    reader: Reader
    formats: tuple[str, ...]
    max_pixels: int
    ignore: tuple[str, ...] | None = None
    """The patterns of `data.source.args.ignore`; None where the source cannot leave out single samples by it."""
    ids: np.ndarray | None = None
    """Ids of the samples, ascending `[N] int64`, where some that the run was started with are left out; None: their
    positions."""
    parts: Mapping[str, Reader] = field(default_factory=dict[str, Reader])
    """As in `Samples`."""
    about: Mapping[str, Keys] = field(default_factory=dict[str, Keys])
    """As in `Samples`."""
    sets: np.ndarray | None = None
    """`[K, C] bool` where a sample has any number of classes: then `labels` are positions in it."""
    weights: Weights | None = None
    """How much each sample counts in the loss; of a split that is trained on, with `data.weight`."""
    planes: Planes = RGB
    """`data.channels` and `data.bit_depth`: what images are decoded to."""

    def __len__(self) -> int:
        return len(self.labels)

    def label(self, index: int) -> str:
        """The class of the sample, or its classes with commas; empty where the data has none."""
        if self.sets is not None:
            return ", ".join(self.classes[column] for column in np.flatnonzero(self.sets[self.labels[index]]).tolist())
        return self.classes[self.labels[index]] if self.classes else ""

    def counts(self) -> np.ndarray:
        """How many samples each class has, `[C] int64`."""
        return samples_of(self.labels, self.sets, len(self.classes))

    def key(self, index: int) -> str:
        """A name of the sample that does not depend on the machine, such as its path below the data folder."""
        return self.keys[index]

    def image(self, index: int) -> Image.Image:
        """The sample decoded to 8-bit RGB, whatever `planes` are. DataError names the file, the reason and the
        remedy."""
        found = self.pixels(index)
        if self.planes != RGB:
            found = for_people(found)
        return Image.fromarray(found) if isinstance(found, np.ndarray) else found

    def pixels(self, index: int) -> Pixels:
        """The sample decoded as `planes` has it, in whichever form costs least: a Pillow image, or an array, `[H, W, 3]
        uint8`, that is not to be written to."""
        data = self._read(index)
        if isinstance(data, bytes):
            return self._decoded(index, data)
        found = held(data, self.planes) if isinstance(data, np.ndarray) else None
        if found is None:
            own = "" if self.planes == RGB else f", or {self.planes.dtype} of shape {self.planes.shape}"
            raise DataError(
                "a source did not return an image",
                where=self.locate(index),
                found=f"{data.dtype} of shape {list(data.shape)}" if isinstance(data, np.ndarray) else repr(type(data)),
                valid=f"bytes of an image file, or uint8 of shape [H, W, 3] or [H, W]{own}",
            )
        return found

    def encoded(self, index: int) -> Pixels | Encoded:
        """The sample before it is decoded, where it is a file that can be decoded smaller; else as `pixels`."""
        data = self._read(index)
        if isinstance(data, bytes):
            size = turbo.size(data, self.max_pixels) if "jpeg" in self.formats and self.planes == RGB else None
            if size is not None:
                return Encoded(data, *size, lambda: self._decoded(index, data))
            return self._decoded(index, data)
        return self.pixels(index)

    def _read(self, index: int) -> bytes | np.ndarray:
        try:
            return self.reader.read(index)
        except DataError as error:
            self._left_out(error, index)
            raise

    def _decoded(self, index: int, data: bytes) -> Pixels:
        try:
            place, most = self.locate(index), self.max_pixels
            return decoded(data, place, formats=self.formats, max_pixels=most, planes=self.planes)
        except DataError as error:  # itself: what it was raised from says whether a file is bad, or was not read
            self._left_out(error, index)
            raise

    def _left_out(self, error: DataError, index: int) -> None:
        error.fix = f"{error.fix}; {self.without(index)}" if error.fix else self.without(index)

    def read(self, index: int, part: str) -> bytes | np.ndarray:
        """Another part of the sample, as its reader has it; DataError where the source gave none of that name."""
        if part not in self.parts:
            found = ", ".join(self.parts) or "none"
            raise DataError(f"the source gives samples no part {part!r}", where=self.locate(index), found=found)
        return self.parts[part].read(index)

    def without(self, index: int) -> str:
        """How to leave a sample out, as it is typed."""
        if getattr(self.reader, "positional", False):  # without one sample the next ones have other keys
            return "or take it out of the data, and start a new run"
        if self.ignore is None:
            return "or remove it from the data and rerun the command to resume without it"
        added = override("data.source.args.ignore", [*self.ignore, pattern_of(self.key(index))])
        finds = "raycls init CONFIG --check finds all such files"
        return f"or leave it out: add {added} to the command; {finds}"

    def locate(self, index: int) -> str:
        """Where the sample is, in the words of an error message: the path of a file, or the key."""
        locate = getattr(self.reader, "locate", None)
        return self.key(index) if locate is None else locate(index)


@dataclass(frozen=True)
class Dataset:
    """A data set: its classes, its splits, and a fingerprint of both."""

    classes: tuple[str, ...]
    splits: dict[str, Split]
    """Among `train`, `val` and `test`; one without samples is not there."""
    fingerprint: str
    """sha256 over the classes and the keys and labels of each split, in hexadecimal. Pixels do not count."""
    own_splits: tuple[str, ...] = ()
    """The splits that the data brought itself; the others were cut from it."""
    notes: tuple[str, ...] = ()
    """What a user should know about how the data was read, a line each."""

    @property
    def cut_from_train(self) -> bool:
        """Whether `data.split` took `val` from a `train` that the data brought itself."""
        return "val" in self.splits and "train" in self.own_splits and "val" not in self.own_splits


@dataclass(frozen=True)
class Pool:
    """All samples of a source, before anything is split."""

    classes: tuple[str, ...]
    labels: np.ndarray
    """Class of each sample, `[N] int64`."""
    keys: Keys
    reader: Reader
    splits: Mapping[str, Sequence[int] | np.ndarray] | None
    """The data's own splits, as positions."""
    notes: tuple[str, ...] = ()
    """What a user should know about how the data was read, a line each."""
    ignore: tuple[str, ...] | None = None
    """As in `Split`."""
    parts: Mapping[str, Reader] = field(default_factory=dict[str, Reader])
    """As in `Samples`."""
    about: Mapping[str, Keys] = field(default_factory=dict[str, Keys])
    """As in `Samples`."""
    sets: np.ndarray | None = None
    """As in `Split`."""

    @property
    def label_names(self) -> tuple[str, ...]:
        """The name of every value that `labels` may have."""
        return label_names(self.classes, self.sets)

    def counts(self, rows: np.ndarray) -> np.ndarray:
        """How many of the samples at `rows` have each class, `[C] int64`."""
        return samples_of(self.labels[rows], self.sets, len(self.classes))

    def ordered(self, classes: Sequence[str]) -> Pool:
        """This pool with its classes in the order of `classes`; as it is where these are others."""
        position = {name: index for index, name in enumerate(classes)}
        if not position or set(position) != set(self.classes):
            return self
        moved = np.array([position[name] for name in self.classes], np.int64)
        if self.sets is not None:
            return replace(self, classes=tuple(classes), sets=reordered(self.sets, moved, len(classes)))
        return replace(self, classes=tuple(classes), labels=moved[self.labels])

    def split(self, name: str, rows: np.ndarray, config: DataConfig) -> Split:
        """The samples at `rows`, `[n] int64`, in that order, decoded as `config` says."""
        reader = reader_of(self.reader, rows, len(self.labels))
        names = self.keys.take(rows)
        if isinstance(reader, Files | Objects) and getattr(self.reader, "names", None) is self.keys:
            reader = replace(reader, names=names)  # the keys are the file names: one copy is enough on the wire
        labels, formats = self.labels[rows], tuple(config.formats)
        parts = {part: reader_of(other, rows, len(self.labels)) for part, other in self.parts.items()}
        about = {column: values.take(rows) for column, values in self.about.items()}
        more: dict[str, Any] = {"ignore": self.ignore, "parts": parts, "about": about, "sets": self.sets}
        more["planes"] = planes_of(config)
        if config.weight is not None and name == "train":
            more["weights"] = Weights.of(config.weight, about[config.weight], names)
        return Split(name, self.classes, labels, names, reader, formats, config.max_pixels, **more)


def check_source(config: DataConfig) -> None:
    """Find the source and bind its arguments, without looking at any data. ConfigError where that fails."""
    _source(config.source)


def open_dataset(config: DataConfig, limit: Limit | None = None) -> Dataset:
    """Look at the data that `config.source` names. DataError where it cannot be trained on as it is."""
    return cut(open_pool(config), config, limit)


def open_pool(config: DataConfig, *, least_classes: int = 2, about: Sequence[str] = ()) -> Pool:
    """All samples of the data that `config.source` names, in no split yet. DataError where they are no data set.

    `about` are columns of the data whose values are kept for each sample.
    """
    source = _source(config.source)
    path = config.source.path
    path = expand(path, where="data.source.path") if path is not None else None
    samples: Any = source(path, **config.source.args, **_columns(source, config, about))
    if not isinstance(samples, Samples):
        raise DataError(
            "the source did not return samples",
            where=f"data.source.name: {config.source.name}",
            found=repr(type(samples)),
            valid="raycls.data.samples.Samples",
        )
    samples = with_cache(samples, config.cache)
    classes, labels, sets, notes = arranged(samples, least_classes, path or config.source.name)
    keys = samples.keys if isinstance(samples.keys, Keys) else Keys(samples.keys)
    if len(keys) != len(labels):
        raise DataError("the source must return one key per label", found=f"{len(keys)} keys, {len(labels)} labels")
    return Pool(
        classes,
        labels,
        keys,
        samples.reader,
        samples.splits,
        (*samples.notes, *notes),
        _ignore(source, config.source, samples.reader),
        samples.parts,
        {name: values if isinstance(values, Keys) else Keys(values) for name, values in samples.about.items()},
        sets,
    )


def cut(pool: Pool, config: DataConfig, limit: Limit | None = None) -> Dataset:
    """The data set of a run that starts now: the data's own splits, or those of `config.split`; no more than `limit`
    leaves of each."""
    groups = Groups.of(pool.about, pool.keys, config.group)
    fold = None if config.fold.of == "off" else (config.fold.index, config.fold.of)
    rows = divide(pool.labels, pool.splits, config.split, pool.sets, groups, fold)
    left = rows if limit is None else limit.of(rows, config.split.seed)
    splits = {name: pool.split(name, rows, config) for name, rows in left.items()}
    if limit is None:
        _check_trained(splits, pool.classes)
    mark = fingerprint(pool.classes, splits)
    notes = (*pool.notes, *(groups.notes(pool.splits) if groups else ()), *(limit.notes(rows) if limit else ()))
    return Dataset(pool.classes, splits, mark, tuple(pool.splits or ()), notes)


def _source(config: SourceConfig) -> Callable[..., Any]:
    at = "data.source.name", "data.source.args"
    source = builder("source", config.name, config.args, SOURCES, given=("path",), at=at)
    if config.name in SOURCES:
        check_types(source, config.args, where="data.source.args")
    if config.path is None and config.name in SOURCES and _needs_path(source):
        raise ConfigError(
            f"the source {config.name} requires a path",
            where="data.source.path",
            found="none",
            valid="a file or folder, relative to the working directory",
            fix="set data.source.path to the file or folder that holds the data",
        )
    return source


def _columns(source: Callable[..., Any], config: DataConfig, about: Sequence[str]) -> dict[str, Any]:
    own = {"data.group": None if config.group == "off" else config.group, "data.weight": config.weight}
    own = {option: column for option, column in own.items() if column is not None}
    wanted = list(dict.fromkeys([*about, *own.values()]))
    if not wanted:
        return {}
    if "about" not in inspect.signature(source).parameters:
        fix = f"name with --data a CSV file of the images with the columns path, label, {', '.join(about)}"
        raise DataError(
            "only a manifest has columns to evaluate by"
            if about
            else f"this source has no columns for {', '.join(own)}",
            where=" ".join(f"--by {name}" for name in about) or ", ".join(own),
            found=f"images of the source {config.source.name}",
            valid="a manifest, or a source of your own that takes the argument about",
            fix=fix
            if about
            else f"list the images in a CSV file with the columns path, label, {', '.join(own.values())}",
        )
    return {"about": wanted}


def _ignore(source: Callable[..., Any], config: SourceConfig, reader: Reader) -> tuple[str, ...] | None:
    if "ignore" not in inspect.signature(source).parameters or getattr(reader, "positional", False):
        return None  # `arrays` leaves out whole arrays alone
    return patterns_of(config.args.get("ignore", ()))


def _needs_path(source: Callable[..., Any]) -> bool:
    return inspect.signature(source).parameters["path"].default is inspect.Parameter.empty


def _check_trained(splits: dict[str, Split], classes: tuple[str, ...]) -> None:
    if not classes:
        return
    trained = splits["train"].counts() > 0
    for name, split in splits.items():
        unknown = [classes[label] for label in np.flatnonzero((split.counts() > 0) & ~trained)]
        if unknown:
            raise DataError(
                f"the split {name} has classes that the train split does not have",
                found=first_names(unknown),
                valid="in val and test, only classes that are trained",
                fix="check the names for a difference in spelling, or add images to the train split",
            )


def fingerprint(classes: tuple[str, ...], splits: Mapping[str, Split]) -> str:
    """What `Dataset.fingerprint` is."""
    return digest_of((*Keys(classes).digest_parts(), *(part for split in splits.values() for part in _identity(split))))


def _identity(split: Split) -> tuple[bytes, ...]:
    labels = split.labels.astype("<i8") if split.sets is None else np.packbits(split.sets, axis=1)[split.labels]
    weights = () if split.weights is None else (split.weights.values.astype("<f8").tobytes(),)
    return (split.name.encode(), *split.keys.digest_parts(), labels.tobytes(), *weights)
