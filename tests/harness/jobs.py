"""Runs of a session without Ray: in this process or on gloo ranks, over small images made here."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch.distributed as dist

from harness.ranks import run_ranks
from raycls.config.load import load_text, to_yaml
from raycls.config.sections.run import Run
from raycls.data import order
from raycls.run.folder import RunFolder
from raycls.run.history import read
from raycls.session import evaluation, training
from raycls.session.job import Job, World
from raycls.session.messages import Message, Trained
from raycls.session.prepare import prepare, reduction_of
from raycls.train import loop
from raycls.train.ranks import Ranks
from raycls.train.reasons import Reason

_CLOCKS = ("attempt", "time", "elapsed", "images_per_second", "data_wait")
"""What differs between two runs that are the same."""


def write_arrays(path: Path, train: int, val: int = 40, size: int = 12, classes: int = 4, seed: int = 0) -> Path:
    """An `.npz` of random images whose class shifts their brightness: learnable, and every row differs."""
    random = np.random.RandomState(seed)
    arrays: dict[str, np.ndarray] = {}
    for split, count in (("train", train), ("val", val)):
        labels = np.arange(count) % classes
        images = random.randint(0, 128, (count, size, size, 3)) + (labels * 96 // classes)[:, None, None, None]
        arrays[f"{split}_images"] = images.astype(np.uint8)
        arrays[f"{split}_labels"] = labels.astype(np.int64)
    np.savez(path, **arrays)
    return path


def make_job(folder: Path, data: Path, *overrides: str, executor: str = "inline", world: int = 0) -> Job:
    """A job on `data` in the run folder `folder`, with a config of `overrides` on a small network."""
    base = [
        f"run.storage={folder.parent}",
        f"run.name={folder.name}",
        "data.source.name=arrays",
        f"data.source.path={data}",
        "data.image_size=12",
        "augment.train=[{random_crop: {size: 12, padding: 2}}, horizontal_flip]",
        "augment.eval=[]",
        "optim.lr=0.05",
        "train.amp=off",
        "evaluate.keep=last",  # what is compared is the end of the run
        f"scale.workers={world}",
        f"data.executor={executor}",
    ]
    if not any(override.startswith("model.name=") for override in overrides):
        base += ["model.name=tiny_cnn", "model.args={width: 8}"]
    text = to_yaml(load_text("", "job.yaml", [*base, *overrides]).run)
    return job_of(load_text(text, "job.yaml").run)


def job_of(run: Run) -> Job:
    """The job that trains a config."""
    prepared = prepare(run, new=False, command=["test"], say=lambda text: None)
    plan = replace(prepared.plan, reduction=prepared.plan.reduction or reduction_of(run, "cpu"))
    return Job(
        config=run.model_dump(mode="json"),
        folder=prepared.folder.uri,
        plan=plan.to_dict(),
        dataset=prepared.dataset,
        device="cpu",
        executor=run.data.executor,
        workdir=str(Path.cwd()),
        nonce=hashlib.sha256(prepared.folder.store.read_bytes("env.json")).hexdigest(),
    )


def train(job: Job, world: int = 0) -> dict[str, Any]:
    """Train on `world` ranks, or here where it is 0; rank 0's result."""
    if world == 0:
        return training.train(job, World())
    return run_ranks(world, train_rank, job)[0]


def train_rank(rank: int, world: int, job: Job, die_at: int = -1) -> dict[str, Any]:
    """One rank of `train`. With `die_at` the process ends by SIGKILL once that step is logged."""

    def post(message: Message) -> None:
        if isinstance(message, Trained) and message.record["step"] >= die_at >= 0:
            os.kill(os.getpid(), 9)

    return training.train(
        job, World(rank=rank, size=world, share=share if world > 1 else lambda value: value, post=post)
    )


def train_rank_killed(rank: int, world: int, job: Job, who: int, at: int) -> dict[str, Any]:
    """One rank of `train`; rank `who` ends by SIGKILL in the middle of step `at` (0-based), before a forward pass."""

    def key(seed: int, step: int, micro: int) -> int:
        if rank == who and step >= at:
            os.kill(os.getpid(), 9)
        return order.key(seed, step, micro)

    with mock.patch.object(loop, "key", key):
        return train_rank(rank, world, job)


def train_rank_stopped(
    rank: int, world: int, job: Job, after: int, reason: str, *, evaluating: bool = False
) -> dict[str, Any]:
    """One rank of `train`; after `after` steps of this start rank 0 is asked to stop, by `sigint` or `sigterm`.

    With `evaluating` it is asked in an evaluation, after `after` batches of evaluations in this start.
    """
    name = "go_on" if evaluating else "agree"
    original, calls = getattr(Ranks, name), 0

    def counting(self: Ranks, *error: Any) -> Any:
        nonlocal calls
        calls += 1
        return original(self, *error)

    with mock.patch.object(Ranks, name, counting):
        return training.train(
            job,
            World(
                rank=rank,
                size=world,
                share=share if world > 1 else lambda value: value,
                stop_requested=lambda: Reason(reason) if calls > after else Reason.NONE,
            ),
        )


def train_rank_stopped_evaluating(rank: int, world: int, job: Job, after: int, reason: str) -> dict[str, Any]:
    """`train_rank_stopped`, in an evaluation."""
    return train_rank_stopped(rank, world, job, after, reason, evaluating=True)


def evaluate_rank(rank: int, world: int, job: Job) -> dict[str, Any]:
    """One rank of an evaluation of the kept weights on `job.split`."""
    return evaluation.evaluate(job, World(rank=rank, size=world, share=share if world > 1 else lambda value: value))


def curve(folder: Path) -> list[dict[str, Any]]:
    """The surviving history of a run without what a clock decided."""
    return [{key: record[key] for key in record if key not in _CLOCKS} for record in read(RunFolder(folder))]


def ledger(folder: Path) -> dict[tuple[int, int, int], tuple[list[int], list[str] | None]]:
    """Every line of a run's ledger: `(epoch, step, micro-batch)` to sample ids and digests. Refuses a second line."""
    lines: dict[tuple[int, int, int], tuple[list[int], list[str] | None]] = {}
    for file in sorted((folder / "ledger").iterdir()):
        for text in file.read_text().splitlines():
            line = json.loads(text)
            where = (line["epoch"], line["step"], line["micro"])
            assert where not in lines, f"{where} was trained twice"
            lines[where] = (line["ids"], line.get("sha256"))
    return lines


def share(value: Any) -> Any:
    """Rank 0's value on every rank."""
    box = [value]
    dist.broadcast_object_list(box, 0)
    return box[0]


def weights(folder: Path) -> str:
    """sha256 of the file of the kept weights, here the last ones unless a job says otherwise."""
    return hashlib.sha256((folder / "model" / "model.safetensors").read_bytes()).hexdigest()
