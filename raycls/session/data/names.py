"""Whether what a config names is there and takes its arguments, as far as no data is needed to know."""

from __future__ import annotations

from raycls.config.sections.run import Run
from raycls.tasks.build import check as check_task
from raycls.tasks.build import operations_of
from raycls.tasks.mix.build import build_mix

__all__ = ["check_names"]


def check_names(run: Run) -> None:
    """Look up the operations and the task of `run`, and bind their arguments. Raises ConfigError."""
    check_task(run.task)
    build = operations_of(run.task)
    build(run.augment.train, train=True, image_size=run.data.image_size)
    build(run.augment.eval, train=False, image_size=run.data.image_size)
    build_mix(run.augment.batch, num_classes=2)
