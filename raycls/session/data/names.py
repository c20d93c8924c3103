"""Whether what a config names is there and takes its arguments, as far as no data is needed to know."""

from __future__ import annotations

from raycls.config.sections.run import Run
from raycls.data.images import operations
from raycls.tasks.build import check as check_task
from raycls.tasks.mix.build import build_mix

__all__ = ["check_names"]


def check_names(run: Run) -> None:
    """Look up the operations and the task of `run`, and bind their arguments. Raises ConfigError."""
    operations.build(run.augment.train, train=True, image_size=run.data.image_size)
    operations.build(run.augment.eval, train=False, image_size=run.data.image_size)
    build_mix(run.augment.batch, num_classes=2)
    check_task(run.task)
