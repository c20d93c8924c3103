"""Weights & Biases, through its own client: what `process` brings a run to."""

from __future__ import annotations

import os
import shlex
import tempfile
from typing import Any

from raycls.run.history import points

__all__ = ["Wandb"]

_START_SECONDS = 10.0
_EXIT_CODES = {"FINISHED": 0, "FAILED": 1, "KILLED": 255}
"""As W&B shows the end of a run: 255 is what its own client gives for Ctrl-C."""


class Wandb:
    """One run on Weights & Biases, with `step` as the axis of every chart.

    W&B's own steps only count the rows. Beside each group of numbers stands the step that it reached (`train/step`,
    `val/step`): a later start leaves out what the server has. Offline nothing is known to be there, so every start
    writes the whole run.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self._folder = settings["local"] or tempfile.mkdtemp(prefix="raycls-wandb-")
        for name in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR"):  # it would write to the home directory
            os.environ.setdefault(name, os.path.join(self._folder, "wandb", "cache"))
        import wandb

        self._wandb: Any = wandb
        self._settings = settings
        self._run: Any = None
        self._there: dict[str, float] = {}

    def open(self) -> dict[str, str]:
        settings, track = self._settings, self._settings["track"]
        self._run = self._wandb.init(
            project=track["project"],
            entity=track["entity"],
            mode=track["mode"],
            id=settings["id"],
            name=settings["name"],
            group=settings["group"] or None,
            notes=f"Ray job: {settings['dashboard']}" if settings["dashboard"] else None,
            resume="allow",
            dir=self._folder,
            config=settings["parameters"],
            settings=self._quiet(),
        )
        self._run.config.update(settings["parameters"], allow_val_change=True)
        summary = dict(self._run.summary)
        self._there = {name: value for name, value in summary.items() if name.endswith("/step")}
        self._run.define_metric("*", step_metric="step")
        remedy = f"wandb sync {shlex.quote(str(self._run.settings.sync_dir))} sends all of them"
        return {"url": self._run.url or str(self._run.settings.sync_dir), "remedy": remedy}

    def send(self, records: list[dict[str, Any]]) -> None:
        for record in records:
            values = points(record)
            if not values:
                continue
            mark = next(iter(values)).partition("/")[0] + "/step"
            if record["step"] > self._there.get(mark, -1):
                self._run.log({"step": record["step"], mark: record["step"], **values})

    def end(self, state: str, summary: dict[str, Any]) -> None:
        self._run.summary.update({"state": state, **summary})
        self._run.finish(exit_code=_EXIT_CODES[state])

    def _quiet(self) -> Any:
        """Nothing about the machine, its programs or its git, and no output of ours."""
        return self._wandb.Settings(
            console="off",
            disable_code=True,
            disable_git=True,
            disable_job_creation=True,
            init_timeout=_START_SECONDS,
            quiet=True,
            save_code=False,
            silent=True,
            x_disable_machine_info=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
        )
