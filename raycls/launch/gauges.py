"""What Ray shows of a run: gauges for Prometheus, and the page of its job. Needs a Ray that is connected."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any

from ray._private.worker import get_dashboard_url
from ray.util.metrics import Gauge

from raycls.run.history import points

__all__ = ["Gauges", "job_page"]

_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Set by Ray for the process that a submitted job starts."""


class Gauges:
    """The newest numbers of a run, as `raycls_train_loss{run="NAME"}`; Ray puts `ray_` before each name.

    A trial of a search has the tag `search` too.
    """

    def __init__(self, run: str, search: str = "") -> None:
        self._tags = {"run": run, "search": search}
        self._gauges: dict[str, Gauge] = {}

    def __call__(self, record: Mapping[str, Any]) -> None:
        """Take over the numbers of a record of the history."""
        values = points(record)
        if values:
            values |= {"step": float(record["step"]), "epoch": float(record["epoch"])}
        for name, value in values.items():
            if name not in self._gauges:
                made = Gauge(f"raycls_{re.sub(r'[^a-zA-Z0-9_]', '_', name)}", tag_keys=tuple(self._tags))
                self._gauges[name] = made.set_default_tags(self._tags) or made
            self._gauges[name].set(value)


def job_page() -> str:
    """The dashboard's page of the Ray job that this process was started by; empty where it is none."""
    try:
        job = json.loads(os.environ.get(_JOB, "{}"))["metadata"]["job_submission_id"]
    except (ValueError, KeyError, TypeError):
        return ""
    address = get_dashboard_url()
    return f"http://{address}/#/jobs/{job}" if address else ""
