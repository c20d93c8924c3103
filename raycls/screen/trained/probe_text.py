"""The result of a probe for a reader."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from raycls.quantities import plural

__all__ = ["probe_lines"]

Record = Mapping[str, Any]


def probe_lines(facts: Record) -> list[str]:
    """What was probed, the grid of weight decays, the head and the nearest neighbours with their intervals."""
    splits = ", ".join(f"{name} {count:,}" for name, count in facts["splits"].items())
    kept = f" (kept from before: {', '.join(facts['cached'])})" if facts["cached"] else ""
    lines = [
        f"network    {facts['weights'] or 'as initialised'}, {facts['features']:,} features before {facts['layer']}",
        f"features   {splits}{kept}",
        *_grid_lines(facts),
    ]
    rate = facts["epochs_per_second"]
    speed = "" if rate is None else f", {rate:,.0f} epochs/s"
    lines.append(f"head       {plural(facts['epochs'], 'epoch')} in {facts['seconds']:.2f} s{speed}")
    count = len(facts["grid"])
    for name, found in facts["scores"].items():
        by = f", optimistic: the best of {count} by this value" if name == "val" and count > 1 else ""
        lines.append(f"{name:<10} top1 {_share(found['head'])}{by}")
        lines.append(f"{'':<10} top1 {_share(found['nearest'])} by the {facts['neighbours']} nearest training images")
    folder = facts["folder"]
    split = "test" if "test" in facts["scores"] else "val"
    next_ = [f"next       raycls eval {shlex.quote(folder)} --split {split}"] if facts["scores"] else []
    return [*lines, f"run folder {folder}", *next_]


def _grid_lines(facts: Record) -> list[str]:
    lines = [f"{'':<11}{'weight decay':>12}{'epochs':>8}{'train loss':>12}{'val loss':>12}{'val top1':>10}"]
    for one in facts["grid"]:
        val = [f"{one[name]:.4f}" if "val" in facts["scores"] else "-" for name in ("val_loss", "val_top1")]
        mark = "  chosen" if one["weight_decay"] == facts["weight_decay"] else ""
        mark += "" if one["converged"] else "  not converged: --epochs"
        lines.append(
            f"{'':<11}{one['weight_decay']:>12g}{one['epochs']:>8}{one['loss']:>12.4f}{val[0]:>12}{val[1]:>10}{mark}"
        )
    decays = sorted(one["weight_decay"] for one in facts["grid"])
    if len(decays) > 1 and facts["weight_decay"] in (decays[0], decays[-1]):
        lines.append(f"{'':<11}the chosen weight decay is at the end of the grid: try others with --weight-decay")
    return lines


def _share(found: Record) -> str:
    low, high = (f"{found['interval'][end]:.4f}" for end in ("low", "high"))
    return f"{found['top1']:.4f} ({found['hits']:,} of {found['count']:,}; 95 % {low} to {high})"
