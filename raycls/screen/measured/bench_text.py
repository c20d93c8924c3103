"""The table of `raycls bench model`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["bench_lines"]


def bench_lines(facts: Mapping[str, Any], written: list[str]) -> list[str]:
    """`facts` as `bench/model.json` has them, and where files were `written`."""
    rows, metric = facts["rows"], facts.get("metric", "top1")
    score = "top-1" if metric == "top1" else metric
    batches = list(rows[0]["batches"])
    above = "".join(f"{_images(batch):>32}" for batch in batches)
    heads = "".join(f"{'p50 ms':>10}{'p99 ms':>10}{'images/s':>12}" for _ in batches)
    lines = [f"{'':<11}{above}", f"{'':<11}{heads}{'speed-up':>10}{score:>9}{'MB':>8}"]
    first = rows[0]["batches"][batches[-1]]["p50"]
    for row in rows:
        numbers = "".join(
            f"{1e3 * found['p50']:>10.3f}{1e3 * found['p99']:>10.3f}{found['images_per_second']:>12.1f}"
            for found in row["batches"].values()
        )
        gain = first / row["batches"][batches[-1]]["p50"]
        lines.append(f"{row['name']:<11}{numbers}{gain:>9.2f}x{row[metric]:>9.4f}{row['bytes'] / 1e6:>8.2f}")
    threads = "1 thread" if facts["threads"] == 1 else f"{facts['threads']} threads"
    height, width = facts["size"]
    lines.append(
        f"CPU, {threads}, {width}x{height} pixels, taken in turns; speed-up: {_images(batches[-1])}, against eager; "
        f"{score}: {facts['data']}, {facts['images']:,} images; eager is in float32, whatever train.amp says"
    )
    lines += [f"{row['name']}: {note}" for row in rows for note in row["notes"]]
    for missing in facts["missing"]:
        fix = f"; fix: {missing['fix']}" if missing["fix"] else ""
        lines.append(f"{missing['name']} left out: {missing['why']}{fix}")
    return [*lines, *(f"wrote {path}" for path in written)]


def _images(batch: str) -> str:
    return "1 image" if batch == "1" else f"{batch} images"
