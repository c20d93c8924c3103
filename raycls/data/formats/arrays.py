"""Source `arrays`: one `.npz` file of images and labels.

Either `images` and `labels`, or `train_images`, `train_labels` and the same for `val` and `test`.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np

from raycls.data.samples import Keys, Samples
from raycls.errors import DataError

__all__ = ["arrays"]


def arrays(path: str | Path) -> Samples:
    """Images `[N, H, W, 3]`, `[N, H, W, 1]` or `[N, H, W]` uint8, labels `[N]` (or `[N, 1]`) integer or text.

    With an array `classes` of texts, integer labels are positions in it; without, the labels themselves are
    the classes. The file is never unpickled. Arrays written by `numpy.savez` are mapped into memory, so
    that processes share them; those of `numpy.savez_compressed` are unpacked once per process.
    """
    file = os.path.abspath(path)
    shapes = _shapes(file)
    prefixes = [f"{split}_" for split in ("train", "val", "test") if f"{split}_images" in shapes]
    if not prefixes:
        prefixes = [""]
    elif "images" in shapes:
        raise _bad(file, "it has images both with and without a split", _VALID)
    names, labels, keys, starts = [], [], [], [0]
    for prefix in prefixes:
        name = f"{prefix}images"
        count = _check_images(file, name, shapes)
        labels.append(_labels(file, f"{prefix}labels", count, shapes))
        names.append(name)
        keys.extend(f"{name}:{row}" for row in range(count))
        starts.append(starts[-1] + count)
    classes, numbers = _classes(file, shapes, labels)
    splits = {prefix[:-1]: np.arange(starts[i], starts[i + 1]) for i, prefix in enumerate(prefixes) if prefix}
    return Samples(classes, numbers, Keys(keys), _Arrays(file, tuple(names), tuple(starts)), splits or None)


_VALID = "images and labels, or train_images and train_labels (and val_..., test_...)"


@dataclass
class _Arrays:
    """Reads images of an `.npz`. An array is opened once per process, when first asked for."""

    file: str
    names: tuple[str, ...]
    starts: tuple[int, ...]
    loaded: dict[int, np.ndarray] = field(default_factory=dict, compare=False)
    positional: ClassVar[bool] = True

    def read(self, index: int) -> np.ndarray:
        part = int(np.searchsorted(self.starts, index, side="right")) - 1
        if part not in self.loaded:
            images = _array(self.file, self.names[part])
            expected = self.starts[part + 1] - self.starts[part]
            if len(images) != expected:
                raise _bad(
                    self.file, f"{self.names[part]} has {len(images)} images, it had {expected} when opened", None
                )
            self.loaded[part] = images[..., 0] if images.ndim == 4 and images.shape[3] == 1 else images
        return self.loaded[part][index - self.starts[part]]

    def locate(self, index: int) -> str:
        part = int(np.searchsorted(self.starts, index, side="right")) - 1
        return f"{self.file}:{self.names[part]}[{index - self.starts[part]}]"

    def sizes(self) -> np.ndarray:
        shapes = _shapes(self.file)
        each = [int(np.prod(shapes[name].shape[1:])) for name in self.names]
        return np.repeat(np.array(each, np.int64), np.diff(self.starts))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "loaded": {}}


def _classes(file: str, shapes: dict[str, _Header], labels: list[np.ndarray]) -> tuple[list[str], np.ndarray]:
    values = np.concatenate(labels)
    if "classes" not in shapes:
        texts, numbers = np.unique(values.astype(str), return_inverse=True)
        return texts.tolist(), numbers.reshape(-1).astype(np.int64)
    names = _array(file, "classes")
    if names.ndim != 1 or names.dtype.kind != "U":
        raise _bad(file, f"classes is {names.dtype} of shape {list(names.shape)}", "classes as a list of texts")
    classes = names.tolist()
    if values.dtype.kind == "U":
        number = {name: index for index, name in enumerate(classes)}
        unknown = sorted(set(values.tolist()) - number.keys())
        if unknown:
            raise _bad(file, f"the label {unknown[0]!r} is not in classes", f"labels among {', '.join(classes[:8])}")
        return classes, np.array([number[value] for value in values.tolist()], dtype=np.int64)
    if len(values) and not (values.min() >= 0 and values.max() < len(classes)):
        raise _bad(
            file, f"labels from {values.min()} to {values.max()}", f"0 to {len(classes) - 1}, positions in classes"
        )
    return classes, values.astype(np.int64)


def _check_images(file: str, name: str, shapes: dict[str, _Header]) -> int:
    header = shapes.get(name)
    if header is None:
        raise _bad(file, f"it holds {', '.join(sorted(shapes)) or 'nothing'}", _VALID)
    shape = header.shape
    images = len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3))
    if header.dtype != np.uint8 or not images or 0 in shape[1:]:
        raise _bad(
            file,
            f"{name} is {header.dtype} of shape {list(shape)}",
            "uint8 of shape [N, H, W, 3], [N, H, W, 1] or [N, H, W], values from 0 to 255",
        )
    return shape[0]


def _labels(file: str, name: str, count: int, shapes: dict[str, _Header]) -> np.ndarray:
    if name not in shapes:
        raise _bad(file, f"there is no {name}", _VALID)
    labels = _array(file, name)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape != (count,) or labels.dtype.kind not in "iuU":
        raise _bad(file, f"{name} is {labels.dtype} of shape {list(labels.shape)}", f"{count} integers or texts")
    return labels


@dataclass(frozen=True)
class _Header:
    """What the header of one array says."""

    shape: tuple[int, ...]
    dtype: np.dtype
    column_major: bool


def _shapes(file: str) -> dict[str, _Header]:
    """Shape and type of every array, without reading any."""
    try:
        with zipfile.ZipFile(file) as archive:
            found: dict[str, _Header] = {}
            for member in archive.namelist():
                if member.endswith(".npy"):
                    with archive.open(member) as stream:
                        found[member.removesuffix(".npy")] = _header(stream)
            return found
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise _unreadable(file, error) from error


def _header(stream: IO[bytes]) -> _Header:
    version = np.lib.format.read_magic(stream)
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, column_major, dtype = reader(stream)
    return _Header(shape, dtype, column_major)


def _array(file: str, name: str) -> np.ndarray:
    member = f"{name}.npy"
    try:
        with zipfile.ZipFile(file) as archive:
            info = archive.getinfo(member)
            if info.compress_type == zipfile.ZIP_STORED and info.file_size > 1 << 20:
                return _mapped(file, archive, info)
            with archive.open(member) as stream:
                return np.lib.format.read_array(stream, allow_pickle=False)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise _unreadable(file, error) from error


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
    return DataError(
        "The arrays cannot be read.",
        where=file,
        found=text,
        valid="an .npz file of plain arrays, as numpy.savez writes it",
        fix="convert labels to integers or texts (labels.astype(str)), and save the file again",
    )


def _bad(file: str, found: str, valid: str | None) -> DataError:
    return DataError("The arrays are not a set of labelled images.", where=file, found=found, valid=valid)
