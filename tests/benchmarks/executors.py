"""The executors `inline`, `processes` and `ray` against a plain decode loop, in images per CPU-second.

The plain loop (`plain`) calls the same `decoded` and the same augmentation in a bare `for` and stacks the images.
CPU-seconds are those of every process that takes part: for `ray` the whole private Ray (raylet, GCS, actors, data
workers) and this driver, which receives the slices. Each variant's first slices are left out, so start-up does not
count. `plain on N cores` runs N plain loops at the same time: what decoding costs when no core is idle, which is how
the executors with several processes run (cores that share a cache, or one physical core, slow each other down).
An image counts where and when it is made, not when it arrives, so nothing that was decoded ahead is a gift.

    python tests/benchmarks/executors.py --data FOLDER --slice 64 128
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measure
import numpy as np
import pictures
import torch

from raycls.config.sections.data import DataConfig
from raycls.data.images import operations
from raycls.data.images.decoding.decode import decoded
from raycls.data.order import Order
from raycls.data.slices import Maker, Timeline
from raycls.data.source import Files, Keys, Split
from raycls.data.stream import Stream, open_stream

FORMATS = ("jpeg",)
MOST_PIXELS = 50_000_000


@dataclass(frozen=True)
class Setting:
    """What is decoded: `slices` slices of `rows` images, of which the first `skip` are not measured."""

    split: Split
    rows: int
    slices: int
    skip: int
    size: int
    tally: Path

    @property
    def order(self) -> Order:
        return Order(0, len(self.split), self.rows, 1)

    def steps(self) -> int:
        return self.slices + self.skip

    def transform(self) -> Any:
        return measure.Tallied(operations.build(("random_resized_crop",), train=True, image_size=self.size), self.tally)

    def made(self) -> int:
        return os.path.getsize(self.tally)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    options = _options(argv)
    torch.set_num_threads(1)
    result = {**measure.begin("executors"), "slices": {}}
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        count = 16 if options.quick else 300
        folder = options.data or pictures.write_photographs(Path(scratch) / "photographs", count)
        split, weight = _split(folder)
        result["data"] = {"files": len(split), "mean_bytes": weight}
        measure.say(f"{len(split)} JPEGs of {weight / 1000:.0f} KB on average, cropped and resized to {options.size}")
        if "ray" in options.executors:
            from raycls.cluster.connection import running_cluster

            stack.enter_context(running_cluster())
        for rows in options.slice:
            setting = Setting(split, rows, options.slices, options.skip, options.size, Path(scratch) / f"made-{rows}")
            setting.tally.touch()
            result["slices"][rows] = _compare(setting, options.executors, options.rounds)
    return measure.finish(result, options.json)


def _options(argv: Sequence[str] | None) -> Any:
    parser = measure.arguments(__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="folder with JPEGs (default: 300 are made, 500x375, 93 KB)")
    parser.add_argument("--slice", type=int, nargs="+", default=[64, 128], help="images of a slice")
    parser.add_argument("--slices", type=int, default=40, help="measured slices of one variant in one round")
    parser.add_argument("--skip", type=int, default=6, help="slices before the measured ones")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=224, help="pixels, height and width")
    parser.add_argument("--executors", nargs="+", default=["inline", "processes", "ray"])
    options = parser.parse_args(argv)
    if options.quick:
        options.slice, options.slices, options.skip, options.rounds, options.size = [4], 2, 1, 1, 32
        options.executors = [name for name in options.executors if name != "ray"]
    return options


def _compare(setting: Setting, executors: Sequence[str], rounds: int) -> dict[str, Any]:
    cores = len(os.sched_getaffinity(0))
    every = f"plain on {cores} cores"
    variants: dict[str, Callable[[Setting], dict[str, Any]]] = {"plain": _plain}
    if "processes" in executors or "ray" in executors:
        variants[every] = lambda setting: _plain_everywhere(setting, cores)
    for name in executors:
        variants[name] = lambda setting, name=name: _executor(setting, name)
    if "ray" in executors:  # its workers import torch once; that is start-up
        _executor(setting, "ray")
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in variants}
    for turn in range(rounds):
        for name in list(variants)[:: 1 if turn % 2 == 0 else -1]:
            found[name].append(variants[name](setting))
    rates = {name: [run["images"] / run["cpu_seconds"] for run in runs] for name, runs in found.items()}
    result: dict[str, Any] = {}
    for name, runs in found.items():
        against = {
            base: measure.ratios(list(zip(rates[name], rates[base], strict=True)))
            for base in ("plain", every)
            if base in rates
        }
        walls = [run["images"] / run["seconds"] for run in runs]
        result[name] = {
            "images_per_cpu_second": round(statistics.median(rates[name]), 1),
            "images_per_second": round(statistics.median(walls), 1),
            "images_per_cpu_second_against": against,
            "cpu_seconds_by_process": _shares(runs),
            "runs": runs,
        }
        compared = "; ".join(f"{measure.spread(one)} of {base}" for base, one in against.items() if base != name)
        measure.say(
            f"slices of {setting.rows:4}  {name:16} {statistics.median(rates[name]):6.1f} images per CPU-second, "
            f"{statistics.median(walls):4.0f} images/s; {compared}"
        )
    return result


def _shares(runs: list[dict[str, Any]]) -> dict[str, float]:
    """CPU-milliseconds per image, by process."""
    images = sum(run["images"] for run in runs)
    names = sorted({name for run in runs for name in run["by_process"]})
    sums = {name: sum(run["by_process"].get(name, 0.0) for run in runs) for name in names}
    return {name: round(1000 * value / images, 3) for name, value in sums.items() if value}


def _plain(setting: Setting) -> dict[str, Any]:
    transform, order, files = setting.transform(), setting.order, setting.split.reader
    began, cpu = 0.0, 0.0
    for step in range(setting.steps()):
        if step == setting.skip:
            began, cpu = time.perf_counter(), measure.this_thread()
        pixels = []
        for index in order.batch(step).tolist():
            name = files.locate(index)
            with open(name, "rb", buffering=0) as file:
                image = decoded(file.readall(), name, formats=FORMATS, max_pixels=MOST_PIXELS)
            pixels.append(transform(image, (order.seed, order.epoch(step), index)))
        np.stack(pixels)
    used = measure.this_thread() - cpu
    images = setting.slices * setting.rows
    return _figures(images, time.perf_counter() - began, used, {"this thread": used})


def _plain_everywhere(setting: Setting, cores: int) -> dict[str, Any]:
    """The plain loop in one process for each core, all at the same time."""
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        pools = [stack.enter_context(ProcessPoolExecutor(1, context)) for _ in range(cores)]
        for pool in pools:
            pool.submit(_ready).result()
        runs = [one.result() for one in [pool.submit(_plain, setting) for pool in pools]]
    images, used = (sum(run[name] for run in runs) for name in ("images", "cpu_seconds"))
    return _figures(images, max(run["seconds"] for run in runs), used, {"plain loops": used})


def _ready() -> None:
    """Nothing: whoever answers has imported everything."""


def _executor(setting: Setting, name: str) -> dict[str, Any]:
    order = setting.order
    timeline = Timeline(order, 1, 0, setting.steps(), 0, 0, 1)
    maker = Maker(order, 1, setting.split, None, 1, measure.Labelled(setting.transform()))
    others = None if name == "ray" else measure.usage()  # a Ray that idles beside the other executors is not theirs
    stream = open_stream(DataConfig(), name, timeline, maker, 0)
    try:
        for step in range(setting.skip):
            _take(stream, step)
        thread = measure.this_thread()
        made, began, before = setting.made(), time.perf_counter(), measure.usage(without=others)
        for step in range(setting.skip, setting.steps()):
            _take(stream, step)
        after, seconds, made = measure.usage(without=others), time.perf_counter() - began, setting.made() - made
        used = after.since(before)
        if name == "inline":
            used = {"this thread": measure.this_thread() - thread}
    finally:
        stream.close()
    return _figures(made, seconds, sum(used.values()), used)


def _take(stream: Stream, step: int) -> None:
    error = stream.next("train", step).error
    if error is not None:
        raise error


def _figures(images: int, seconds: float, cpu_seconds: float, by_process: dict[str, float]) -> dict[str, Any]:
    return {
        "images": images,
        "seconds": round(seconds, 4),
        "cpu_seconds": max(0.01, round(cpu_seconds, 4)),  # of other processes the kernel counts hundredths
        "by_process": {name: round(value, 4) for name, value in by_process.items()},
    }


def _split(folder: Path) -> tuple[Split, float]:
    """Every JPEG below `folder` as one split, and their mean size in bytes."""
    names = sorted(_jpegs(folder))
    if not names:
        raise SystemExit(f"there is no JPEG in {folder}")
    weight = sum((folder / name).stat().st_size for name in names) / len(names)
    keys = Keys(names)
    labels = np.zeros(len(names), np.int64)
    reader = Files(str(folder.resolve()), keys)
    return Split("train", ("a", "b"), labels, keys, reader, FORMATS, MOST_PIXELS), round(weight)


def _jpegs(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        if path.suffix.lower() in (".jpg", ".jpeg"):
            yield str(path.relative_to(folder))


if __name__ == "__main__":
    main()
