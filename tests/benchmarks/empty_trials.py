"""Plain `ray.tune` with an empty function, the yardstick of `search.py overhead`: prints when its trials ended.

RAY_ADDRESS=... python tests/benchmarks/empty_trials.py --trials 30 --slots 2 --keep-processes
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import tempfile
import time
from typing import Any

import ray
from ray import tune


def empty(config: dict[str, Any]) -> None:
    """A trial that does nothing."""


class Clock(tune.Callback):
    """Notes the moments (Unix, seconds) at which trials start and end."""

    def __init__(self) -> None:
        self.starts: list[float] = []
        self.ends: list[float] = []

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.starts.append(time.time())

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.ends.append(time.time())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--keep-processes", action="store_true", help="reuse_actors=True; the default of Tune is False")
    options = parser.parse_args()
    ray.init(os.environ["RAY_ADDRESS"], logging_level=logging.ERROR, log_to_driver=False)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        tuner = tune.Tuner(
            tune.with_resources(empty, {"CPU": 1}),
            param_space={"lr": tune.loguniform(1e-3, 0.1)},
            tune_config=tune.TuneConfig(
                num_samples=options.trials,
                max_concurrent_trials=options.slots,
                reuse_actors=options.keep_processes,
            ),
            run_config=tune.RunConfig(storage_path=folder, verbose=0, callbacks=[clock]),
        )
        tuner.fit()
    print(json.dumps({"starts": clock.starts, "ends": clock.ends}))


if __name__ == "__main__":
    main()
