"""Damages files of every kind that raycls reads, and reads them: `python tests/faults/fuzz.py --cases 20000`.

Each case follows from its number alone. A child process reads, the parent watches: a case must end with a sample or
with an error of raycls's own, within 5 s and 1 GB. What a library crashes on is reported by the number of its case.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import multiprocessing
import pickle
import random
import resource
import sys
import tarfile
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from raycls.config.sections.data import DataConfig, SourceConfig
from raycls.data.images.decoding.decode import decode, decoded
from raycls.data.images.decoding.turbo import Encoded
from raycls.data.samples import Keys
from raycls.data.source import Pool, Split, open_pool
from raycls.errors import RayclsError

__all__ = ["KINDS", "Found", "play"]

SECONDS, BYTES = 5.0, 1 << 30
FORMATS = ("jpeg", "png", "webp", "bmp", "tiff", "gif")
_MOST_PIXELS = 1_000_000
_SIDE = 40


def _images() -> dict[str, bytes]:
    """A few of each format."""
    noise = np.random.RandomState(0).randint(0, 256, (_SIDE, _SIDE, 3)).astype(np.uint8)
    smooth = np.linspace(0, 255, _SIDE * _SIDE * 3).reshape(_SIDE, _SIDE, 3).astype(np.uint8)
    colour, plain = Image.fromarray(noise), Image.fromarray(smooth)
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
        "jpeg": (plain, "JPEG", {}),
        "jpeg progressive": (colour, "JPEG", {"progressive": True}),
        "jpeg grey": (plain.convert("L"), "JPEG", {}),
        "jpeg cmyk": (plain.convert("CMYK"), "JPEG", {}),
        "jpeg turned": (plain, "JPEG", {"exif": exif}),
        "png": (colour, "PNG", {}),
        "png palette": (plain.convert("P"), "PNG", {"transparency": 3}),
        "png alpha": (plain.convert("RGBA"), "PNG", {}),
        "png 16": (Image.fromarray(smooth[:, :, 0].astype(np.uint16) * 257), "PNG", {}),
        "webp": (plain, "WEBP", {}),
        "webp lossless": (plain.convert("RGBA"), "WEBP", {"lossless": True}),
        "webp animated": (plain, "WEBP", {"save_all": True, "append_images": [colour]}),
        "bmp": (plain, "BMP", {}),
        "tiff": (plain, "TIFF", {}),
        **{f"tiff {kind}": (plain, "TIFF", {"compression": kind}) for kind in ("tiff_lzw", "packbits", "jpeg")},
        "gif": (plain.convert("P"), "GIF", {}),
        "gif animated": (plain.convert("P"), "GIF", {"save_all": True, "append_images": [colour.convert("P")]}),
    }
    found: dict[str, bytes] = {}
    for name, (image, kind, options) in kinds.items():
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        found[name] = buffer.getvalue()
    return found


def _parquet(folder: Path) -> tuple[str, str]:
    import pyarrow as pa
    from pyarrow import parquet

    images = [image for name, image in _images().items() if name in ("jpeg", "png", "gif")]
    rows = [{"bytes": image, "path": None} for image in images]
    parquet.write_table(pa.table({"image": rows, "label": ["a", "b", "a"]}), folder / "data.parquet")
    return "parquet", "data.parquet"


def _arrays(folder: Path) -> tuple[str, str]:
    random = np.random.RandomState(0)
    images = random.randint(0, 256, (6, 8, 8, 3)).astype(np.uint8)
    np.savez(folder / "data.npz", train_images=images, train_labels=np.arange(6) % 2)
    return "arrays", "data.npz"


def _cifar(folder: Path) -> tuple[str, str]:
    pixels = np.random.RandomState(0).randint(0, 256, (4, 3072)).astype(np.uint8)
    for name in (*(f"data_batch_{index}" for index in range(1, 6)), "test_batch"):
        content = {b"data": pixels, b"labels": [0, 1, 2, 3], b"filenames": [b"a.png"] * 4}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    names = [name.encode() for name in ("a", "b", "c", "d", "e", "f", "g", "h", "i", "j")]
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": names}, protocol=2))
    return "cifar", "data_batch_1"


def _listed(folder: Path, name: str, text: str) -> tuple[str, str]:
    for index, image in enumerate(_images().values()):
        (folder / f"{index}.jpg").write_bytes(image)
    (folder / name).write_text(text)
    return "manifest", name


def _csv(folder: Path) -> tuple[str, str]:
    return _listed(
        folder, "data.csv", "path,label,split\n" + "".join(f"{i}.jpg,{'ab'[i % 2]},train\n" for i in range(8))
    )


def _jsonl(folder: Path) -> tuple[str, str]:
    lines = (json.dumps({"path": f"{i}.jpg", "label": "ab"[i % 2]}) + "\n" for i in range(8))
    return _listed(folder, "data.jsonl", "".join(lines))


def _coco(folder: Path) -> tuple[str, str]:
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 40, "height": 40} for i in range(8)]
    about = [{"id": i, "image_id": i, "category_id": i % 2} for i in range(8)]
    categories = [{"id": 0, "name": "a"}, {"id": 1, "name": "b"}]
    text = json.dumps({"images": images, "annotations": about, "categories": categories})
    return _listed(folder, "data.json", text)


def _tar(folder: Path) -> tuple[str, str]:
    with tarfile.open(folder / "data-000000.tar", "w") as archive:
        for index, image in enumerate(list(_images().values())[:4]):
            for suffix, data in (("jpg", image), ("cls", str(index % 2).encode())):
                member = tarfile.TarInfo(f"{index}.{suffix}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return "webdataset", "data-000000.tar"


SOURCES: Mapping[str, Callable[[Path], tuple[str, str]]] = {
    "parquet": _parquet,
    "npz": _arrays,
    "cifar": _cifar,
    "csv": _csv,
    "jsonl": _jsonl,
    "coco": _coco,
    "tar": _tar,
}
KINDS = (*(f"image {name}" for name in _images()), *SOURCES)
_WEIGHTS = [4 if kind.startswith("image") else 1 for kind in KINDS]


def damaged(data: bytes, draw: random.Random) -> bytes:
    """`data` after one to four blows."""
    found = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        if not found:
            break
        at = draw.randrange(len(found))
        # Headers are where readers decide: half of the blows fall there.
        at = at if draw.random() < 0.5 else draw.randrange(min(len(found), 256))
        blow = draw.randrange(7)
        length = draw.choice((1, 2, 4, 16, 200))
        if blow == 0:
            found[at] ^= 1 << draw.randrange(8)
        elif blow == 1:
            found[at : at + length] = draw.randbytes(length)
        elif blow == 2:
            found[at : at + length] = draw.choice((b"\0", b"\xff", b"\x7f")) * length
        elif blow == 3:
            del found[at:]
        elif blow == 4:
            del found[at : at + length]
        elif blow == 5:
            found[at:at] = draw.randbytes(length)
        else:
            found[at:at] = found[at : at + length]
    return bytes(found)


class _One:
    """The reader of one file that is in memory."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def read(self, index: int) -> bytes:
        return self.data


def read_image(data: bytes) -> str:
    """`image` or `refused`; AssertionError where two ways to decode it say different things."""

    def said(way: Callable[[], Any]) -> tuple[str, Any]:
        try:
            return "image", np.asarray(way())
        except RayclsError as error:
            return f"refused: {error.what}: {error.found}", None

    options: dict[str, Any] = {"formats": FORMATS, "max_pixels": _MOST_PIXELS}
    split = Split("train", ("a",), np.zeros(1, np.int64), Keys(["a"]), _One(data), FORMATS, _MOST_PIXELS)
    pillow = said(lambda: decode(data, "a", **options))
    fast = said(lambda: decoded(data, "a", **options))
    encoded = said(lambda: _scaled(split))
    assert pillow[0] == fast[0], f"Pillow: {pillow[0]}; the fast decoder: {fast[0]}"
    assert pillow[1] is None or np.array_equal(pillow[1], fast[1]), "the two decoders give other pixels"
    assert encoded[0] == pillow[0], f"Pillow: {pillow[0]}; decoded smaller: {encoded[0]}"
    return pillow[0].partition(":")[0]


def _scaled(split: Split) -> Any:
    found = split.encoded(0)
    return found.scaled(4) if isinstance(found, Encoded) else found


@cache
def _whole(kind: str) -> tuple[str, str, Mapping[str, bytes]]:
    with tempfile.TemporaryDirectory() as folder:
        source, target = SOURCES[kind](Path(folder))
        return source, target, {file.name: file.read_bytes() for file in Path(folder).iterdir()}


def opened(source: str, folder: Path, target: str) -> Pool:
    """The data set in `folder`."""
    path = folder if source == "cifar" else folder / target
    return open_pool(DataConfig(source=SourceConfig(name=source, path=str(path))), least_classes=1)


def read_source(kind: str, draw: random.Random, folder: Path) -> str:
    """`read` or `refused`: opens a damaged data set and reads each sample of it."""
    source, target, files = _whole(kind)
    for name, data in files.items():
        (folder / name).write_bytes(damaged(data, draw) if name == target else data)
    try:
        pool = opened(source, folder, target)
    except RayclsError:
        return "refused"
    for row in range(min(20, len(pool.labels))):
        with contextlib.suppress(RayclsError):
            data = pool.reader.read(row)
            if isinstance(data, bytes):
                read_image(data)
    return "read"


def case(number: int) -> str:
    """Do one case; what came of it, or an exception that nobody meant."""
    draw = random.Random(number)
    (kind,) = draw.choices(KINDS, _WEIGHTS)
    if kind.startswith("image "):
        return read_image(damaged(_images_once()[kind.removeprefix("image ")], draw))
    with tempfile.TemporaryDirectory(prefix="raycls-fuzz-") as folder:
        return read_source(kind, draw, Path(folder))


_images_once = cache(_images)


def _child(numbers: range, pipe: Any) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (8 * BYTES, 8 * BYTES))  # the parent looks sooner, and kills
    warnings.simplefilter("ignore")
    for kind in SOURCES:  # imports take longer than cases
        with tempfile.TemporaryDirectory(prefix="raycls-fuzz-") as folder:
            read_source(kind, random.Random(0), Path(folder))
    for number in numbers:
        pipe.send((number, "", 0))
        try:
            said = case(number)
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
        pipe.send((number, said, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))
    pipe.send(None)


@dataclass
class Found:
    """What came of all cases."""

    counts: Counter[str] = field(default_factory=Counter[str])
    wrong: list[str] = field(default_factory=list[str])
    slowest: float = 0.0
    most: int = 0
    """Bytes that the reading process held at the most."""


def play(first: int, cases: int, *, say: Callable[[str], None] = lambda text: None) -> Found:
    """Do the cases from `first` on."""
    found, at, end = Found(), first, first + cases
    while at < end:
        ours, theirs = multiprocessing.Pipe()
        child = multiprocessing.get_context("spawn").Process(target=_child, args=(range(at, end), theirs))
        child.start()
        theirs.close()
        try:
            at = _watch(ours, Path(f"/proc/{child.pid}/statm"), found, at, end, say)
        finally:
            child.kill()
            child.join()
            ours.close()
    return found


def _watch(pipe: Any, memory: Path, found: Found, at: int, end: int, say: Callable[[str], None]) -> int:
    """Hear of the cases until the child ends, hangs or holds too much; the next case. `memory`: its pages."""
    began, running = time.monotonic(), False
    while True:
        if not pipe.poll(0.02):
            if memory.exists() and int(memory.read_text().split()[1]) * resource.getpagesize() > BYTES:
                found.wrong.append(f"case {at}: more than {BYTES >> 20} MB")
                return at + 1
            if time.monotonic() - began > (SECONDS if running else 120.0):
                found.wrong.append(f"case {at}: more than {SECONDS:g} s")
                return at + 1
            continue
        try:
            heard = pipe.recv()
        except EOFError:
            found.wrong.append(f"case {at}: the process ended")
            return at + 1
        if heard is None:
            return end
        at, said, held = heard
        if not said:
            began, running = time.monotonic(), True
            continue
        found.slowest = max(found.slowest, time.monotonic() - began)
        found.most = max(found.most, held)
        if said not in ("image", "read", "refused"):
            found.wrong.append(f"case {at}: {said}")
        found.counts[said] += 1
        if at % 1000 == 0:
            say(f"{at}: {dict(found.counts)}, {len(found.wrong)} wrong")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    began = time.monotonic()
    found = play(options.first, options.cases, say=lambda text: print(text, flush=True))
    print(f"{options.cases} cases in {time.monotonic() - began:.0f} s: {dict(found.counts)}")
    print(f"the slowest took {found.slowest:.2f} s, the process held {found.most >> 20} MB at the most")
    print("\n".join(found.wrong) or "nothing wrong")
    sys.exit(bool(found.wrong))


if __name__ == "__main__":
    main()
