"""One set of images in every format that raycls reads, laid out as the programs write that made the format."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import parquet

from harness.tars import write_shard

__all__ = ["CLASSES", "write_formats"]

CLASSES = ("ant", "bee", "cow", "dog", "eel")


def write_formats(folder: Path, count: int, size: int = 12) -> Mapping[str, str]:
    """`count` JPEGs in a folder of class folders, and from it all other formats, in the order of their paths.

    The override that opens each, by name. The class of an image shifts its brightness, so that it can be learned.
    """
    random = np.random.RandomState(0)
    for at in range(count):
        level = at % len(CLASSES)
        file = folder / "folder" / CLASSES[level] / f"{at // len(CLASSES):04d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = random.randint(0, 128, (size, size, 3)) + 96 * level // len(CLASSES)
        Image.fromarray(pixels.astype(np.uint8)).save(file, quality=90)
    files = sorted((folder / "folder").glob("*/*.jpg"))
    labels = [file.parent.name for file in files]
    images = [file.read_bytes() for file in files]
    _tables(folder, files, labels)
    numbers = [CLASSES.index(label) for label in labels]
    embedded = [{"bytes": data, "path": file.name} for data, file in zip(images, files, strict=True)]
    struct = pa.array(embedded, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    features = {"image": {"_type": "Image"}, "label": {"names": list(CLASSES), "_type": "ClassLabel"}}
    table = pa.table({"image": struct, "label": pa.array(numbers, pa.int64())})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    _shards(folder / "datasets", table)
    _shards(folder / "plain", pa.table({"photo": pa.array(images, pa.binary()), "species": labels}))
    samples = [
        {"__key__": f"{file.parent.name}/{file.stem}", "jpg": data, "cls": number, "json": {"species": label}}
        for file, data, number, label in zip(files, images, numbers, labels, strict=True)
    ]
    half = count // 2
    for number, part in enumerate((samples[:half], samples[half:])):
        write_shard(folder / "tars" / f"photos-{number:04d}.tar", part)
    (folder / "tars" / "classes.txt").write_text("\n".join(CLASSES))
    return {
        "folder": f"{{name: folder, path: {folder}/folder}}",
        "manifest": f"{{name: manifest, path: {folder}/photos.csv}}",
        "hf_folder": f"{{name: hf_folder, path: {folder}/hf}}",
        "datasets": f"{{name: parquet, path: {folder}/datasets}}",
        "plain": f"{{name: parquet, path: {folder}/plain, args: {{columns: {{image: photo, label: species}}}}}}",
        "webdataset": f"{{name: webdataset, path: {folder}/tars, args: {{classes: classes.txt}}}}",
        "pattern": f"{{name: webdataset, path: '{folder}/tars/photos-{{0000..0001}}.tar', "
        "args: {columns: {label: json.species}}}",
    }


def _tables(folder: Path, files: list[Path], labels: list[str]) -> None:
    """A manifest beside the folder, and a folder with a metadata file."""
    (folder / "hf").mkdir()
    for place, column in ((folder / "photos.csv", "path"), (folder / "hf" / "metadata.csv", "file_name")):
        with place.open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow([column, "label"])
            for file, label in zip(files, labels, strict=True):
                name = f"folder/{label}/{file.name}"
                if column == "file_name":
                    name = f"{label}-{file.name}"
                    shutil.copy(file, folder / "hf" / name)
                writer.writerow([name, label])


def _shards(folder: Path, table: pa.Table) -> None:
    folder.mkdir()
    half = len(table) // 2
    for number, part in enumerate((table[:half], table[half:])):
        parquet.write_table(part, folder / f"part-{number:05d}.parquet", row_group_size=16)
