"""The result of an evaluation for a reader: a screen of it, with 2 and with 1,000 classes; `--json` has all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raycls.quantities import first_names, plural
from raycls.screen.trained.several_text import several_lines

__all__ = ["summary_lines"]

Record = Mapping[str, Any]

_CLASSES_SHOWN, _GROUPS_SHOWN = 30, 20
_TOP5 = 5
_SCORES = ("precision", "recall", "f1")
_METHODS = {"wilson": "Wilson", "jackknife": "jackknife", "bootstrap": "bootstrap"}


def summary_lines(summary: Record) -> list[str]:
    """The numbers of an evaluation with their intervals, and what classification knows of averages and classes.

    `split` beside them is the one that was evaluated, `all` where that was other data as a whole.
    """
    split = summary.get("split", "all")
    lines = [
        f"{'' if split == 'all' else f'split {split}, '}{summary['count']} images",
        *_weights_lines(summary.get("weights")),
    ]
    if bad := summary.get("bad_images"):
        names = first_names(bad["first"], bad["count"])
        lines.append(f"{'bad images':<10} {bad['count']:,} skipped and not counted: {names}")
    if summary.get("trained_on"):
        trained = f"{summary['trained_on']:,} of these {summary['count']:,} images"
        lines.append(f"{'trained on':<10} {trained}: the numbers are too good for these")
    if "tta" in summary:
        lines.append(f"{'views':<10} {', '.join(summary['tta']['views'])}: the mean of their probabilities")
    numbers = {name: value for name, value in summary.items() if type(value) is float}
    if "support" in summary and len(summary["support"]) <= _TOP5:
        numbers.pop("top5", None)  # every class is among the first five
    ends = summary.get("intervals", {})
    for name, value in numbers.items():
        lines.append(f"{name:<10} {value:.{6 if name == 'loss' else 4}f}{_interval_text(ends.get(name))}")
    lines += _score_lines(summary, ends)
    if "map_classes" in summary:
        lines += several_lines(summary)
    else:
        lines += _class_lines(summary) if "macro_classes" in summary else []
        lines += [line for name, groups in summary.get("by", {}).items() for line in _group_lines(name, groups)]
        lines += _threshold_lines(summary.get("threshold"))
    if "crf" in summary:
        crf = summary["crf"]
        none = (
            "" if crf["crf"]["smoothness"] or crf["crf"]["appearance"] else "; none was better than the network alone"
        )
        where = f"fitted on {crf['count']:,} of {crf['split']}{none}; kept in model/crf.json"
        lines.append(f"{'crf':<10} dice {summary['dice']:.4f} with and {crf['without']:.4f} without it; {where}")
    if "per_class" in summary:
        lines += _mask_lines(summary["per_class"])
    if summary.get("predictions"):
        lines.append(f"predictions {summary['predictions']} in the run folder")
    return lines


def _mask_lines(classes: Mapping[str, Record]) -> list[str]:
    """What is known of the masks of each class; nothing stands where no sample has it."""
    names = [
        name for name in ("dice", "iou", "hausdorff95", "surface_distance") if name in next(iter(classes.values()))
    ]
    shown = list(classes.items())[:_CLASSES_SHOWN]
    lines = [
        f"  {label}: " + "  ".join(f"{name} {found[name]:.4f}" for name in names if found[name] is not None)
        for label, found in shown
    ]
    rest = len(classes) - len(shown)
    return [*lines, *([f"  and {plural(rest, 'other class')}"] if rest else [])]


def _score_lines(summary: Record, ends: Record) -> list[str]:
    """Ranking and calibration, with a line that says what an interval is."""
    if "not_finite" in summary:
        return [f"{plural(summary['not_finite'], 'image')} have answers that are not finite: no probabilities"]
    if "calibration" not in summary:
        return []
    lines = [
        _valued(label, summary[name]["macro"], ends.get(f"{name}_macro"))
        for label, name in (("auroc", "auroc"), ("avg prec", "average_precision"))
    ]
    found = summary["calibration"]
    lines += [_valued(name, found[name], ends.get(name)) for name in ("ece", "brier")]
    raw, fit = found.get("raw"), found.get("fit")
    if raw is not None:
        was = ", ".join(f"{name} {raw[name]:.4f}" for name in ("nll", "ece", "brier"))
        lines.append(f"{'calibrated':<10} by temperature {found['temperature']:.4f}; without it {was}")
    if fit is not None:
        change = ", ".join(f"{name} {fit['before'][name]:.4f} -> {fit['after'][name]:.4f}" for name in ("nll", "ece"))
        lines.append(f"{'fitted':<10} on {fit['count']:,} images of {fit['split']}: {change}; kept in {fit['file']}")
    drawn = f"bootstrap: {ends['resamples']:,} resamples, seed {ends['seed']}"
    return [*lines, f"{'intervals':<10} {ends['level']:.0%}; {drawn}; auroc and avg prec are macro averages"]


def _valued(label: str, value: float | None, ends: Record | None) -> str:
    shown = "-" if value is None else f"{value:.4f}"
    return f"{label:<10} {shown}{_interval_text(ends)}"


def _interval_text(ends: Record | None) -> str:
    if ends is None:
        return ""
    method = ends["method"].partition("-")[0]
    return f"   {ends['low']:.4f} to {ends['high']:.4f}  {_METHODS.get(method, method)}"


def _class_lines(summary: Record) -> list[str]:
    """The averages, and each class where there are few."""
    lines = [f"{'':<32}" + "".join(f"{name:>12}" for name in (*_SCORES, "images"))]
    classes = list(summary["f1"]["per_class"])
    averaged = f"macro ({summary['macro_classes']:,} of {plural(len(classes), 'class')})"
    rows = [(averaged, "macro", summary["count"]), ("weighted", "weighted", summary["count"])]
    ends = summary.get("intervals", {})
    for label, key, count in rows:
        lines.append(_scores_text(label, [summary[name][key] for name in _SCORES], count))
        if f"f1_{key}" in ends:
            between = [ends[f"{name}_{key}"] for name in _SCORES]
            texts = [f"{each['low']:.3f}-{each['high']:.3f}" for each in between]
            lines.append(f"{'  95 %, jackknife':<32}" + "".join(f"{text:>12}" for text in texts))
    if len(classes) <= _CLASSES_SHOWN:
        for label, count in summary["support"].items():
            lines.append(_scores_text(label, [summary[name]["per_class"][label] for name in _SCORES], count))
    else:
        lines += _worst_lines(summary)
    return lines


def _worst_lines(summary: Record) -> list[str]:
    """Of many classes those with the lowest F1 that have images."""
    known = [label for label, count in summary["support"].items() if count]
    worst = sorted(known, key=lambda label: summary["f1"]["per_class"][label])[:10]
    every = f"{len(summary['support'])} classes: --json has each of them, and the confusion matrix"
    lines = [f"{every}; those of lowest f1:"]
    for label in worst:
        count = summary["support"][label]
        lines.append(_scores_text(label, [summary[name]["per_class"][label] for name in _SCORES], count))
    return lines


def _group_lines(name: str, groups: Record) -> list[str]:
    """The values of a column; of many those with the lowest top1."""
    lines = [f"{f'by {name}':<32}{'top1':>12}{'95 %, Wilson':>18}{'f1 macro':>12}{'auroc':>12}{'images':>12}"]
    shown = list(groups.items())
    if len(shown) > _GROUPS_SHOWN:
        shown = sorted(shown, key=lambda item: item[1]["top1"])[:_GROUPS_SHOWN]
    for value, found in shown:
        ends = found["top1_interval"]
        between = f"{ends['low']:.4f}-{ends['high']:.4f}"
        area = "-" if found["auroc_macro"] is None else f"{found['auroc_macro']:.4f}"
        numbers = f"{found['top1']:>12.4f}{between:>18}{found['f1_macro']:>12.4f}{area:>12}{found['count']:>12}"
        lines.append(f"{value or '(empty)':<32}{numbers}")
    if len(groups) > len(shown):
        lines.append(f"{len(groups):,} values of {name}: --json has each of them; those of lowest top1 are above")
    return lines


def _threshold_lines(found: Record | None) -> list[str]:
    if found is None:
        return []
    on = found["fitted_on"]
    fitted = "as given" if on is None else f"{found['rule']}, fitted on {on['count']:,} images of {on['split']}"
    lines = [f"threshold  {found['value']:.6g} for {found['positive']}: {fitted}"]
    lines += [
        f"  {_valued(name, found[name], found['intervals'].get(name))}"
        for name in ("accuracy", "precision", "recall", "specificity", "f1")
    ]
    counts = ", ".join(
        f"{found[name]} {name.replace('_', ' ')}"
        for name in ("true_positive", "false_positive", "false_negative", "true_negative")
    )
    return [*lines, f"  {counts}"]


def _weights_lines(weights: Record | None) -> list[str]:
    if not weights or weights.get("step") is None:
        return []
    name, step = weights["name"], weights["step"]
    return [f"weights    {name if name.startswith('step-') else f'{name}, step {step}'}"]


def _scores_text(label: str, values: Sequence[float], count: int) -> str:
    return f"{label:<32}" + "".join(f"{value:>12.4f}" for value in values) + f"{count:>12}"
