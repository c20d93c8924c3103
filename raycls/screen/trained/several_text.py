"""The result of an evaluation of images with any number of classes: each class, groups, and thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raycls.quantities import first_names, plural

__all__ = ["several_lines"]

Record = Mapping[str, Any]

_CLASSES_SHOWN, _GROUPS_SHOWN = 30, 20
_HEADS = ("avg prec", "precision", "recall", "f1", "applied", "best f1 at", "images")


def several_lines(summary: Record) -> list[str]:
    """Each class, of many those of the lowest average precision; groups; and what thresholds give.

    `applied` is the threshold that precision, recall and F1 are of, `best f1 at` the one found on these images.
    """
    per_class: Record = summary["per_class"]
    chosen: Record = summary.get("threshold") or {}
    values, scores = chosen.get("values"), chosen.get("per_class", per_class)
    lines = [f"{'':<32}" + "".join(f"{name:>12}" for name in _HEADS)]
    shown = list(per_class)
    if len(shown) > _CLASSES_SHOWN:
        known = [name for name in shown if per_class[name]["support"]]
        shown = sorted(known, key=lambda name: per_class[name]["average_precision"])[:10]
    for name in shown:
        found = per_class[name]
        numbers = (found["average_precision"], *(scores[name][score] for score in ("precision", "recall", "f1")))
        texts = ["-" if value is None else f"{value:.4f}" for value in numbers]
        at = 0.5 if values is None else values[name]
        best = f"{found['best_threshold']:.4f}" if found["support"] else "-"
        lines.append(f"{name:<32}" + "".join(f"{text:>12}" for text in (*texts, f"{at:.4f}", best, found["support"])))
    if len(per_class) > len(shown):
        lines.append(f"{plural(len(per_class), 'class')}: --json has each of them; those of lowest avg prec are above")
    lines.append(f"best f1 at the threshold that gives a class its highest f1 on these images{_stored_text(summary)}")
    lines += _threshold_lines(chosen)
    lines += _unfitted_lines(per_class, chosen)
    return lines + [line for name, groups in summary.get("by", {}).items() for line in _group_lines(name, groups)]


def _stored_text(summary: Record) -> str:
    """Where `--thresholds stored` finds them: it reads the plain evaluation of the validation split alone."""
    file = summary.get("predictions")
    if not file or summary.get("split") != "val" or "data" in summary or "tta" in summary:
        return ""
    return f"; kept for --thresholds stored in {file.removesuffix('.parquet')}.json"


def _threshold_lines(chosen: Record) -> list[str]:
    if not chosen:
        return []
    on = chosen["fitted_on"]
    how = (
        "as given"
        if on is None
        else f"{chosen['rule']} of each class, fitted on {on['count']:,} images of {on['split']}"
    )
    numbers = ", ".join(f"{name} {chosen[name]:.4f}" for name in ("exact", "f1_macro", "f1_micro"))
    return [f"threshold  {how}: {numbers}; without it the metrics above, from a probability of 0.5"]


def _unfitted_lines(per_class: Record, chosen: Record) -> list[str]:
    """The classes whose threshold of 0.5 fits nothing: of those that were applied, else of those that were found."""
    names = chosen["unfitted"] if chosen else [name for name, each in per_class.items() if not each["support"]]
    if not names:
        return []
    return [f"no threshold can be fitted without an image, 0.5 is kept for: {first_names(names)}"]


def _group_lines(name: str, groups: Record) -> list[str]:
    """The values of a column; of many those with the lowest mean average precision."""
    heads = ("map", "f1 macro", "exact", "images")
    lines = [f"{f'by {name}':<32}" + "".join(f"{head:>12}" for head in heads)]
    shown = list(groups.items())
    if len(shown) > _GROUPS_SHOWN:
        shown = sorted(shown, key=lambda item: item[1]["map"])[:_GROUPS_SHOWN]
    for value, found in shown:
        numbers = "".join(f"{found[score]:>12.4f}" for score in ("map", "f1_macro", "exact"))
        lines.append(f"{value or '(empty)':<32}{numbers}{found['count']:>12}")
    if len(groups) > len(shown):
        lines.append(f"{len(groups):,} values of {name}: --json has each of them; those of lowest map are above")
    return lines
