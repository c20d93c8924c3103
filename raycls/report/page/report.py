"""The page of one run: what was trained, how well it does, where it is wrong, and how it ran. One HTML file."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raycls.quantities import plural
from raycls.report.evaluated import Evaluated, Samples
from raycls.report.page.balance import Balance, balance
from raycls.report.page.charts import drawing
from raycls.report.page.confusion import confusion
from raycls.report.page.left_out import left_out
from raycls.report.page.render import render
from raycls.report.page.results import class_rows, figures, reliability, worst
from raycls.report.page.running import environment, moment, resumed, speed, start_rows
from raycls.report.page.several import label_rows, read_doubts, threshold_words
from raycls.report.runs import Told

__all__ = ["MOST_PICTURES", "Pictures", "Section", "report"]

MOST_PICTURES = 24
"""Errors of each kind with a picture: three rows on a wide page, and well below a megabyte."""

Pictures = Callable[[Sequence[tuple[str, str]]], tuple[Mapping[str, Any], str]]
"""Samples `(key, path)` -> ({key: a picture with `uri`, `width`, `height` and `small`}, why some are missing)."""


@dataclass(frozen=True)
class Section:
    """A part of a page. Its template is a file of its own."""

    id: str
    title: str
    template: str


def report(
    told: Told, evaluated: Evaluated | None, samples: Samples | None, pictures: Pictures, *, why_none: str = ""
) -> bytes:
    """The page of a run, as UTF-8. `why_none` says why there is no evaluation, and what to do."""
    summary: Mapping[str, Any] = evaluated.summary if evaluated else {}
    found = balance(told.folder, told.classes)
    values: dict[str, Any] = {"why_none": why_none, "evaluated": evaluated, "figures": [], "bins": []}
    sections = [Section("results", "Results", "results.html")]
    if evaluated:
        values |= _results(evaluated, len(told.classes))
    if "confusion" in summary:
        sections += [Section("confusion", "Confusion", "confusion.html"), Section("classes", "Classes", "classes.html")]
        values |= _classes(summary, found)
    if "map_classes" in summary:
        sections.append(Section("classes", "Classes", "labels.html"))
        rows, trained = label_rows(summary, found), found is not None and "train" in found.splits
        values |= {"rows": rows, "has_trained": trained, "threshold_words": threshold_words(summary)}
    doubts = read_doubts(told.folder, evaluated, MOST_PICTURES) if evaluated and "map_classes" in summary else None
    if doubts is not None:
        sections.append(Section("errors", "Errors", "doubts.html"))
        shown, why = pictures([(each.key, each.path) for part in doubts for each in part]) if any(doubts) else ({}, "")
        values |= {"said": doubts[0], "missed": doubts[1], "pictures": shown, "why_no_pictures": why}
    if samples is not None:
        sections.append(Section("errors", "Errors", "errors.html"))
        values |= _errors(samples, pictures)
    sections.append(Section("curves", "Curves", "curves.html"))
    sections += [Section("balance", "Class balance", "balance.html")] if found else []
    sections += [
        Section("files", "Files left out", "files.html"),
        Section("running", "Speed and restarts", "running.html"),
        Section("configuration", "Configuration", "configuration.html"),
        Section("environment", "Environment", "environment.html"),
    ]
    events = resumed(told)
    return render(
        "report.html",
        script="page.js",
        title=f"{told.name}: report of a run",
        made=f"made {moment(time.time())} from {told.folder.store.describe()}",
        told=told,
        about=about(told),
        sections=sections,
        drawings=[drawing(panel, events) for panel in told.panels],
        balance=found,
        left_out=left_out(told, summary),
        speed=speed(told.records, told),
        starts=start_rows(told.starts),
        differences=told.differences,
        config_text=told.text,
        environment=environment(told),
        **values,
    )


def about(told: Told) -> str:
    """What was trained on what, in one line."""
    config: Any = told.config
    data = told.environment.get("data") or {}
    splits = ", ".join(f"{count:,} {name}" for name, count in (data.get("splits") or {}).items())
    source = " ".join(filter(None, (config.data.source.name, config.data.source.path)))
    result = told.result or {}
    parts = [config.model.name, f"{source} ({splits})" if splits else source]
    parts += [plural(len(told.classes), "class")] if told.classes else []
    parts += [f"{plural(float(result['epochs']), 'epoch')}, {plural(result['step'], 'step')}"] if result else []
    return " · ".join(parts)


def weights_text(summary: Mapping[str, Any]) -> str:
    """Which weights were evaluated: `best, step 25`."""
    weights = summary.get("weights") or {}
    name, step = weights.get("name", "not known"), weights.get("step")
    return name if step is None or str(name).startswith("step-") else f"{name}, step {step}"


def _results(evaluated: Evaluated, classes: int) -> dict[str, Any]:
    level = (evaluated.summary.get("intervals") or {}).get("level", 0.95)
    return {
        "weights": weights_text(evaluated.summary),
        "level": f"{100 * level:g} %",
        "figures": figures(evaluated.summary, classes),
        "bins": reliability(evaluated.summary),
    }


def _classes(summary: Mapping[str, Any], found: Balance | None) -> dict[str, Any]:
    rows = class_rows(summary, found)
    return {
        "confusion": confusion(np.array(summary["confusion"], np.int64), list(summary["support"])),
        "rows": rows,
        "has_trained": found is not None and "train" in found.splits,
        "has_auroc": any(row["auroc"] is not None for row in rows),
    }


def _errors(samples: Samples, pictures: Pictures) -> dict[str, Any]:
    sure, lossy = worst(samples, MOST_PICTURES)
    shown, why = pictures([(wrong.key, wrong.path) for wrong in (*sure, *lossy)]) if sure else ({}, "")
    return {"sure": sure, "lossy": lossy, "pictures": shown, "why_no_pictures": why}
