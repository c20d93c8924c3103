"""Latency, throughput, size and accuracy of one network computed in several ways, in one run."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from raycls.data.making.sample import collate
from raycls.errors import ConfigError, ModelError
from raycls.export.bench.variants import Missing, Variant, compiled, eager, missing_extra, onnx_file
from raycls.export.pictures import Pictures, pictures
from raycls.export.timing import BATCHES, interleaved, threads_set
from raycls.progress import progress
from raycls.quantities import plural
from raycls.session.trained.trained import Network, Trained
from raycls.tasks.classification import Classification

__all__ = ["Wanted", "bench"]

_LEAST = {1: 100, 32: 20}
"""Calls of each way: with fewer than 100 the p99 is the longest one."""


@dataclass(frozen=True)
class Wanted:
    """What is measured."""

    threads: int = 1
    data: str | None = None
    """Other data for the accuracy; None: the split that was evaluated during the training."""
    images: int = 1000
    """Most images for the accuracy."""
    compiled: bool = True
    """Whether `torch.compile` is measured too: compiling takes up to a minute."""
    seconds: float = 10.0
    """For the latencies of each batch, of all ways together."""


def bench(trained: Trained, wanted: Wanted, *, say: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """Measure the network of `trained` on the CPU; plain JSON.

    `metric` is `top1`, or `map` where an image may have any number of classes. `rows`, one per way: `name`, `bytes`,
    `notes`, the metric by its name, and `batches` with `p50` and `p99` in seconds, `calls` and
    `images_per_second` (of the median) for each batch; `missing`: `name`, `why` and `fix` of the ways that this machine
    cannot go.
    ConfigError where the task is another than the built-in classification, DataError where there are no images.
    """
    network = Network(trained, torch.device("cpu"), precision="off")
    if not isinstance(network.task, Classification):
        raise ConfigError(
            "only networks of the built-in classification can be measured",
            where="task.name",
            found=trained.run.task.name,
            valid="classification, or a subclass of it",
        )
    progress("opening the data")
    seen = pictures(trained, split=None, data=wanted.data, most=wanted.images, say=say)
    first = _pixels(network, seen, range(1))
    with threads_set(wanted.threads), tempfile.TemporaryDirectory(prefix="raycls-bench-") as scratch:
        ways: list[Variant | Missing] = [eager(network)]
        if wanted.compiled:
            ways.append(compiled(network, BATCHES, first))
        ways += _exported(trained, wanted, Path(scratch))
        variants = [way for way in ways if isinstance(way, Variant)]
        times = {batch: _times(variants, np.repeat(first, batch, 0), wanted.seconds) for batch in BATCHES}
        scores = _scores(variants, network, seen)
    return {
        "run": trained.provenance,
        "device": "cpu",
        "threads": wanted.threads,
        "size": list(first.shape[2:]),
        "images": len(seen),
        "data": seen.told,
        "metric": network.task.reading.score,
        "rows": [
            {
                "name": way.name,
                "bytes": way.size,
                "notes": list(way.notes),
                network.task.reading.score: scores[way.name],
                "batches": {str(batch): _summary(times[batch][way.name], batch) for batch in BATCHES},
            }
            for way in variants
        ],
        "missing": [{"name": way.name, "why": way.why, "fix": way.fix} for way in ways if isinstance(way, Missing)],
    }


def _exported(trained: Trained, wanted: Wanted, scratch: Path) -> Iterator[Variant | Missing]:
    """The network through files as `raycls export --preprocess outside` writes them."""
    lacks = missing_extra()
    if lacks is not None:
        yield from (Missing(name, *lacks) for name in ("onnx fp32", "onnx int8"))
        return
    from raycls.export.export import Wanted as WantedFile
    from raycls.export.export import export

    kinds: tuple[Literal["fp32", "int8"], ...] = ("fp32", "int8")
    for precision in kinds:
        progress(f"exporting in {precision}")
        kind = WantedFile(precision=precision, inside=False, data=wanted.data, images=wanted.images)
        try:
            done = export(trained, scratch, precision, kind)
        except (ConfigError, ModelError) as error:
            yield Missing(f"onnx {precision}", f"{error.what}; {error.found}", error.fix)
            continue
        notes = [f"raycls export would reject it: {failure}" for failure in done.failures]
        if precision == "int8":
            facts = done.facts["int8"]
            floats = f", float: {', '.join(facts['float'])}" if facts["float"] else ""
            notes.insert(0, f"{facts['activations']}, weights of {facts['weight_bits']} bits{floats}")
        yield onnx_file(f"onnx {precision}", done.path, wanted.threads, notes)


def _times(variants: Sequence[Variant], pixels: np.ndarray, seconds: float) -> dict[str, list[float]]:
    calls = {way.name: _call(way, pixels) for way in variants}
    phase = f"measuring {plural(len(pixels), 'image')} at a time"
    return interleaved(calls, seconds=seconds, least=_LEAST[len(pixels)], phase=phase)


def _call(way: Variant, pixels: np.ndarray) -> Callable[[], object]:
    given = way.take(pixels)
    return lambda: way.call(given)


def _summary(seconds: Sequence[float], batch: int) -> dict[str, Any]:
    p50, p99 = (float(value) for value in np.percentile(seconds, (50, 99)))
    return {"p50": p50, "p99": p99, "calls": len(seconds), "images_per_second": batch / p50}


def _scores(variants: Sequence[Variant], network: Network, seen: Pictures) -> dict[str, float]:
    """How good each way is on the same pixels, as the task measures it."""
    said: dict[str, list[np.ndarray]] = {way.name: [] for way in variants}
    size = max(BATCHES)
    for start in range(0, len(seen), size):
        rows = range(start, min(start + size, len(seen)))
        progress("evaluating", start, len(seen), "images")
        pixels = _pixels(network, seen, rows)
        # Always whole batches: what was compiled for 32 images would be compiled anew for the rest.
        whole = np.concatenate([pixels, np.repeat(pixels[:1], size - len(pixels), 0)])
        for way in variants:
            said[way.name].append(way.scores(whole)[: len(pixels)])
    return {name: network.task.reading.scored(np.concatenate(each), seen.truth) for name, each in said.items()}


def _pixels(network: Network, seen: Pictures, rows: range) -> np.ndarray:
    """Normalised as the run evaluates, `[B, 3, h, w] float32`."""
    samples = [seen.sample(row) for row in rows]
    batch = network.task.batch(collate(samples, lambda row: seen.keys[rows[row]]), train=False)
    return batch.images.contiguous().numpy()
