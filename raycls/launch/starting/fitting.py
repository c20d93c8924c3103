"""Ray's `TorchTrainer` with no process more than training needs.

By itself Ray Train starts five beside the workers of every run: a controller, which imports torch to do nothing with
it; an actor that splits datasets, where there are none; one that asks an autoscaler for the workers' CPUs; one that
removes the placement group of a dead controller; and the barrier of `ray.train.collective`. They start one after
another and take as long as the workers do. Here the controller runs in the thread that waits for it anyway, and of the
others those are left that have something to do.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray._common.formatters import JSONFormatter
from ray.train import torch as ray_torch
from ray.train.v2._internal.constants import ENABLE_CONTROLLER_STRUCTURED_LOGGING_ENV_VAR
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2._internal.execution.worker_group import WorkerGroup
from ray.train.v2._internal.logging.logging import SessionFileHandler

from raycls.cluster.environment import changed
from raycls.cluster.private import is_private

__all__ = ["Trainer"]

_WITHOUT = {"DatasetsCallback", "PlacementGroupCleanerCallback"}
"""The first splits datasets, and no run passes any. The second outlives the job, and waits for ever where there is no
dashboard; a placement group goes with its job anyway, and that of a trial within one is removed by the search."""


class AbandonedError(Exception):
    """The one who waited for the group has left."""


class Trainer(ray_torch.TorchTrainer):
    """Runs one group of a fixed size. `decodes`: whether Ray Data does so, which has to know what the workers take."""

    def __init__(self, *args: Any, decodes: bool, **options: Any) -> None:
        super().__init__(*args, **options)
        self._decodes = decodes
        self._abandoned = threading.Event()

    def abandon(self) -> None:
        """Have `fit` end as soon as it can, from another thread: Ray is about to be left."""
        self._abandoned.set()

    def fit(self) -> Any:
        """Run the group to its end. Blocks."""
        try:
            return super().fit()
        finally:
            gc.collect()  # handles that are freed while Ray is left, in whichever thread, would end this process

    def _create_default_callbacks(self) -> list[Any]:
        return [one for one in super()._create_default_callbacks() if type(one).__name__ not in _WITHOUT]

    def _initialize_and_run_controller(self, **options: Any) -> Any:
        """What `fit` calls: there the controller is an actor."""
        if is_private() and not self._decodes:
            options["scaling_policy"] = _Unasking(self.scaling_config)
        with _logged():
            with changed({ENABLE_CONTROLLER_STRUCTURED_LOGGING_ENV_VAR: "0"}):
                controller = _Controller(**options)
            controller.abandoned = self._abandoned
            asyncio.run(controller.run())
            return controller.get_result()


class _Unasking(FixedScalingPolicy):
    """Asks no autoscaler for the CPUs: there is none, and nobody else who would want to know of them."""

    def after_controller_start(self, train_run_context: Any) -> None:
        """Ask for nothing."""

    def _maybe_send_resource_request(self) -> None:
        """Ask for nothing."""


class _Group(WorkerGroup):
    def _init_train_context_on_workers(self, workers: Any, sync_actor: Any, train_context_args: Any) -> None:
        """As Ray does it, without a handle of the controller: its workers use one to list reported checkpoints."""
        ray.get(
            [
                worker.actor.init_train_context.remote(
                    train_run_context=self._train_run_context,
                    distributed_context=worker.distributed_context,
                    synchronization_actor=sync_actor,
                    storage_context=self._storage_context,
                    worker_callbacks=self._worker_callbacks_to_propagate,
                    controller_actor=None,
                    **{name: values[index] for name, values in train_context_args.items()},
                )
                for index, worker in enumerate(workers)
            ]
        )
        self._decorate_worker_log_file_paths(workers)

    @staticmethod
    def _get_worker_runtime_env(custom_runtime_env: Any) -> Any:
        """The workers of a private Ray have the driver's variables, and need no environment that is made for them."""
        return custom_runtime_env if is_private() else WorkerGroup._get_worker_runtime_env(custom_runtime_env)


class _Controller(TrainController):
    worker_group_cls = _Group
    abandoned: threading.Event

    async def _run_control_loop_iteration(self) -> None:
        if self.abandoned.is_set():
            raise AbandonedError
        await super()._run_control_loop_iteration()


@contextmanager
def _logged() -> Iterator[None]:
    """What the controller says goes to a file beside Ray's other logs, as that of an actor does."""
    logger, handler = logging.getLogger("ray.train"), SessionFileHandler(f"ray-train-controller-{os.getpid()}.log")
    handler.setFormatter(JSONFormatter())
    before = logger.level, logger.propagate
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
        logger.setLevel(before[0])
        logger.propagate = before[1]
