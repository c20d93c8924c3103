"""`data.cache: memory`: images are decoded once in each process, and their pixels kept.

What is kept is what is decoded, before any augmentation: the same bytes as without, whoever decodes. Each process that
decodes keeps its own, as far as its share of the memory goes, which was free when the run started; what does not fit is
decoded again each time. Images that are arrays in memory already are not kept twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from raycls.config.write import override
from raycls.data.images.decoding import turbo
from raycls.data.images.decoding.decode import decoded
from raycls.errors import ConfigError, RayclsError
from raycls.quantities import bytes_text, plural

if TYPE_CHECKING:
    from raycls.data.source import Split

__all__ = ["Kept", "free_memory", "kept", "share_of", "size_in_memory"]

_MEASURED = 32
"""Images whose sizes stand for all of a split."""
_SHARE = 0.8
"""Of the free memory; the rest is for what else a run allocates while it goes on."""
_MEMORY = Path("/proc/meminfo")
_GROUP = Path("/sys/fs/cgroup")


class Kept:
    """The reader of a split: gives pixels instead of files, up to `most` bytes of them from memory."""

    def __init__(self, split: Split, most: int) -> None:
        self._split, self._most = split, most
        self._pixels: dict[int, np.ndarray] = {}
        self.size = 0
        """Bytes that are kept now."""

    def read(self, index: int) -> np.ndarray:
        """As `Split.planes` has it, not to be written to; DataError where the image cannot be decoded."""
        found = self._pixels.get(index)
        return self._made(index) if found is None else found

    def _made(self, index: int) -> np.ndarray:
        split = self._split
        data = split.reader.read(index)
        if not isinstance(data, bytes):
            return data
        options: dict[str, Any] = {"formats": split.formats, "max_pixels": split.max_pixels, "planes": split.planes}
        pixels = np.asarray(decoded(data, split.locate(index), **options))
        pixels.flags.writeable = False
        if self.size + pixels.nbytes <= self._most:
            self.size += pixels.nbytes
            self._pixels[index] = pixels
        return pixels

    def fetch(self, rows: np.ndarray) -> Callable[[], None]:
        """As `Objects.fetch`, of what is not kept."""
        fetch = getattr(self._split.reader, "fetch", None)
        left = np.array([row for row in rows.tolist() if row not in self._pixels], np.int64)
        return (lambda: None) if fetch is None else fetch(left)

    def __getattr__(self, name: str) -> Any:
        """What else the reader of the split has, such as `locate`."""
        return getattr(self._split.reader, name)

    def __reduce__(self) -> tuple[Any, ...]:
        return Kept, (self._split, self._most)  # a reader travels without pixels


def kept(split: Split, most: int) -> Split:
    """`split` with its pixels kept in each process that reads them, up to `most` bytes there."""
    return replace(split, reader=Kept(split, most))


def size_in_memory(split: Split) -> int:
    """Bytes of all decoded images of `split`, from the headers of a few of them; 0 where they are arrays already."""
    count = len(split)
    sizes = list[int]()
    for index in sorted({place * count // _MEASURED for place in range(min(count, _MEASURED))}):
        with suppress(RayclsError):  # a damaged image is told of when it is trained
            data = split.reader.read(index)
            if not isinstance(data, bytes):
                return 0
            found = turbo.size(data, split.max_pixels)
            height, width = found or np.asarray(split.pixels(index)).shape[:2]
            sizes.append(split.planes.bytes * height * width)
    return round(sum(sizes) / len(sizes) * count) if sizes else 0


def share_of(splits: Mapping[str, Split], processes: int) -> tuple[int, int]:
    """The bytes of all decoded images, and what each of so many processes of this machine may keep of them.

    ConfigError where they do not all fit.
    """
    needed, free = sum(map(size_in_memory, splits.values())), free_memory()
    if free is None:
        return needed, needed
    if needed * processes > _SHARE * free:
        images = plural(sum(map(len, splits.values())), "image")
        each = f" in each of {plural(processes, 'process')} that decode" if processes > 1 else ""
        smaller = "; or train from smaller images, raycls pack CONFIG --size 256 makes them"
        raise ConfigError(
            "the decoded images do not fit into memory",
            where="data.cache",
            found=f"memory: {images} take about {bytes_text(needed)}{each}, {bytes_text(free)} are free",
            valid=f"at most {bytes_text(_SHARE * free)} together",
            fix=f"{override('data.cache', 'off')}{smaller}",
        )
    return needed, int(_SHARE * free / processes)


def free_memory() -> int | None:
    """Bytes that this process and its children can still allocate, in its container too; None where nobody says."""
    lines = dict(line.split(":", 1) for line in _lines(_MEMORY) if ":" in line)
    found = [1024 * int(lines["MemAvailable"].split()[0])] if "MemAvailable" in lines else []
    limit, used = (" ".join(_lines(_GROUP / f"memory.{name}")) for name in ("max", "current"))
    if limit.isdigit() and used.isdigit():
        files = dict(line.split(" ", 1) for line in _lines(_GROUP / "memory.stat"))
        found.append(int(limit) - int(used) + int(files.get("inactive_file", 0)))
    return max(0, min(found)) if found else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
