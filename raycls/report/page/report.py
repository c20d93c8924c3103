"""The page of one run: what was trained, how well it does, where it is wrong, and how it ran. One HTML file."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from raycls.quantities import plural
from raycls.report.page.balance import balance
from raycls.report.page.charts import drawing
from raycls.report.page.render import render
from raycls.report.page.running import environment, moment, resumed, speed, start_rows
from raycls.report.runs import Told

__all__ = ["report"]


@dataclass(frozen=True)
class Section:
    id: str
    title: str
    template: str


def report(told: Told) -> bytes:
    """The page of a run, as UTF-8."""
    events = resumed(told)
    found = balance(told.folder, told.classes)
    sections = [
        Section("curves", "Curves", "curves.html"),
        *([Section("balance", "Class balance", "balance.html")] if found else []),
        Section("running", "Speed and restarts", "running.html"),
        Section("configuration", "Configuration", "configuration.html"),
        Section("environment", "Environment", "environment.html"),
    ]
    return render(
        "report.html",
        script="page.js",
        title=f"{told.name}: report of a run",
        made=f"made {moment(time.time())} from {told.folder.store.describe()}",
        told=told,
        summary=_summary(told),
        sections=sections,
        drawings=[drawing(panel, events) for panel in told.panels],
        balance=found,
        speed=speed(told.records, told),
        starts=start_rows(told.starts),
        differences=told.differences,
        config_text=told.text,
        environment=environment(told),
    )


def _summary(told: Told) -> str:
    """What was trained on what, in one line."""
    config: Any = told.config
    data = told.environment.get("data") or {}
    splits = ", ".join(f"{count:,} {name}" for name, count in (data.get("splits") or {}).items())
    source = " ".join(filter(None, (config.data.source.name, config.data.source.path)))
    result = told.result or {}
    trained = f"{plural(float(result['epochs']), 'epoch')}, {plural(result['step'], 'step')}" if result else ""
    parts = [config.model.name, f"{source} ({splits})" if splits else source]
    parts += [plural(len(told.classes), "class")] if told.classes else []
    return " · ".join([*parts, *([trained] if trained else [])])
