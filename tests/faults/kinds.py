"""Small data sets of every source with files, made of given images: what the fuzz damages."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import tarfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from raycls.config.load import load_text
from raycls.session.packing import pack

__all__ = ["SOURCES", "Written"]

Images = Sequence[bytes]


@dataclass(frozen=True)
class Written:
    """A data set in a folder."""

    source: str
    path: str
    """Below the folder; empty for all of it."""
    about: tuple[str, ...]
    """The files that decide what the data set is: read when it is opened."""
    content: tuple[str, ...]
    """The files that hold images: read later, too."""
    exact: bool = False
    """Whether what is read is what was written, or an error: the source has checksums."""


def _parquet(folder: Path, images: Images) -> Written:
    rows = [{"bytes": image, "path": None} for image in images]
    table = pa.table({"image": rows, "label": ["ab"[at % 2] for at in range(len(rows))]})
    parquet.write_table(table, folder / "data.parquet", row_group_size=3)
    return Written("parquet", "data.parquet", ("data.parquet",), ("data.parquet",))


def _npz(folder: Path, images: Images) -> Written:
    pixels = np.frombuffer((b"".join(images) * 4)[: 6 * 192], np.uint8).reshape(6, 8, 8, 3)
    np.savez(folder / "data.npz", train_images=pixels, train_labels=np.arange(6) % 2)
    return Written("arrays", "data.npz", ("data.npz",), ("data.npz",))


def _cifar(folder: Path, images: Images) -> Written:
    pixels = np.frombuffer((b"".join(images) * 8)[: 4 * 3072], np.uint8).reshape(4, 3072)
    batches = (*(f"data_batch_{index}" for index in range(1, 6)), "test_batch")
    for name in batches:
        content = {b"data": pixels, b"labels": [0, 1, 2, 3], b"filenames": [b"a.png"] * 4}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    names = [name.encode() for name in "abcdefghij"]
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": names}, protocol=2))
    return Written("cifar", "", (*batches, "batches.meta"), batches)


def _files(folder: Path, images: Images) -> tuple[str, ...]:
    for index, image in enumerate(images):
        (folder / f"{index}.jpg").write_bytes(image)
    return tuple(f"{index}.jpg" for index in range(len(images)))


def _csv(folder: Path, images: Images) -> Written:
    files = _files(folder, images)
    rows = (f"{file},{'ab'[at % 2]},train\n" for at, file in enumerate(files))
    (folder / "data.csv").write_text("path,label,split\n" + "".join(rows))
    return Written("manifest", "data.csv", ("data.csv",), files)


def _jsonl(folder: Path, images: Images) -> Written:
    files = _files(folder, images)
    lines = (json.dumps({"path": file, "label": "ab"[at % 2]}) + "\n" for at, file in enumerate(files))
    (folder / "data.jsonl").write_text("".join(lines))
    return Written("manifest", "data.jsonl", ("data.jsonl",), files)


def _coco(folder: Path, images: Images) -> Written:
    files = _files(folder, images)
    listed = [{"id": at, "file_name": file, "width": 40, "height": 40} for at, file in enumerate(files)]
    about = [{"id": at, "image_id": at, "category_id": at % 2} for at in range(len(files))]
    categories = [{"id": 0, "name": "a"}, {"id": 1, "name": "b"}]
    text = json.dumps({"images": listed, "annotations": about, "categories": categories})
    (folder / "data.json").write_text(text)
    return Written("manifest", "data.json", ("data.json",), files)


def _hf_folder(folder: Path, images: Images) -> Written:
    files = _files(folder, images)
    lines = (json.dumps({"file_name": file, "label": "ab"[at % 2]}) + "\n" for at, file in enumerate(files))
    (folder / "metadata.jsonl").write_text("".join(lines))
    return Written("hf_folder", "", ("metadata.jsonl",), files)


def _folder(folder: Path, images: Images) -> Written:
    for name in "ab":
        (folder / name).mkdir()
    files = tuple(f"{'ab'[at % 2]}/{at}.jpg" for at in range(len(images)))
    for file, image in zip(files, images, strict=True):
        (folder / file).write_bytes(image)
    return Written("folder", "", files, files)


def _tar(folder: Path, images: Images) -> Written:
    with tarfile.open(folder / "data-000000.tar", "w") as archive:
        for index, image in enumerate(images):
            for suffix, data in (("jpg", image), ("cls", str(index % 2).encode())):
                member = tarfile.TarInfo(f"{index}.{suffix}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return Written("webdataset", "", ("data-000000.tar",), ("data-000000.tar",))


def _packed(folder: Path, images: Images, **options: Any) -> Written:
    """Packed from a folder, which is not there any more."""
    files = folder / "images"
    files.mkdir()
    _folder(files, images)
    overrides = [f"data.source.path={files}", "data.split={train: 1, val: 0, test: 0}"]
    run = load_text("", "c.yaml", overrides).run
    request = pack.Request(str(folder / "pack"), processes=1, **options)
    pack.pack(run, request, join=lambda *_: nullcontext(), say=lambda text: None)  # pyright: ignore
    shutil.rmtree(files)
    shards = tuple(f"pack/{file.name}" for file in sorted((folder / "pack").glob("shard-*")))
    return Written("packed", "pack", ("pack/pack.json", "pack/index.arrow", *shards), shards, exact=True)


SOURCES: Mapping[str, Callable[[Path, Images], Written]] = {
    "parquet": _parquet,
    "npz": _npz,
    "cifar": _cifar,
    "csv": _csv,
    "jsonl": _jsonl,
    "coco": _coco,
    "hf_folder": _hf_folder,
    "folder": _folder,
    "tar": _tar,
    "packed arrow": lambda folder, images: _packed(folder, images, form="arrow"),
    "packed parquet": lambda folder, images: _packed(folder, images, form="parquet"),
    "packed raw": lambda folder, images: _packed(folder, images, form="arrow", size=8, quality=0),
}
"""How each is written."""
