"""Source `cifar`: the python batches of CIFAR-10 and CIFAR-100 (Krizhevsky 2009), as they are downloaded.

The batches are pickles, and a pickle can run any code. They are read with an unpickler that knows five
names, all of them functions of this file: nothing is looked up, imported or called on the file's behalf.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from raycls.data.names import split_of
from raycls.data.samples import Keys, Samples
from raycls.data.sources.remote.cache import Cache
from raycls.data.sources.remote.places import Place, place_of
from raycls.data.sources.remote.stored import Stored
from raycls.data.sources.shards import Shards
from raycls.errors import DataError, RayclsError

__all__ = ["cifar"]

_CIFAR10 = {"train": tuple(f"data_batch_{number}" for number in range(1, 6)), "test": ("test_batch",)}
_CIFAR100 = {"train": ("train",), "test": ("test",)}


def cifar(path: str | Path) -> Samples:
    """The images of `cifar-10-batches-py` or `cifar-100-python` (fine labels), 32 x 32 pixels.

    `path` is the unpacked folder. DataError where a file is missing, damaged, no such batch, or one batch too many.
    """
    place = place_of(path)
    root, missing = place.locate(""), place.missing(["batches.meta", "meta"])
    if 0 not in missing:
        layout, meta, names_field, labels_field = _CIFAR10, "batches.meta", "label_names", "labels"
    elif 1 not in missing:
        layout, meta, names_field, labels_field = _CIFAR100, "meta", "fine_label_names", "fine_labels"
    else:
        raise DataError(
            "not a folder of CIFAR python batches",
            where=root,
            valid="a folder with batches.meta (CIFAR-10) or meta (CIFAR-100)",
            fix="unpack cifar-10-python.tar.gz or cifar-100-python.tar.gz, and name the folder inside",
        )
    files = [batch for batches in layout.values() for batch in batches]
    _refuse_others(place, {meta, *files})
    stored = Stored.of(place, [*files, meta])
    classes = _names(stored, len(files), names_field)
    labels = [_labels(stored, number, labels_field, len(classes)) for number in range(len(files))]
    shards = Shards.of(map(len, labels))
    train = len(layout["train"])
    return Samples(
        classes=classes,
        labels=np.concatenate(labels),
        keys=Keys(f"{batch}:{row}" for batch, of in zip(files, labels, strict=True) for row in range(len(of))),
        reader=_Batches(stored, shards),
        splits={"train": shards.rows(0, train), "test": shards.rows(train, len(files))},
        ordered=True,  # labels are positions in the list of names
    )


def _refuse_others(place: Place, used: Collection[str]) -> None:
    """DataError where a file beside the batches looks like one more of them."""
    others = sorted(
        name
        for name in (entry.name for entry in place.entries(""))
        if name not in used and ("batch" in name.casefold() or name == "meta" or split_of(name) is not None)
    )
    if others:
        raise DataError(
            "there are batches that would not be used",
            where=place.locate(""),
            found=", ".join(others[:5]) + (f" and {len(others) - 5} more" if len(others) > 5 else ""),
            valid=f"{', '.join(sorted(used))}, and files that are no batches",
            fix="move them to another folder",
        )


@dataclass(frozen=True)
class _Batches:
    """Reads images from batch files. Each file is loaded once per process, when first asked for."""

    files: Stored
    shards: Shards
    positional: ClassVar[bool] = True

    def read(self, index: int) -> np.ndarray:
        shard, row = self.shards.place(index)
        return self.shards.content(shard, self._pixels)[row].reshape(3, 32, 32).transpose(1, 2, 0)

    def locate(self, index: int) -> str:
        shard, row = self.shards.place(index)
        return f"{self.files.locate(shard)}:{row}"

    def sizes(self) -> np.ndarray:
        return np.full(self.shards.total, 3 * 32 * 32, np.int64)

    def _pixels(self, shard: int) -> np.ndarray:
        path = self.files.locate(shard)
        pixels, expected = _pixels(_load(self.files, shard), path), self.shards.count(shard)
        if len(pixels) != expected:
            raise _damaged(path, f"{len(pixels)} images, there were {expected} when the data was opened")
        return pixels

    def cached(self, cache: Cache) -> _Batches:
        """The same with batches kept in `cache`."""
        return replace(self, files=self.files.cached(cache))


def _names(files: Stored, number: int, name: str) -> list[str]:
    path, names = files.locate(number), _load(files, number).get(name)
    if not isinstance(names, list) or not names:
        raise _damaged(path, f"it has no {name}")
    texts = [_text(value) for value in names]
    if not all(isinstance(text, str) for text in texts):
        raise _damaged(path, f"{name} holds something else than names")
    return texts


def _labels(files: Stored, number: int, name: str, num_classes: int) -> np.ndarray:
    path, batch = files.locate(number), _load(files, number)
    rows, labels = len(_pixels(batch, path)), batch.get(name)
    if not isinstance(labels, list) or len(labels) != rows:
        raise _damaged(path, f"{name} is not a list of {rows} labels, one per image")
    if not all(type(label) is int and 0 <= label < num_classes for label in labels):
        raise _damaged(path, f"{name} holds something else than numbers from 0 to {num_classes - 1}")
    return np.array(labels, dtype=np.int64)


def _pixels(batch: dict[str, Any], path: str) -> np.ndarray:
    data = batch.get("data")
    if not isinstance(data, _Array) or data.pixels is None:
        raise _damaged(path, "data is not an array of bytes")
    if data.pixels.ndim != 2 or data.pixels.shape[1] != 3 * 32 * 32:
        raise _damaged(path, f"data has the shape {data.pixels.shape}, an image has 3072 bytes")
    return data.pixels


def _load(files: Stored, number: int) -> dict[str, Any]:
    """The dict in one file, its keys as text."""
    path = files.locate(number)
    try:
        with files.content(number) as file:
            data = file.read()
        _check(data)
        content = _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except OSError as error:
        raise DataError("cannot read a CIFAR file", where=path, found=error.strerror or str(error)) from error
    except RayclsError:  # of a store
        raise
    except Exception as error:  # a damaged pickle ends in nearly any exception; none of its names has run code
        raise _damaged(path, f"{type(error).__name__}: {error}") from error
    if not isinstance(content, dict):
        raise _damaged(path, f"it holds a {type(content).__name__}, not a dict")
    return {key: value for name, value in content.items() if isinstance(key := _text(name), str)}


def _damaged(path: str, found: str) -> DataError:
    return DataError(
        "not a CIFAR python batch, or a damaged one",
        where=path,
        found=found,
        valid="the files of cifar-10-python.tar.gz or cifar-100-python.tar.gz",
        fix="unpack the archive again",
    )


def _text(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


class _Dtype:
    """Stands for numpy.dtype; only bytes are pixels."""

    def __init__(self, name: Any, *_: Any) -> None:
        if _text(name) not in ("u1", "|u1", "uint8"):
            raise pickle.UnpicklingError(f"an array of {_text(name)!r}, images are uint8")

    def __setstate__(self, state: Any) -> None:
        """Byte order and alignment, which say nothing about single bytes."""


class _Array:
    """Stands for numpy.ndarray: takes the state that arrays are pickled with, and checks it."""

    pixels: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, column_major, data = state
        self.pixels = _array(data, dtype, shape, "F" if column_major else "C")


def _array(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    if not isinstance(dtype, _Dtype) or not isinstance(data, bytes | bytearray) or order not in ("C", "F"):
        raise pickle.UnpicklingError("an array that is not made of bytes")
    if not (isinstance(shape, tuple) and all(type(size) is int and size >= 0 for size in shape)):
        raise pickle.UnpicklingError("an array whose shape is not a tuple of sizes")
    if math.prod(shape) != len(data):
        raise pickle.UnpicklingError(f"an array of shape {shape} with {len(data)} bytes")
    return np.frombuffer(data, dtype=np.uint8).reshape(shape, order=order)


def _reconstruct(kind: Any, *_: Any) -> _Array:
    if kind is not _Array:
        raise pickle.UnpicklingError("an array of an unknown kind")
    return _Array()


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    made = _Array()
    made.pixels = _array(data, dtype, shape, order)
    return made


def _encode(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or _text(encoding) not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError("a text in an unknown encoding")
    return text.encode("latin-1")


def _check(data: bytes) -> None:
    """Refuse a place in the table of known objects that no pickler gives: the unpickler makes room up to it."""
    for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and not 0 <= int(argument or 0) <= count:
            raise pickle.UnpicklingError(f"object {count} is put at place {argument}")


class _Unpickler(pickle.Unpickler):
    """Admits arrays of bytes, as numpy 1 and 2 write them, and plain containers."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        name = f"{module_name}.{global_name}".replace("numpy._core.", "numpy.core.")
        if name not in _ADMITTED:
            raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}, which no CIFAR file needs")
        return _ADMITTED[name]


_ADMITTED = {
    "numpy.core.multiarray._reconstruct": _reconstruct,
    "numpy.core.numeric._frombuffer": _from_buffer,  # pickle protocol 5
    "numpy.ndarray": _Array,
    "numpy.dtype": _Dtype,
    "_codecs.encode": _encode,  # bytes that Python 3 wrote with protocol 2
}
