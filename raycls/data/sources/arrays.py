"""Source `arrays`: one `.npz` file of images and labels.

Either `images` and `labels`, or `train_images`, `train_labels` and the same for `val` and `test`. Other names that
say the same are read too; an array that would not be used is an error.
"""

from __future__ import annotations

import glob
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, ClassVar, NamedTuple

import numpy as np

from raycls.config.write import override
from raycls.data.ignore import ignorer, patterns_of
from raycls.data.names import SPLIT_WORDS, in_order, integers, same_form, words_of
from raycls.data.samples import Keys, Samples
from raycls.data.sources.remote.cache import Cache
from raycls.data.sources.remote.places import Local, file_of
from raycls.data.sources.remote.stored import Stored
from raycls.data.sources.roles import CLASSES, Role, roles_of
from raycls.data.sources.shards import Shards
from raycls.errors import DataError

__all__ = ["arrays"]


def arrays(path: str | Path, ignore: str | Sequence[str] = (), ignore_file: str | None = None) -> Samples:
    """Images `[N, H, W, 3]`, `[N, H, W, 1]` or `[N, H, W]` uint8, labels `[N]` (or `[N, 1]`) integer or text.

    The arrays are `images` and `labels`, or `train_images`, `train_labels` and the same for `val` and `test`; other
    usual names are read too (`x_train`, `y_train`, `images_valid`, `dev_labels`). With an array `classes` of texts,
    which is their order, integer labels are positions in it; without, the labels themselves are the classes. An
    array that is none of these is an error unless `ignore` (or a line of `ignore_file`) names it. The file is never
    unpickled. Arrays written by `numpy.savez` are mapped into memory, so that processes share them; those of
    `numpy.savez_compressed` are unpacked once per process.
    """
    place, name = file_of(path)
    stored, file = Stored.of(place, [name]), place.locate(name)
    given = patterns_of(ignore, ignore_file)
    ignored = ignorer(given)
    shapes = {name: header for name, header in _shapes(stored).items() if not ignored(name)}
    parts = _parts(file, shapes, given)
    labels, keys = [], []
    for part in parts:
        count = _check_images(file, part.images, shapes[part.images])
        labels.append(_labels(stored, part.labels, count))
        keys.extend(f"{part.images}:{row}" for row in range(count))
    shards = Shards.of(map(len, labels))
    declared = next((name for name in shapes if name.casefold() in CLASSES), None)
    classes, numbers = _classes(stored, declared, labels)
    splits = {part.split: shards.rows(i, i + 1) for i, part in enumerate(parts) if part.split}
    return Samples(
        classes,
        numbers,
        Keys(keys),
        _Arrays(stored, tuple(part.images for part in parts), shards),
        splits or None,
        ordered=declared is not None,
        notes=_told(parts),
    )


_VALID = "images and labels, or train_images and train_labels (and val_..., test_...)"
_IGNORE = "data.source.args.ignore"


class _Part(NamedTuple):
    split: str | None
    images: str
    labels: str


def _parts(file: str, shapes: Mapping[str, _Header | None], given: Sequence[str]) -> list[_Part]:
    """The names of images and labels of each split. DataError where an array is left over, or its meaning is open."""
    found = roles_of(name for name, header in shapes.items() if header is not None)
    splits = [split for split in (*SPLIT_WORDS, None) if Role("images", split) in found]
    if not splits:
        raise _bad(file, f"it holds {', '.join(sorted(shapes)) or 'nothing'}", _VALID)
    if len(splits) > 1 and None in splits:
        others = [Role(kind, split) for kind in ("images", "labels") for split in SPLIT_WORDS]
        extra = others if "train" not in splits else [Role("images", None), Role("labels", None)]
        remedy = _leave_out([name for role in extra for name in found.get(role, ())], given)
        raise _bad(file, "it has images both with and without a split", _VALID, f"name each split, or {remedy}")
    parts: list[_Part] = []
    for split in splits:
        images = found[Role("images", split)][0]
        labels = found.get(Role("labels", split))
        if labels is None:
            wanted = f"{split}_labels" if split else "labels"
            remedy = _leave_out([images], given) if len(splits) > 1 and split != "train" else None
            raise _bad(file, f"there is no {wanted} for {images}", _VALID, remedy)
        parts.append(_Part(split, images, labels[0]))
    used = {name for part in parts for name in (part.images, part.labels)}
    used.update([name for name in shapes if name.casefold() in CLASSES][:1])
    left = sorted(set(shapes) - used)
    if left:
        shown = ", ".join(f"{name} {_shown(shapes[name])}" for name in left[:8])
        more = f" and {len(left) - 8} more" if len(left) > 8 else ""
        raise DataError(
            "the file holds arrays that would not be used",
            where=file,
            found=f"{shown}{more}, beside {', '.join(sorted(used))}",
            valid=f"{_VALID}, each once, under any usual name (x_train, images_valid ...), and classes",
            fix=f"save them under names that say what they are, or {_leave_out(left, given)}",
        )
    return parts


def _leave_out(names: Sequence[str], given: Sequence[str]) -> str:
    return f"leave them out with {override(_IGNORE, [*given, *map(glob.escape, names)])}"


def _shown(header: _Header | None) -> str:
    return "(no array)" if header is None else f"({header.dtype} {list(header.shape)})"


def _told(parts: Sequence[_Part]) -> tuple[str, ...]:
    """A line that says which arrays were taken for which split, where their names are others."""
    other = [part for part in parts if part.split and not part.images.startswith(f"{part.split}_")]
    words = [f"{part.images} is read as {part.split}" for part in other if part.split not in words_of(part.images)]
    return (f"data: {', '.join(words)}",) if words else ()


@dataclass(frozen=True)
class _Arrays:
    """Reads images of an `.npz`. An array is opened once per process, when first asked for."""

    files: Stored
    names: tuple[str, ...]
    shards: Shards
    positional: ClassVar[bool] = True

    def read(self, index: int) -> np.ndarray:
        shard, row = self.shards.place(index)
        return self.shards.content(shard, self._images)[row]

    def locate(self, index: int) -> str:
        shard, row = self.shards.place(index)
        return f"{self.files.locate(0)}:{self.names[shard]}[{row}]"

    def sizes(self) -> np.ndarray:
        shapes = _shapes(self.files)
        headers = [shapes.get(name) for name in self.names]
        each = [0 if header is None else int(np.prod(header.shape[1:])) for header in headers]
        return np.repeat(np.array(each, np.int64), np.diff(self.shards.starts))

    def _images(self, shard: int) -> np.ndarray:
        images, expected = _array(self.files, self.names[shard]), self.shards.count(shard)
        if len(images) != expected:
            found = f"{self.names[shard]} has {len(images)} images, it had {expected} when opened"
            raise _bad(self.files.locate(0), found, None)
        return images[..., 0] if images.ndim == 4 and images.shape[3] == 1 else images

    def cached(self, cache: Cache) -> _Arrays:
        """The same with the file kept in `cache`."""
        return replace(self, files=self.files.cached(cache))


def _classes(stored: Stored, declared: str | None, labels: Sequence[np.ndarray]) -> tuple[list[str], np.ndarray]:
    """The classes, and the number of each label `[N] int64`. Labels of one class may differ in type between splits."""
    file = stored.locate(0)
    if declared is None:
        values = [np.unique(each, return_inverse=True) for each in labels]
        texts = [[_text(file, value) for value in found.tolist()] for found, _ in values]
        renamed = integers([text for each in texts for text in each])
        texts = [[renamed.get(text, text) for text in each] for each in texts]
        number = {text: index for index, text in enumerate(in_order({text for each in texts for text in each}))}
        numbers = [
            np.array([number[text] for text in each], dtype=np.int64)[inverse.reshape(-1)]
            for each, (_, inverse) in zip(texts, values, strict=True)
        ]
        return list(number), np.concatenate(numbers)
    names = _array(stored, declared)
    if names.ndim != 1 or names.dtype.kind not in "US":
        raise _bad(file, f"{declared} is {names.dtype} of shape {list(names.shape)}", "classes as a list of strings")
    classes = [_text(file, name) for name in names.tolist()]
    position = {same_form(name): index for index, name in enumerate(classes)}
    return classes, np.concatenate([_positions(file, declared, position, each) for each in labels])


def _positions(file: str, declared: str, position: Mapping[str, int], labels: np.ndarray) -> np.ndarray:
    """Where each label stands among the declared classes: a text by its name, a number as the position it is."""
    if labels.dtype.kind in "US":
        found, inverse = np.unique(labels, return_inverse=True)
        names = [same_form(_text(file, value)) for value in found.tolist()]
        unknown = [name for name in names if name not in position]
        if unknown:
            raise _bad(
                file, f"the label {unknown[0]!r} is not in {declared}", f"labels among {', '.join([*position][:8])}"
            )
        return np.array([position[name] for name in names], dtype=np.int64)[inverse.reshape(-1)]
    numbers = labels.astype(np.int64)
    if len(labels) and not (labels.min() >= 0 and labels.max() < len(position)):
        raise _bad(
            file,
            f"labels from {numbers.min()} to {numbers.max()}",
            f"0 to {len(position) - 1}, positions in {declared}; or strings, names in it",
        )
    return numbers


def _text(file: str, value: Any) -> str:
    """A label as the name of a class."""
    if not isinstance(value, bytes):
        return str(int(value)) if isinstance(value, float) else str(value)
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _bad(file, f"the label {value!r} is not UTF-8", "strings, or bytes that are UTF-8") from error


def _check_images(file: str, name: str, header: _Header | None) -> int:
    if header is None:
        raise _bad(file, f"{name} is no array", _VALID)
    shape = header.shape
    images = len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3))
    if header.dtype != np.uint8 or not images or 0 in shape[1:]:
        raise _bad(
            file,
            f"{name} is {header.dtype} of shape {list(shape)}",
            "uint8 of shape [N, H, W, 3], [N, H, W, 1] or [N, H, W], values from 0 to 255",
            _conversion(name, header),
        )
    return shape[0]


def _conversion(name: str, header: _Header) -> str | None:
    """What numpy makes of images that are of another type or order; None where that is not known."""
    shape, kind = header.shape, header.dtype.kind
    first = len(shape) == 4 and shape[1] in (1, 3) and shape[3] not in (1, 3)
    steps = [f"channels come last: {name}.transpose(0, 2, 3, 1)"] if first else []
    if kind == "f":
        steps.append(
            f"values from 0 to 1 become bytes with numpy.rint({name} * 255).astype(numpy.uint8), those from 0 to 255 "
            f"with numpy.rint({name}).astype(numpy.uint8)"
        )
    elif kind == "b":
        steps.append(f"bytes of it are {name}.astype(numpy.uint8) * 255")
    elif kind in "iu" and header.dtype != np.uint8:
        steps.append(f"where all values are from 0 to 255, {name}.astype(numpy.uint8)")
    return f"{'; '.join(steps)}; then save the file again" if steps else None


def _labels(stored: Stored, name: str, count: int) -> np.ndarray:
    file, labels = stored.locate(0), _array(stored, name)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    whole = labels.dtype.kind in "iuUS" or (labels.dtype.kind == "f" and bool(np.all(labels == np.rint(labels))))
    if labels.shape != (count,) or not whole:
        raise _bad(file, f"{name} is {labels.dtype} of shape {list(labels.shape)}", f"{count} integers or strings")
    return labels


@dataclass(frozen=True)
class _Header:
    """What the header of one array says."""

    shape: tuple[int, ...]
    dtype: np.dtype
    column_major: bool


def _shapes(stored: Stored) -> dict[str, _Header | None]:
    """Shape and type of every array, without reading any; None for a member that is no array."""

    def read() -> dict[str, _Header | None]:
        with stored.open(0) as file, zipfile.ZipFile(file) as archive:
            found: dict[str, _Header | None] = {}
            for member in archive.namelist():
                if not member.endswith(".npy"):
                    found[member] = None
                    continue
                with archive.open(member) as stream:
                    found[member.removesuffix(".npy")] = _header(stream)
            return found

    try:
        return stored.run(0, read)
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise _unreadable(stored.locate(0), error) from error


def _header(stream: IO[bytes]) -> _Header:
    version = np.lib.format.read_magic(stream)
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, column_major, dtype = reader(stream)
    return _Header(shape, dtype, column_major)


def _array(stored: Stored, name: str) -> np.ndarray:
    member = f"{name}.npy"

    def read() -> np.ndarray:
        with stored.open(0) as file, zipfile.ZipFile(file) as archive:
            info = archive.getinfo(member)
            if (
                isinstance(stored.place, Local)
                and info.compress_type == zipfile.ZIP_STORED
                and info.file_size > 1 << 20
            ):
                return _mapped(stored.locate(0), archive, info)
            with archive.open(member) as stream:
                return np.lib.format.read_array(stream, allow_pickle=False)

    try:
        return stored.run(0, read)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise _unreadable(stored.locate(0), error) from error


def _mapped(file: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    """An array that is stored as it is, mapped instead of read."""
    with archive.open(info) as stream:  # zipfile checks the member's own header here
        header = _header(stream)
        length = stream.tell()
    if header.dtype.hasobject:
        raise ValueError("an array of Python objects, which would have to be unpickled")
    with open(file, "rb") as raw:
        raw.seek(info.header_offset + 26)  # the lengths of name and extra field (ZIP APPNOTE, 4.3.7)
        sizes = raw.read(4)
    start = info.header_offset + 30 + int.from_bytes(sizes[:2], "little") + int.from_bytes(sizes[2:], "little")
    order = "F" if header.column_major else "C"
    return np.memmap(file, header.dtype, mode="r", offset=start + length, shape=header.shape, order=order)


def _unreadable(file: str, error: Exception) -> DataError:
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    if "allow_pickle" in text or "unpickled" in text:
        text = "it holds Python objects, which are never unpickled"
        fix = "convert labels to integers or strings (labels.astype(str)), and save the file again"
    elif isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError):
        fix = "check data.source.path"
    elif isinstance(error, PermissionError):
        fix = "make the file readable, or check data.source.path"
    else:
        fix = "check data.source.path, or write the file anew with numpy.savez"
    return DataError(
        "cannot read the arrays",
        where=file,
        found=text,
        valid="an .npz file of plain arrays, as numpy.savez writes it",
        fix=fix,
    )


def _bad(file: str, found: str, valid: str | None, fix: str | None = None) -> DataError:
    return DataError("the arrays are not a set of labelled images", where=file, found=found, valid=valid, fix=fix)
