"""The table of `raycls prune`: a network before and after."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from raycls.config.write import word

__all__ = ["pruned_lines"]

_WIDTH = 22


def pruned_lines(facts: Mapping[str, Any], folder: str, config: str, name: str) -> list[str]:
    """`facts` as `prune.json` has them; the new run `name` is in `folder`, its config at the address `config`."""
    before, after = facts["before"], facts["after"]
    what = "channels of each layer" if facts["structured"] else "weights"
    lines = [
        f"{facts['ratio']:.0%} of the {what} pruned from {facts['from']['run']}, {facts['from']['weights']} weights",
        f"{'':<{_WIDTH}}{'before':>14}{'after':>14}{'ratio':>10}",
    ]
    lines.append(_row("FLOPs of one image", before["flops"], after["flops"], _count))
    lines.append(_row("parameters", before["parameters"], after["parameters"], _count))
    if not facts["structured"]:
        lines.append(_row("  not zero", before["nonzero"], after["nonzero"], _count))
    for batch in before["seconds"]:
        images = "1 image" if batch == "1" else f"{batch} images"
        lines.append(_row(f"latency, {images}", before["seconds"][batch], after["seconds"][batch], _time))
    for score, title in (("top1", "top-1"), ("map", "map")):
        if score in before:
            both = f"{before[score]:>14.4f}{after[score]:>14.4f}   {100 * (after[score] - before[score]):+.2f} points"
            lines.append(f"{title:<{_WIDTH}}{both}, before fine-tuning")
    threads = "1 thread" if facts["threads"] == 1 else f"{facts['threads']} threads"
    measured = f"{facts['data']}, {facts['images']:,} images" if facts["images"] else "no data to measure accuracy on"
    lines.append(f"accuracy: {measured}; latency: median, CPU, {threads}, in turns")
    if not facts["structured"]:
        lines.append("zeros save neither time nor FLOPs in the kernels of a CPU or GPU; --structured does")
    return [*lines, f"run folder {folder}", f"fine-tune: raycls train {word(config)} run.name={name}-finetuned"]


def _row(title: str, before: float, after: float, form: Callable[[float], str]) -> str:
    ratio = after / before if before else 1.0
    return f"{title:<{_WIDTH}}{form(before):>14}{form(after):>14}{ratio:>10.3f}"


def _count(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3f} {letter}"
    return f"{value:.0f}"


def _time(seconds: float) -> str:
    return f"{1e3 * seconds:.3f} ms"
