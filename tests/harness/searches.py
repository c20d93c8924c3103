"""What a search left in its folder, read as a user's script would."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.runs import Site

SEARCH = """
extends: small.yaml
data: {executor: inline}
train: {micro_batches: 2, duration: 9ep, ledger: "off"}
evaluate: {every: 1ep}
scale: {workers: 1}
search:
  space:
    optim.lr: loguniform(1e-4, 0.3)
    model.args.width: [4, 8]
  trials: 8
  scheduler: {name: asha, grace: 1ep, reduction: 3}
"""


@dataclass(frozen=True)
class Found:
    """A search folder."""

    folder: Path

    @classmethod
    def of(cls, site: Site, name: str) -> Found:
        return cls(site.run(name))

    @property
    def rows(self) -> list[dict[str, str]]:
        """The rows of `trials.csv`."""
        with (self.folder / "trials.csv").open() as file:
            return list(csv.DictReader(file))

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The whole lines of `trials.jsonl`, none before there is one."""
        file = self.folder / "trials.jsonl"
        return (
            [json.loads(text) for text in file.read_text().splitlines() if text.endswith("}")] if file.exists() else []
        )

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["kind"] == kind]

    @property
    def decisions(self) -> list[tuple[Any, ...]]:
        """Results with their rungs and cutoffs, and stops, in their order: what a repeated search must repeat."""
        kept = {
            "result": ("trial", "step", "values", "rung", "cutoff"),
            "stop": ("trial", "step"),
            "end": ("trial", "state"),
        }
        return [
            (line["kind"], *(repr(line[name]) for name in kept[line["kind"]]))
            for line in self.lines
            if line["kind"] in kept
        ]

    def attempts(self, trial: str) -> list[dict[str, Any]]:
        file = self.folder / "trials" / trial / "attempts.jsonl"
        return [json.loads(text) for text in file.read_text().splitlines()]
