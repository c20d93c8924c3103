"""`result.json` of a run whose weights were made from those of another one, and not by a training of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raycls.run.folder import RunFolder
from raycls.train.plan import Plan

__all__ = ["write_result"]


def write_result(folder: RunFolder, plan: Plan, *, asked: str, weights: Mapping[str, Any], seconds: float) -> None:
    """Write it as that of a run which is done; so it comes last.

    `asked` is `evaluate.keep` of the run, `weights` the `name`, `step` and `reason` of what `model/` holds, and
    `seconds` what making them took.
    """
    folder.write_json(
        RunFolder.RESULT,
        {
            "state": "done",
            "reason": "done",
            "step": plan.total_steps,
            "epochs": plan.epochs(plan.total_steps),
            "best": None,
            "final": None,
            "kept": {"asked": asked, **weights},
            "seconds": seconds,
        },
    )
