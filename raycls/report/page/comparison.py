"""The page of several runs: whether the later ones differ from the first on the same images, and in what they do."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raycls.config.difference import difference
from raycls.report.axis import number
from raycls.report.compare import Compared, Paired, compare, pair
from raycls.report.evaluated import Samples
from raycls.report.page.charts import drawing
from raycls.report.page.render import render
from raycls.report.page.report import Pictures, Section, weights_text
from raycls.report.page.results import wrong_at
from raycls.report.page.running import clock, moment
from raycls.report.runs import Told
from raycls.report.series import RUN_STYLES, together

__all__ = ["Candidate", "Verdict", "comparison", "verdicts"]

_MOST_PICTURES, _MOST_CLASSES = 12, 10
_TITLES = {"top1": "accuracy", "f1_macro": "macro F1", "nll": "negative log-likelihood", "ece": "calibration error"}


@dataclass(frozen=True)
class Candidate:
    """One of the runs, with what it predicted."""

    told: Told
    label: str
    """Its name; its folder where several have that name."""
    summary: dict[str, Any]
    samples: Samples


@dataclass(frozen=True)
class Verdict:
    """A run against the first one."""

    name: str
    pair: Paired
    metrics: list[Compared]
    sentence: str

    @property
    def differs(self) -> bool:
        """Whether their accuracy differs."""
        return self.metrics[0].differs


def verdicts(runs: Sequence[Candidate]) -> list[Verdict]:
    """Each later run against the first. DataError where two have no image in common."""
    first, *others = runs
    found: list[Verdict] = []
    for other in others:
        paired = pair(first.samples, other.samples)
        metrics = compare(paired, len(others))
        sentence = _sentence(first.label, other.label, metrics[0], len(others))
        found.append(Verdict(other.label, paired, metrics, sentence))
    return found


def comparison(runs: Sequence[Candidate], found: Sequence[Verdict], pictures: Pictures) -> bytes:
    """The page, as UTF-8."""
    blocks = [_block(runs[0].label, verdict, pictures) for verdict in found]
    titles = " and ".join([", ".join(run.label for run in runs[:-1]), runs[-1].label])
    sections = [
        Section("differences", "Differences", "differences.html"),
        Section("curves", "Curves", "curves.html"),
        Section("runs", "Runs", "runs.html"),
        Section("configuration", "Configuration", "config_difference.html"),
    ]
    return render(
        "comparison.html",
        script="page.js",
        title=f"{titles} compared",
        made=f"made {moment(time.time())} from {', '.join(run.told.folder.store.describe() for run in runs)}",
        heading=f"{titles} compared",
        sections=sections,
        blocks=blocks,
        verdicts=found,
        drawings=[drawing(panel) for panel in together([(run.label, run.told.panels) for run in runs])],
        runs=[_run(run, index) for index, run in enumerate(runs)],
        options=_options(runs),
        several=len(runs) > 2,
        level="95 % interval" if len(runs) == 2 else f"95 % interval, over {len(found)} comparisons",
    )


def _sentence(first: str, other: str, accuracy: Compared, tests: int) -> str:
    before, after = f"{accuracy.first:.2%}", f"{accuracy.second:.2%}"
    interval = f"{100 * accuracy.low:+.2f} to {100 * accuracy.high:+.2f} points"
    test = f"McNemar p = {accuracy.p:.2g}" + (f", adjusted for {tests} comparisons" if tests > 1 else "")
    if accuracy.differs:
        found = f"{other} is {'more' if accuracy.difference > 0 else 'less'} accurate than {first}"
        return f"{found}: {after} against {before}, a difference of {interval} ({test})."
    found = f"no difference in accuracy between {first} and {other} was found"
    return f"{found}: {before} and {after}; {interval} are possible ({test})."


def _block(first: str, verdict: Verdict, pictures: Pictures) -> dict[str, Any]:
    one, other = verdict.pair.first, verdict.pair.second
    right = (one.right, other.right)
    won, lost = np.flatnonzero(~right[0] & right[1]), np.flatnonzero(right[0] & ~right[1])
    groups = [(f"Only {verdict.name} is right", one, won), (f"Only {first} is right", other, lost)]
    shown = [
        {"title": title, "count": len(rows), "wrong": [wrong_at(samples, row) for row in _sure(samples, rows)]}
        for title, samples, rows in groups
    ]
    images, why = pictures([(wrong.key, wrong.path) for group in shown for wrong in group["wrong"]])
    return {
        "name": verdict.name,
        "first": first,
        "verdict": verdict,
        "metrics": [_metric(each) for each in verdict.metrics],
        "both_right": int((right[0] & right[1]).sum()),
        "both_wrong": int((~right[0] & ~right[1]).sum()),
        "only_first": len(lost),
        "only_other": len(won),
        "groups": [group for group in shown if group["count"]],
        "pictures": images,
        "why_no_pictures": why,
        "classes": _class_rows(one, other),
        "notes": _notes(verdict.pair),
    }


def _sure(samples: Samples, rows: np.ndarray) -> list[int]:
    """The rows on which the run that is wrong is most confident."""
    return rows[np.argsort(-samples.confidence[rows], kind="stable")][:_MOST_PICTURES].tolist()


def _metric(each: Compared) -> dict[str, Any]:
    share = each.name != "nll"
    better = each.differs and (each.difference > 0) == (each.better == "max")
    return {
        "title": _TITLES[each.name],
        "first": f"{100 * each.first:.2f} %" if share else number(each.first),
        "second": f"{100 * each.second:.2f} %" if share else number(each.second),
        "difference": f"{100 * each.difference:+.2f} points" if share else f"{each.difference:+.4f}",
        "interval": f"{100 * each.low:+.2f} to {100 * each.high:+.2f}"
        if share
        else f"{each.low:+.4f} to {each.high:+.4f}",
        "verdict": "better" if better else "worse" if each.differs else "no difference found",
        "tone": "good" if better else "bad" if each.differs else "soft",
        "method": each.method,
    }


def _notes(paired: Paired) -> list[str]:
    notes = []
    if paired.left_out:
        only = f"{paired.left_out:,} that only one of them saw are left out"
        notes.append(f"The runs were not evaluated on the same images: {only}.")
    if paired.relabelled:
        notes.append(f"{paired.relabelled:,} images that the runs take for different classes are left out.")
    return notes


def _class_rows(one: Samples, other: Samples) -> list[dict[str, Any]]:
    """The classes whose recall changed by the most images, up or down."""
    size = len(one.classes)
    counts = np.bincount(one.label, minlength=size)
    hits = [np.bincount(one.label, each, minlength=size) for each in (one.right, other.right)]
    change = hits[1] - hits[0]
    order = np.argsort(-np.abs(change), kind="stable")[:_MOST_CLASSES]
    return [
        {
            "name": one.classes[index],
            "count": int(counts[index]),
            "first": float(hits[0][index] / counts[index]),
            "second": float(hits[1][index] / counts[index]),
            "change": int(change[index]),
        }
        for index in order.tolist()
        if change[index]
    ]


def _run(run: Candidate, index: int) -> dict[str, str]:
    result = run.told.result or {}
    seconds = result.get("seconds")
    return {
        "name": run.label,
        "style": f"run{index % RUN_STYLES}",
        "model": run.told.config.model.name,
        "trained": f"{result['epochs']:g} epochs, {result['step']:,} steps" if result else run.told.state,
        "took": clock(seconds) if isinstance(seconds, int | float) else "-",
        "weights": weights_text(run.summary),
        "split": str(run.summary.get("split", "all")),
        "count": f"{run.summary.get('count', 0):,}",
        "folder": run.told.folder.store.describe(),
    }


def _options(runs: Sequence[Candidate]) -> list[tuple[str, list[str]]]:
    """Options that are not the same in all runs, with the value in each."""
    first, *others = runs
    values: dict[str, list[str]] = {}
    for index, other in enumerate(others, start=1):
        for item in difference(first.told.config, other.told.config):
            row = values.setdefault(item.path, [item.old] * len(runs))
            row[index] = item.new
    return [(path, row) for path, row in values.items() if path not in ("run.name", "run.storage")]
