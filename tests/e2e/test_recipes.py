"""The promise, with options on: a run that is killed on three workers and resumed on two is that of one process.

One row per recipe. What an option computes is tested beside its code; here only that it stays exact.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from harness.jobs import curve, ledger, make_job, train, train_rank_killed, weights, write_arrays
from harness.kills import run_killed

from raycls.run.folder import RunFolder
from raycls.run.ledgers.sample_ledger import check
from raycls.session.data.scored import find_labels

_STEPS = (
    "train.micro_batches=4",
    "data.batch_size=24",
    "train.duration=3ep",
    "checkpoint.every=1st",
    "evaluate.every=1ep",
    "train.ledger=pixels",
    "track.log_every=1st",
)
_SAMPLES = 65
"""Three steps an epoch, the last one of 17 rows: micro-batches of different sizes."""

RECIPES: dict[str, tuple[str, ...]] = {
    "ema, momentum and label smoothing": (
        "optim.ema=0.9",
        "optim.args.momentum=0.9",
        "loss.args.label_smoothing=0.1",
        "schedule.name=cosine",
    ),
    "ema, AugMix and off_after": (
        "optim.ema=0.9",
        "augment.train=[{random_crop: {size: 12, padding: 2}}, aug_mix, {random_order: {operations: [hsv]}}]",
        "augment.off_after=70%",
    ),
    "simclr": ("task.name=simclr", "task.args.dimensions=16", "optim.name=adamw", "optim.args={}", "optim.lr=0.002"),
    "moco": (
        "task.name=moco",
        "task.args={dimensions: 8, queue: 40, momentum: 0.9, groups: 2}",
        "optim.args.momentum=0.9",
    ),
    "repeated augmentation": ("data.repeats=3",),
    "progressive sizes": (
        "augment.train=[random_resized_crop, {resize: {fit: stretch}}]",
        "augment.progressive={0%: 8, 1ep: 10, 70%: 12}",
    ),
    "ema, mixup and erasing": ("optim.ema=0.9", "augment.batch=[mixup, random_erasing]", "loss.name=bce"),
    "balanced sampler, mixup or cutmix": (
        "loss.balance=sampler",
        "augment.batch=[mixup_cutmix: {p: 0.8}]",
        "loss={name: poly, args: {epsilon: 2.0}}",
    ),
    "logit adjustment, clipping": ("loss.balance=logit_adjust", "optim.clip_norm=1.0"),
    "distillation": (
        "task.name=distillation",
        "task.args.teacher=TEACHER",
        "task.args.temperature=2.0",
        "task.args.features=10.0",
        "optim.args.momentum=0.9",
    ),
    "activation checkpointing, ema, sharpness-aware, mixup": (
        "train.activation_checkpointing=on",
        "model.name=cnn",
        "model.args={blocks: [2, 1], widths: [8, 16], dropout: 0.2}",
        "optim.ema=0.9",
        "optim.sam=0.05",
        "augment.batch=[mixup]",
    ),
    "sharpness-aware": ("optim.sam=0.05", "optim.lr=0.05"),
    "muon": ("optim.name=muon", "optim.lr=0.01", "optim.weight_decay=0.01", "optim.agc=0.01"),
    "staged unfreezing, layer-wise decay and rates by pattern": (
        "finetune.unfreeze={0ep: head, 1ep: features.9, 5st: all}",
        "finetune.layer_decay=0.7",
        "finetune.lr_scale={head: 2}",
        "optim={name: adamw, lr: 0.01, weight_decay: 0.1, weight_decay_on: weights, ema: 0.9}",
        "optim.clip_norm=1.0",
    ),
    "grey images, ema and mixup": ("model.in_channels=1", "optim.ema=0.9", "augment.batch=[mixup]"),
    "a network of timm, ema": ("model.name=timm:test_resnet", "optim.ema=0.9"),
    "a transformer of timm, stochastic depth": (
        "model.name=timm:test_vit",
        "model.args={img_size: 16, patch_size: 4, drop_path_rate: 0.2, drop_rate: 0.1}",
        "data.image_size=16",
        "augment.train=[{random_crop: {size: 16, padding: 4}}]",
        "augment.eval=[{resize: {size: [16, 16]}}]",
        "optim={name: adamw, lr: 0.001}",
    ),
    "frozen layers, the statistics of all norms kept": ("finetune.freeze=2", "finetune.frozen_norm=all"),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.nightly if at % 6 else pytest.mark.slow) for at, name in enumerate(RECIPES)],
)
def test_a_killed_run_on_other_workers_is_that_of_one_process(name: str, tmp_path: Path) -> None:
    data = write_arrays(tmp_path / "data.npz", train=_SAMPLES, val=12)
    teacher = tmp_path / "teacher"
    if any("TEACHER" in option for option in RECIPES[name]):
        train(make_job(teacher, data, "train.duration=1ep"))
    overrides = [option.replace("TEACHER", str(teacher)) for option in (*_STEPS, *RECIPES[name])]
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    assert train(make_job(alone, data, *overrides))["step"] == 9
    codes = run_killed(3, train_rank_killed, make_job(killed, data, *overrides, world=3), 1, 4)
    assert codes[1] == -9
    assert train(make_job(killed, data, *overrides, world=2), 2)["step"] == 9
    assert weights(killed) == weights(alone)
    assert curve(killed) == curve(alone)
    assert ledger(killed) == ledger(alone)
    assert check(RunFolder(killed), partial(find_labels, RunFolder(killed))).ok
