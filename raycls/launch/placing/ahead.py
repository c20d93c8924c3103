"""Whether a process that trains makes its next slices in a thread of its own, during its steps: the executor `inline`.

The bytes are the same either way. A thread pays where a CPU would be idle otherwise; where the steps keep all of them
busy, it would only take their time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from raycls.config.names.builtin import SOURCES
from raycls.config.sections.run import Run
from raycls.session.setup import make_arrays
from raycls.train.plan import Plan

__all__ = ["made_apart", "reads_ahead"]

_ROUNDING = 1e-6


def reads_ahead(run: Run, executor: str, device: str, cpus: float, apart: Callable[[], bool]) -> tuple[bool, str]:
    """Whether slices are read ahead by a thread, and where `inline` does not, why.

    `cpus` are those of all nodes; `apart` says whether samples may be made while the steps draw, see `made_apart`.
    """
    if executor != "inline":
        return False, ""
    if device == "cpu" and cpus + _ROUNDING < max(1, run.scale.max_workers) * run.scale.threads + 1:
        return False, "not read ahead: the steps use every CPU"
    if not apart():
        return False, "not read ahead: samples are drawn from generators that the steps use"
    return True, ""


def made_apart(run: Run, classes: Sequence[str], plan: Plan) -> bool:
    """Whether a sample is made without the generators of the process; of a source of one's own nobody knows."""
    return run.data.source.name in SOURCES and make_arrays(run, classes, plan).task.separate
