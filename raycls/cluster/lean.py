"""A private Ray without the processes that it has no use for.

`ray.init` always starts a monitor for an autoscaler, one that carries workers' output to the driver's terminal, and a
dashboard, which without its pages only reports usage statistics. Nothing here grows; workers' output stays in their
logs, as the driver asked for; and the statistics are off. Together they cost 1.5 CPU-seconds, and Ray waits for the
last of them before it goes on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from raycls.cluster.warm import launcher

__all__ = ["lean"]


@contextmanager
def lean() -> Iterator[None]:
    """`ray.init` starts no more than needed, for the length of the block; by the launcher where workers are lent."""
    from ray._private import node

    whole = node.Node

    class Node(whole):
        """Ray's own processes on this machine."""

        def __init__(self, ray_params: Any, *args: Any, **options: Any) -> None:
            ray_params.update(no_monitor=True, include_log_monitor=False)
            if launcher.SOCKET in os.environ:
                ray_params.update(worker_path=launcher.__file__)
            super().__init__(ray_params, *args, **options)

        def start_api_server(self, **options: Any) -> None:
            if options.get("include_dashboard") or os.environ.get("RAY_USAGE_STATS_ENABLED") != "0":
                super().start_api_server(**options)

    node.Node = Node
    try:
        yield
    finally:
        node.Node = whole
