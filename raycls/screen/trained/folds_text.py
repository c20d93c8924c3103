"""What `raycls folds` prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from raycls.quantities import aligned, plural

__all__ = ["folds_lines"]

_LEFT = {"missing": "train", "stopped": "resume"}


def folds_lines(facts: Mapping[str, Any]) -> list[str]:
    """`facts` as `Folds.facts` has them: a row for each fold, one for each metric, and what is left to be done."""
    metric, folds = facts["metric"], facts["folds"]
    table = [("fold", "state", "run", "images", metric)]
    for fold in folds:
        value = fold["metrics"].get(metric)
        images = f"{fold['images']:,}" if fold["images"] else "-"
        table.append((str(fold["index"]), _state(fold), fold["run"] or "-", images, _number(value)))
    return [f"{metric} on the val split of each fold", *aligned(table, range(3, 5)), *_together(facts), *_left(folds)]


def _state(fold: Mapping[str, Any]) -> str:
    if fold["state"] in ("done", "missing") or not fold["steps"]:
        return fold["state"]
    return f"{fold['state']} at step {fold['step']:,} of {fold['steps']:,}"


def _together(facts: Mapping[str, Any]) -> Iterator[str]:
    if not facts["metrics"]:
        return
    table = [("metric", "mean", "std", "95 % interval")]
    for name, found in facts["metrics"].items():
        table.append((name, _number(found["mean"]), _number(found["std"]), _interval(found)))
    yield ""
    yield from aligned(table, range(1, 3))
    found = facts["metrics"].get(facts["metric"])
    if found is not None:
        interval = f", 95 % interval {_interval(found)}" if found["n"] > 1 else ""
        yield from ("", f"mean of {plural(found['n'], 'fold')}: {found['mean']:.4f}{interval}")


def _left(folds: list[Mapping[str, Any]]) -> Iterator[str]:
    done = sum(fold["state"] == "done" for fold in folds)
    if done < len(folds):
        yield ""
        yield f"{done} of {plural(len(folds), 'fold')} are done"
    for fold in folds:
        if fold["state"] == "running":
            yield f"fold {fold['index']} is trained by {fold['note']}"
        elif fold["command"]:
            yield f"{_LEFT[fold['state']]} fold {fold['index']}: {fold['command']}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _interval(found: Mapping[str, Any]) -> str:
    return "-" if found["low"] is None else f"{found['low']:.4f} to {found['high']:.4f}"
