"""Damages files of every kind that raycls reads, and reads them: `python tests/faults/fuzz.py --cases 20000`.

Each case follows from its number alone. A child process reads, the parent watches: a case must end with a sample or
with an error of raycls's own, within 5 s and 1 GB. What a library crashes on is reported by the number of its case.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import multiprocessing
import pickle
import random
import resource
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from faults.kinds import SOURCES, Written
from raycls.config.sections.data import DataConfig, SourceConfig
from raycls.data.images.decoding.decode import decode, decoded
from raycls.data.images.decoding.turbo import Encoded
from raycls.data.samples import Keys
from raycls.data.source import Pool, Split, open_pool
from raycls.errors import RayclsError

__all__ = ["KINDS", "SOURCES", "Found", "as_bytes", "damaged", "images", "play", "whole"]

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


KINDS = (*(f"image {name}" for name in _images()), *SOURCES)
_WEIGHTS = [2 if kind.startswith("image") else 3 for kind in KINDS]


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


@dataclass(frozen=True)
class Whole:
    """A data set that is not damaged."""

    written: Written
    files: Mapping[str, bytes]
    """By their paths."""
    read: tuple[bytes, ...]
    """What its samples are."""

    def put(self, folder: Path, others: Mapping[str, bytes]) -> None:
        """Write it, some files as `others` have them."""
        for name, data in {**self.files, **others}.items():
            file = folder / name
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(data)

    def open(self, folder: Path) -> Pool:
        path = str(folder / self.written.path)
        return open_pool(DataConfig(source=SourceConfig(name=self.written.source, path=path)), least_classes=1)


def as_bytes(data: bytes | np.ndarray) -> bytes:
    return data if isinstance(data, bytes) else data.tobytes()


def written(kind: str, images: Sequence[bytes]) -> Whole:
    """The data set of a kind with these images."""
    with tempfile.TemporaryDirectory(prefix="raycls-fuzz-") as name:
        folder = Path(name)
        about = SOURCES[kind](folder, images)
        files = {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        pool = Whole(about, files, ()).open(folder)
        return Whole(about, files, tuple(as_bytes(pool.reader.read(row)) for row in range(len(pool.labels))))


@cache
def whole(kind: str) -> Whole:
    return written(kind, list(images().values())[:8])


def read_source(kind: str, draw: random.Random, folder: Path) -> str:
    """`read` or `not opened`: opens a damaged data set and reads each sample of it.

    A fifth of the cases damage what is read when it is opened, which most do not survive. Else it is opened first, and
    a file with images is damaged before they are read, in half of the cases to the same length.
    """
    found = whole(kind)
    at_once = draw.random() < 0.2
    names = found.written.about if at_once else found.written.content
    hit = {name: damaged(found.files[name], draw) for name in draw.sample(names, draw.randint(1, min(3, len(names))))}
    if draw.random() < 0.5:
        hit = {name: data[: len(found.files[name])].ljust(len(found.files[name])) for name, data in hit.items()}
    found.put(folder, hit if at_once else {})
    try:
        pool = found.open(folder)
    except RayclsError:
        return "not opened"
    if not at_once:
        for name, data in hit.items():
            (folder / name).unlink()  # what was mapped stays as it was
            (folder / name).write_bytes(data)
        pool = pickle.loads(pickle.dumps(pool))
    for row in range(min(20, len(pool.labels))):
        with contextlib.suppress(RayclsError):
            data = pool.reader.read(row)
            assert not found.written.exact or as_bytes(data) in found.read, "another image than was written"
            if isinstance(data, bytes):
                read_image(data)
    return "read"


def case(number: int) -> str:
    """Do one case; what came of it, or an exception that nobody meant."""
    draw = random.Random(number)
    (kind,) = draw.choices(KINDS, _WEIGHTS)
    if kind.startswith("image "):
        return read_image(damaged(images()[kind.removeprefix("image ")], draw))
    with tempfile.TemporaryDirectory(prefix="raycls-fuzz-") as folder:
        return read_source(kind, draw, Path(folder))


images = cache(_images)


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
        if said not in ("image", "read", "refused", "not opened"):
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
