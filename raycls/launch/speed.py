"""How fast a config trains on this machine, part by part and as a whole, and what bounds it: `raycls bench CONFIG`.

What is trained for it is a run of its own in a folder that is removed: no other run is touched.
"""

from __future__ import annotations

import io
import math
import secrets
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from raycls.cluster.environment import joined_address
from raycls.config import load as config
from raycls.config.sections.run import Run
from raycls.errors import TrainError
from raycls.launch.stopping import interrupted_by_sigterm
from raycls.launch.trainer import make_job, read_ahead, train
from raycls.progress import Progress, Steps, progress
from raycls.quantities import cores
from raycls.run.storage.store import Store
from raycls.screen.run import Display
from raycls.session.job import Job
from raycls.session.length.shortened import apart
from raycls.session.prepare import prepare
from raycls.session.setup import device_of, refuse_missing_gpu
from raycls.session.speed.measure import Measured, Rate, measured, part_of, rate
from raycls.session.speed.verdict import Costs, judged
from raycls.train.precision import native_bf16

__all__ = ["speed"]

_NAME = "bench"
_FEWEST_STEPS = 12
"""Of a run on Ray, beside those that were decoded before its first one."""
_LONGEST, _START = 3, 30
"""Times the seconds that the steps of a run on Ray were to take, and the seconds of its start, after which it ends."""


def speed(run: Run, seconds: float, *, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure `run` for about so many seconds, after its start; plain JSON.

    `rates`, images per second with `median`, `min`, `max` and the number `n` of turns, each None where it was not
    measured: `fetch`, `decode`, `augment` and `sample` of one process; `transfer` and `step` of one worker; `together`
    of the run; `dataloader` of one process with `dataloader_processes`. `data_wait` is that of `together`. `verdict`:
    `by`, `part`, `text`, and `changes`, each with what is `typed` and `why`; `note` limits it, where that is not empty.
    Raises what a training would.
    """
    with interrupted_by_sigterm(), _storage(run) as (storage, name):
        values = apart(run, storage, name)
        values["train"].update(duration=f"{2**31}st")
        tried = config.from_dict(values)
        here = run.scale.max_workers == 0
        if here:
            refuse_missing_gpu(tried)
        prepared = prepare(tried, new=False, command=("raycls", "bench"), say=say, record=b"")
        device = device_of(tried, torch.cuda.device_count())
        if device == "cuda":
            refuse_missing_gpu(tried)
        plan = part_of(tried, prepared.plan)
        job = read_ahead(make_job(tried, prepared.folder, plan, prepared.dataset, device), tried, cores())
        plan = type(plan).from_dict(job.plan)
        share = 1.0 if here else 0.75
        found = measured(tried, job, plan, seconds=share * seconds, here=here)
        whole = _here(found, job) if here else _on_ray(tried, values, _costs(found, 0.0), (1 - share) * seconds)
    return _facts(run, found, whole, device, plan.batch_size)


@dataclass
class _Whole:
    """The run as a whole."""

    executor: str
    why: str = ""
    ahead: bool = False
    device: str = ""
    """That of its workers, where they may have another one than this process."""
    rates: list[float] = field(default_factory=list[float])
    data_wait: list[float] = field(default_factory=list[float])


@contextmanager
def _storage(run: Run) -> Iterator[tuple[str, str]]:
    """Where the run of the measurement may write, and its name: all of it is gone afterwards."""
    if run.scale.max_workers and joined_address():
        name = f"{_NAME}-{secrets.token_hex(4)}"  # the nodes of a cluster share that storage, and no other
        try:
            yield run.run.storage, name
        finally:
            Store(run.run.storage).delete_tree(name)
        return
    with tempfile.TemporaryDirectory(prefix="raycls-bench-") as folder:
        yield folder, _NAME


def _costs(found: Measured, data_wait: float, gain: float = math.inf) -> Costs:
    def of_samples(name: str) -> float:
        return statistics.median(getattr(each, name) / each.images for each in found.made)

    return Costs(
        fetch=of_samples("fetch"),
        decode=of_samples("decode"),
        augment=of_samples("augment"),
        sample=of_samples("seconds"),
        move=statistics.median(turn.moved / turn.images for turn in found.steps),
        step=statistics.median(turn.computed / turn.images for turn in found.steps),
        data_wait=data_wait,
        gain=gain,
    )


def _here(found: Measured, job: Job) -> _Whole:
    whole = _Whole(job.executor, job.why, job.ahead)
    for turn in found.together:
        whole.rates.append(turn.images / turn.seconds)
        whole.data_wait.append(turn.waited / turn.seconds)
    return whole


def _on_ray(run: Run, values: dict[str, Any], costs: Costs, seconds: float) -> _Whole:
    """The run as its workers train it, for about so many seconds of steps."""
    workers = run.scale.max_workers
    expected = workers / (costs.step + costs.move + costs.sample)
    ahead = run.data.prefetch + 2
    steps = ahead + max(_FEWEST_STEPS, round(seconds * expected / run.data.batch_size))
    values["train"].update(duration=f"{steps}st", budget=f"{round(_START + _LONGEST * seconds)}s")
    display = _Heard()
    outcome = train(config.from_dict(values), display=display)
    if outcome.state == "stopped":
        raise KeyboardInterrupt
    records = display.records[ahead:]
    if not records:
        raise TrainError(
            "the run on Ray was too slow to be measured",
            where="--seconds",
            found=f"{len(display.records)} of {steps} steps in {_START + _LONGEST * seconds:.0f} seconds",
            fix="give it more time",
        )
    whole = _Whole(*(display.info[name] for name in ("executor", "executor_why", "ahead", "device")))
    whole.rates = [float(record["images_per_second"]) for record in records]
    whole.data_wait = [float(record["data_wait"]) for record in records]
    return whole


class _Heard(Display):
    """Keeps what a run says instead of showing it; only how far it is goes on to whoever listens."""

    def __init__(self) -> None:
        super().__init__(io.StringIO())
        self.info: dict[str, Any] = {}
        self.records: list[dict[str, Any]] = []

    def start(self, info: Any) -> None:
        self.info = dict(info)

    def event(self, text: str) -> None:
        progress(text)

    def resumed(self, step: int, text: str) -> None:
        progress(text)

    def trained(self, record: Any, *, evaluation_follows: bool = False) -> None:
        self.records.append(record)
        progress("measuring the run on Ray", len(self.records), None, "steps")

    def tell(self, now: Progress, *, waits: bool = False, ago: float = 0.0, steps: Steps | None = None) -> None:
        if not self.records:
            progress(now.phase, now.done, now.total, now.unit)

    def finish(self, outcome: Any, splits: Any = (), *, overfit: bool = False) -> None: ...


def _facts(run: Run, found: Measured, whole: _Whole, device: str, batch: int) -> dict[str, Any]:
    waited = statistics.median(whole.data_wait)
    plain = [_per(turn.images, turn.seconds) for turn in found.plain]
    gain = math.inf if run.scale.max_workers else statistics.median(plain) / statistics.median(whole.rates)
    verdict = judged(
        run,
        _costs(found, waited, gain),
        executor=whole.executor,
        ahead=whole.ahead,
        device=device,
        cpus=cores(),
        precision=found.precision,
        native_bf16=native_bf16(torch.device(device)),
    )
    rates: dict[str, Rate | None] = {
        "fetch": rate([_per(each.images, each.fetch) for each in found.made]),
        "decode": rate([_per(each.images, each.decode) for each in found.made]) if found.encoded else None,
        "augment": rate([_per(each.images, each.augment) for each in found.made]),
        "sample": rate([_per(each.images, each.seconds) for each in found.made]),
        "transfer": rate([_per(turn.images, turn.moved) for turn in found.steps]),
        "step": rate([_per(turn.images, turn.computed) for turn in found.steps]),
        "together": rate(whole.rates),
        "dataloader": rate(plain),
    }
    return {
        "name": run.run.name,
        "device": device,
        "cpus": cores(),
        "workers": run.scale.max_workers,
        "threads": run.scale.threads,
        "executor": whole.executor,
        "ahead": whole.ahead,
        "executor_why": whole.why,
        "batch_size": run.data.batch_size,
        "worker_batch_size": batch,
        "precision": found.precision,
        "rates": {name: None if found is None else asdict(found) for name, found in rates.items()},
        "data_wait": waited,
        "dataloader_processes": found.processes,
        "verdict": asdict(verdict),
        "note": ""
        if whole.device in ("", device)
        else f"the workers compute on {whole.device}, this machine on {device}: transfer, step and dataloader, and "
        "with them the numbers of the verdict, are those of this machine",
    }


def _per(images: int, seconds: float) -> float:
    return images / max(seconds, 1e-9)
