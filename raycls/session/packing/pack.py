"""Packs the data set of a config: which shards there are, who makes them, and when the folder is complete."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np
import pyarrow as pa

from raycls.config.paths import expand
from raycls.config.sections.run import Run
from raycls.data.images.planes import RGB, planes_of
from raycls.data.source import Dataset, check_source, cut, open_pool
from raycls.data.sources.packed.layout import COLUMNS, INDEX, KIND, MANIFEST, VERSION, Rows
from raycls.errors import ConfigError, DataError
from raycls.plugins import no_exit
from raycls.progress import progress
from raycls.quantities import cores, plural
from raycls.run import strict_json
from raycls.run.folder import RunFolder
from raycls.session.computing.parted import JOB, Join, check_job, held
from raycls.session.packing.facts import Facts, facts_of
from raycls.session.packing.work import Work, put
from raycls.session.predictions.inputs import Inputs

__all__ = ["Packed", "Request", "pack"]

_SHARD_BYTES, _MOST_ROWS = 128 << 20, 4096
"""How large a shard is to be about, and how many images it has at most: what a kill loses, for each process."""
_TRIED = 32
"""Images that are made before, to know how large a stored one is."""
_FEW = 256
"""Up to so many images no processes are started."""
_SHARD = re.compile(r"shard-\d{5,}\.(arrow|parquet)")


@dataclass(frozen=True)
class Request:
    """What was asked for."""

    out: str
    form: str = "arrow"
    """`arrow` or `parquet`."""
    size: int | None = 256
    """The shorter side that larger images are resized to; None: none is resized."""
    quality: int = 90
    """Of the JPEG files; 0 for raw pixels."""
    by: tuple[str, ...] = ()
    """Columns of the data that are kept."""
    force: bool = False
    workers: bool = False
    """Whether a cluster makes the shards."""
    processes: int | None = None
    """How many make them here; None: one for each core."""


@dataclass(frozen=True)
class Packed:
    """What came of it."""

    folder: str
    manifest: Mapping[str, Any]
    seconds: float
    made: int
    """Shards that were made now; the others were there already."""


@no_exit()
def pack(run: Run, asked: Request, *, join: Join, say: Callable[[str], None]) -> Packed:
    """Write the data set of `run.data` to `asked.out`: every sample of every split, in order.

    A command that was killed is resumed by the same command: finished shards are kept. The manifest is written last, so
    the folder is complete or not there for those who read it. DataError names an image that cannot be decoded,
    ConfigError the folder of other data or options.
    """
    began = time.monotonic()
    _refuse_planes(run, asked)
    folder = _folder(asked.out)
    check_source(run.data)
    progress("opening the data")
    pool = open_pool(run.data, about=asked.by)
    dataset = cut(pool, run.data)
    for note in dataset.notes:
        say(note)
    work = _work(run, asked, dataset)
    facts = _facts(run, asked, dataset, work)
    _make_folder(folder)
    store = RunFolder(os.path.abspath(folder))
    with held(store, "pack", what="another command is packing into this folder"):
        try:
            made = _packed(run, asked, dataset, work, facts, folder, store, join, say)
            manifest = store.read_json(MANIFEST)
        finally:
            store.store.delete("lock")  # while it is held: one who waits for it then takes a new one
    return Packed(folder, manifest, time.monotonic() - began, made)


def _refuse_planes(run: Run, asked: Request) -> None:
    planes = planes_of(run.data)
    if planes != RGB and (asked.size is not None or not asked.quality):
        raise ConfigError(
            "images are resized, and stored as pixels, in 8-bit RGB alone",
            where="data.channels, data.bit_depth",
            found=f"{planes.channels}, {planes.bits}",
            valid="3, 8; others are decoded from files that are packed as they are",
            fix="keep the bytes of the files: --size=none --quality=90",
        )


def _packed(
    run: Run,
    asked: Request,
    dataset: Dataset,
    work: Work,
    facts: Mapping[str, Any],
    folder: str,
    store: RunFolder,
    join: Join,
    say: Callable[[str], None],
) -> int:
    """Make what is missing, and write the manifest where anything was. How many shards were made."""
    if asked.force:
        _clear(folder)
    before = store.read_json(MANIFEST) or {}
    there = set(_names(folder))
    job = before.get("job") or store.read_json(JOB)
    if job is None and (there or before):
        raise ConfigError(
            "this folder holds shards that no job is known of",
            where=folder,
            found=", ".join(sorted(there)[:3]) or MANIFEST,
            fix="choose another --out, or start anew with --force",
        )
    check_job(store, facts, job, what="this folder holds other packed data, or a part of it")
    sizes = {shard["name"]: shard["bytes"] for shard in before.get("shards", ())}
    there = {name for name in there if sizes.get(name) in (None, os.path.getsize(os.path.join(folder, name)))}
    missing = [number for number in range(work.shards) if work.name(number) not in there]
    if not missing and before and os.path.isfile(os.path.join(folder, INDEX)):
        return 0
    if before:  # from now on it is not complete
        store.write_json(JOB, facts)
        store.store.delete(MANIFEST)
    if missing and len(missing) < work.shards:
        say(f"resuming: {work.shards - len(missing)} of {plural(work.shards, 'shard')} are there already")
    _make(run, asked, replace(work, folder=folder), missing, join, say)
    _finish(dataset, work, facts, folder)
    store.store.delete(JOB)
    return len(missing)


def _make(run: Run, asked: Request, work: Work, missing: Sequence[int], join: Join, say: Callable[[str], None]) -> None:
    rows = {number: len(work.part(number)[1]) for number in missing}
    total = sum(map(len, work.splits))
    done = total - sum(rows.values())
    with ExitStack() as stack:
        if asked.workers and missing:
            cluster = stack.enter_context(join(run, say))
            computed = ((done[0], done[1]) for done in cluster.parts(replace(work, folder=""), missing))
        else:
            computed = _here(work, missing, asked.processes, lambda images: _tell(done + images, total))
        _tell(done, total)
        for number, data in computed:
            if data:
                put(os.path.join(work.folder, work.name(number)), data)
            done += rows[number]
            _tell(done, total)


def _here(
    work: Work, numbers: Sequence[int], processes: int | None, told: Callable[[int], None]
) -> Iterator[tuple[int, bytes]]:
    """Shards made on this machine."""
    processes = min(cores() if processes is None else processes, len(numbers))
    if processes > 1 and sum(len(work.part(number)[1]) for number in numbers) > _FEW:
        from raycls.session.computing.processes import in_processes

        yield from in_processes(work, numbers, processes)
        return
    for number in numbers:
        yield number, work.made(number, told)


def _tell(done: int, total: int) -> None:
    progress("packing", done, total, "images")


def _folder(out: str) -> str:
    if "://" in out and not out.startswith("file://"):
        raise ConfigError(
            "data is packed into a folder of this machine",
            where="--out",
            found=out,
            valid="a folder, on a disk or mounted",
            fix="pack into a local folder, and copy it",
        )
    return os.path.abspath(expand(out.removeprefix("file://"), where="--out"))


def _make_folder(folder: str) -> None:
    try:
        os.makedirs(folder, exist_ok=True)
        others = [name for name in os.listdir(folder) if not _is_ours(name)]
    except OSError as error:
        raise ConfigError(
            "the folder of the packed data cannot be made", where=f"--out {folder}", found=error.strerror or str(error)
        ) from error
    if others:
        raise ConfigError(
            "the folder of the packed data holds other files",
            where=folder,
            found=", ".join(sorted(others)[:5]),
            valid="a folder that is new, empty, or written by raycls pack",
            fix="choose another --out",
        )


def _is_ours(name: str) -> bool:
    return name in (MANIFEST, INDEX, JOB, "lock") or name.endswith(".tmp") or _SHARD.fullmatch(name) is not None


def _names(folder: str) -> list[str]:
    """The finished shards; what a killed process left of another one is deleted."""
    found: list[str] = []
    for name in os.listdir(folder):
        if name.endswith(".tmp"):
            os.unlink(os.path.join(folder, name))
        elif _SHARD.fullmatch(name):
            found.append(name)
    return found


def _clear(folder: str) -> None:
    for name in (MANIFEST, INDEX, JOB, *_names(folder)):
        path = os.path.join(folder, name)
        if os.path.exists(path):
            os.unlink(path)


def _work(run: Run, asked: Request, dataset: Dataset) -> Work:
    taken = [name for name in asked.by if name in COLUMNS]
    if taken:
        raise ConfigError(
            "a column has the name of one that packed data has itself",
            where=f"--by {taken[0]}",
            valid=f"other names than {', '.join(COLUMNS)}",
            fix="give the column another name",
        )
    splits = tuple(dataset.splits.values())
    if any(split.parts for split in splits):
        raise DataError(
            "the samples have parts beside their images, which cannot be packed",
            where=f"data.source.name: {run.data.source.name}",
            found=", ".join(splits[0].parts),
            valid="images with one class each, any number of them, or none",
        )
    kind = "several" if splits[0].sets is not None else "one" if any(split.labels.any() for split in splits) else "none"
    rows = Rows(asked.form, not asked.quality, kind, dataset.classes, asked.by)
    work = Work(splits, rows, asked.size, asked.quality, 1, os.getcwd())
    return replace(work, per_shard=_per_shard(work))


def _per_shard(work: Work) -> int:
    """How many images make a shard, by the size of some of them."""
    progress("looking at some images")
    bounds = np.cumsum([0, *map(len, work.splits)])
    chosen = np.unique(np.linspace(0, bounds[-1] - 1, _TRIED).astype(int)).tolist()
    sizes: list[int] = []
    for index in chosen:
        which = int(np.searchsorted(bounds, index, side="right")) - 1
        value = work.value(work.splits[which], index - int(bounds[which]))
        sizes.append(value.nbytes if isinstance(value, np.ndarray) else len(value))
    return max(1, min(_MOST_ROWS, _SHARD_BYTES * len(sizes) // sum(sizes)))


def _facts(run: Run, asked: Request, dataset: Dataset, work: Work) -> dict[str, Any]:
    """What decides the bytes of the shards, as plain JSON."""
    return {
        "to": asked.form,
        "size": asked.size or "none",
        "quality": asked.quality or "raw",
        "by": list(asked.by),
        "images": sum(map(len, work.splits)),
        "fingerprint": dataset.fingerprint,
        "files": {split.name: Inputs(split.keys, split.reader).fingerprint() for split in work.splits},
        "per_shard": work.per_shard,
        "formats": list(run.data.formats),
        "max_pixels": run.data.max_pixels,
        "versions": {name: version(name) for name in ("pillow", "pyarrow")},
    }


def _finish(dataset: Dataset, work: Work, facts: Mapping[str, Any], folder: str) -> None:
    """Read the shards back, and write the index and the manifest."""
    names = [work.name(number) for number in range(work.shards)]
    found = facts_of([os.path.join(folder, name) for name in names], raw=work.rows.raw)
    index = _index(work, found)
    path = os.path.join(folder, INDEX)
    put(path, index)
    parts = [work.part(number) for number in range(work.shards)]
    shards = [
        {"name": name, "split": split.name, "rows": len(rows), "bytes": each.bytes, "sha256": each.sha256}
        for name, (split, rows), each in zip(names, parts, found, strict=True)
    ]
    before = _before(work)
    manifest = {
        "kind": KIND,
        "version": VERSION,
        "to": work.rows.form,
        "size": facts["size"],
        "quality": facts["quality"],
        "labels": work.rows.labels,
        "classes": list(dataset.classes),
        "splits": {split.name: len(split) for split in work.splits},
        "about": list(work.rows.about),
        "fingerprint": dataset.fingerprint,
        "bytes_before": before,
        "bytes_after": sum(shard["bytes"] for shard in shards) + index.size,
        "index": {"bytes": index.size, "sha256": _sha256(index)},
        "shards": shards,
        "job": dict(facts),
    }
    put(os.path.join(folder, MANIFEST), (strict_json.dumps(manifest, indent=1) + "\n").encode())


def _sha256(data: Any) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


def _before(work: Work) -> dict[str, int] | None:
    """Bytes of the samples before, by split; None where the source does not know them."""
    found: dict[str, int] = {}
    for split in work.splits:
        ask: Any = getattr(split.reader, "sizes", None)
        sizes = None if ask is None else ask()
        if sizes is None or (np.asarray(sizes) < 0).any():
            return None
        found[split.name] = int(np.sum(sizes))
    return found


def _index(work: Work, found: Sequence[Facts]) -> pa.Buffer:
    columns: dict[str, Any] = {
        "key": pa.concat_arrays([_keys(split.keys) for split in work.splits]),
        "size": pa.array(np.concatenate([each.sizes for each in found])),
        "crc32": pa.array(np.concatenate([each.crc32 for each in found])),
    }
    if work.rows.labels == "one":
        columns["label"] = pa.array(np.concatenate([split.labels for split in work.splits]))
    if work.rows.labels == "several":
        columns["label"] = pa.array([label for split in work.splits for label in _sets(split)], pa.list_(pa.int64()))
    for name in work.rows.about:
        columns[name] = pa.array([value for split in work.splits for value in split.about[name]], pa.string())
    batch = pa.record_batch(list(columns.values()), names=list(columns))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue()


def _sets(split: Any) -> Iterator[list[int]]:
    return (np.flatnonzero(split.sets[label]).tolist() for label in split.labels.tolist())


def _keys(keys: Any) -> pa.Array:
    blob, offsets = keys.digest_parts()
    return pa.Array.from_buffers(pa.large_binary(), len(keys), [None, pa.py_buffer(offsets), pa.py_buffer(blob)])
