"""What the workers of a private Ray share instead of importing it each: see `raycls.cluster.warm`."""

from __future__ import annotations

import importlib
import os
from contextlib import suppress

import numpy as np
import torch

from raycls.cluster.environment import joined_address
from raycls.cluster.warm.keep import can_fork, keep_warm
from raycls.session import evaluation, training

__all__ = ["warm_workers"]

_RAYS = (
    *("pandas", "pyarrow.fs", "pyarrow.parquet", "pyarrow.compute", "fsspec", "requests", "jsonschema", "uvloop"),
    *("google.protobuf.json_format", "pydantic.dataclasses", "psutil", "tqdm.auto", "unittest.mock", "logging.config"),
)
"""What Ray imports, and so this process does: else each worker would do so for itself. What a newer Ray no longer has
is left out."""
_SHARED = evaluation, training
"""What a worker runs, with all that it imports."""


def warm_workers() -> None:
    """Have a process ready that workers are forked from, where the place is one for it, and Ray is to be private.

    To be called before Ray is imported or anything is computed here: threads of either cannot be forked.
    """
    if joined_address() or not can_fork():
        return
    for name in _RAYS:
        with suppress(ImportError):
            importlib.import_module(name)
    keep_warm(_ready)


def _ready() -> None:
    """Make a fork what a process of its own would be: the threads that Ray gives it, and numbers of its own."""
    with suppress(KeyError, ValueError):
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    np.random.seed()  # that which plug-ins may use; ours are all keyed
