"""A model card in Markdown (Mitchell et al. 2019): what a run's files know, and what a person has to add."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from raycls.config.write import flow, render, word
from raycls.quantities import plural
from raycls.report.evaluated import Evaluated
from raycls.report.page.balance import balance
from raycls.report.page.report import about, weights_text
from raycls.report.page.results import class_rows, figures
from raycls.report.page.running import environment
from raycls.report.page.several import label_rows, threshold_words
from raycls.report.runs import Told

__all__ = ["card", "plain"]

_MOST_CLASSES = 30
"""Classes of the table; of more the lowest are shown."""
_SIGNS = re.compile(r"([\\`*_\[\]|~])")


def card(told: Told, evaluated: Evaluated | None) -> bytes:
    """The model card of a run, UTF-8. It opens with a block that model hubs read."""
    kind = "image-classification"
    head = {"library_name": "raycls", **({"pipeline_tag": kind, "tags": [kind]} if told.classes else {})}
    parts = [
        f"---\n{render(head)}---",
        f"# {plain(told.name)}",
        plain(about(told)),
        *_results(told, evaluated),
        "## Intended use",
        "*To be written by the publisher of this model: what it is for, and what it must not be used for.*",
        "## Training data",
        *_data(told),
        "## Preprocessing",
        _table(("step", "value"), [(name, flow(value)) for name, value in _preprocessing(told).items()]),
        "## Training",
        "What differs from the defaults of raycls:" if told.differences else "Every option has its default.",
        *([_table(("option", "value"), [(item.path, item.new) for item in told.differences])] * bool(told.differences)),
        "## Provenance",
        _table(("what", "value"), environment(told)),
        "## Use",
        f"```console\n$ raycls predict {word(told.folder.store.describe())} IMAGES --out predictions.parquet\n```",
    ]
    return ("\n\n".join(parts) + "\n").encode("utf-8", "backslashreplace")


def plain(text: str) -> str:
    """Text that Markdown, and HTML in it, show as it is: in one line, and no address in it is a link."""
    return _SIGNS.sub(r"\\\1", html.escape(" ".join(text.split()), quote=False)).replace("://", "&#58;//")


def _results(told: Told, evaluated: Evaluated | None) -> list[str]:
    if evaluated is None:
        return ["## Results", "Not evaluated."]
    summary = evaluated.summary
    of = f" of split {evaluated.split}" if evaluated.split != "all" else ""
    rows = [(each.title, each.text, each.interval, each.method) for each in figures(summary, len(told.classes))]
    level = (summary.get("intervals") or {}).get("level", 0.95)
    parts = [
        "## Results",
        plain(f"{plural(summary['count'], 'image')}{of}, weights {weights_text(summary)}. {evaluated.probabilities}"),
        _table(("metric", "value", f"{100 * level:g} % interval", "method"), rows),
    ]
    if "map_classes" in summary:
        return [*parts, *_label_table(summary)]
    if "confusion" not in summary:
        return parts
    classes = class_rows(summary, None)
    shown = classes[:_MOST_CLASSES]
    title = (
        "Every class" if len(shown) == len(classes) else f"The {len(shown)} of {len(classes):,} classes of lowest F1"
    )
    texts = [
        (row["name"], f"{100 * row['f1']:.1f} %", f"{100 * row['recall']:.1f} %", str(row["count"]), row["other"])
        for row in shown
    ]
    heads = ("class", "F1", "recall", "images", "most often taken for")
    return [*parts, f"### {title}", _table(heads, texts)]


def _label_table(summary: Mapping[str, Any]) -> list[str]:
    every = label_rows(summary, None)
    shown, few = every[:_MOST_CLASSES], f"The {_MOST_CLASSES} of {len(every):,} classes of lowest average precision"
    texts = [
        (row["name"], *(_share(row[key]) for key in ("average_precision", "f1", "best_threshold")), str(row["count"]))
        for row in shown
    ]
    title = "Every class" if len(shown) == len(every) else few
    best = "threshold of the highest F1 on these images"
    return [
        f"### {title}",
        _table(("class", "average precision", "F1 from 50 %", best, "images"), texts),
        *filter(None, [plain(threshold_words(summary))]),
    ]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _data(told: Told) -> list[str]:
    config: Any = told.config
    data: Mapping[str, Any] = told.environment.get("data") or {}
    source = " ".join(filter(None, (config.data.source.name, config.data.source.path)))
    splits = [(name, f"{count:,}") for name, count in (data.get("splits") or {}).items()]
    found = balance(told.folder, told.classes)
    return [
        plain(f"Source: {source}."),
        *([_table(("split", "images"), splits)] if splits else []),
        *([plain(f"Balance: {found.words}.")] if found else []),
    ]


def _preprocessing(told: Told) -> Mapping[str, Any]:
    return told.model.get("preprocessing") or {}


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *([plain(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
