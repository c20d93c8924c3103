"""Runs whose forward pass is another one: activation checkpointing, torch.compile, synchronised norms."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from harness.jobs import curve, make_job, train, train_rank_killed, train_rank_stopped, weights, write_arrays
from harness.kills import run_killed
from harness.ranks import run_ranks
from safetensors.torch import load_file

from raycls.errors import ConfigError, RayclsError, TrainError
from raycls.run.folder import RunFolder
from raycls.run.history import read
from raycls.session.job import Job
from raycls.train.forward import compiled

_NET = ("model.name=cnn", "model.args={blocks: [2, 1], widths: [8, 16], dropout: 0.2}")
_STEPS = (*_NET, "data.batch_size=20", "train.micro_batches=2", "train.duration=1ep", "checkpoint.every=1st")


_OPTIONS = {
    "ema, sharpness-aware, bf16": ("optim.ema=0.9", "optim.sam=0.05", "train.amp=bf16"),
    "simclr": ("task.name=simclr", "task.args.dimensions=16"),
    "moco": ("task={name: moco, args: {dimensions: 8, queue: 40, momentum: 0.9, groups: 2}}",),
    "staged unfreezing, fast": ("finetune={unfreeze: {0ep: head, 1st: stages, 2st: all}}", "train.reduction=fast"),
    "distillation": ("task={name: distillation, args: {teacher: TEACHER}}",),
}


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(options, id=name, marks=[pytest.mark.slow] if "ema" not in name else [])
        for name, options in _OPTIONS.items()
    ],
)
def test_activation_checkpointing_changes_no_bit(options: tuple[str, ...], tmp_path: Path) -> None:
    data = write_arrays(tmp_path / "data.npz", train=65, val=12)
    teacher = tmp_path / "teacher"
    if any("TEACHER" in option for option in options):
        train(make_job(teacher, data, *_STEPS))
    options = tuple(option.replace("TEACHER", str(teacher)) for option in options)
    for name in ("off", "on"):
        train(make_job(tmp_path / name, data, *_STEPS, *options, f"train.activation_checkpointing={name}"))
    assert weights(tmp_path / "on") == weights(tmp_path / "off")
    assert curve(tmp_path / "on") == curve(tmp_path / "off")


def test_it_may_be_switched_on_when_a_run_is_resumed(tmp_path: Path) -> None:
    data = write_arrays(tmp_path / "data.npz", train=65, val=12)
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    train(make_job(whole, data, *_STEPS))
    train_rank_stopped(0, 1, make_job(resumed, data, *_STEPS), 2, "sigterm")
    assert train(make_job(resumed, data, *_STEPS, "train.activation_checkpointing=on"))["step"] == 4
    assert weights(resumed) == weights(whole)


@pytest.mark.slow
def test_only_training_is_compiled_once_for_each_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """65 images in batches of 20, two micro-batches each: sizes 10, and of the last batch 2 and 3."""
    data = write_arrays(tmp_path / "data.npz", train=65, val=13)
    sizes = list[int]()

    def backend(graph: torch.fx.GraphModule, given: list[torch.Tensor]) -> Callable[..., Any]:
        sizes.extend(len(each) for each in given if each.ndim == 4 and each.shape[1] == 3 and not each.requires_grad)
        return graph.forward

    monkeypatch.setattr(compiled, "_BACKEND", backend)
    plain, fast = tmp_path / "plain", tmp_path / "fast"
    options = (*_STEPS, "train.duration=2ep", "evaluate.every=1st", "evaluate.batch_size=6", "track.log_every=1st")
    train(make_job(plain, data, *options))
    train_rank_stopped(0, 1, make_job(fast, data, *options, "train.compile=default"), 6, "sigterm")
    assert sorted(sizes) == [2, 3, 10]
    train(make_job(fast, data, *options, "train.compile=default"))
    assert weights(fast) == weights(plain)  # the backend does nothing: names and bits are those of the network
    told = [record.get("compile_seconds", 0.0) for record in read(RunFolder(fast)) if record["kind"] == "train"]
    assert [index for index, value in enumerate(told) if value > 0] == [0, 3, 6, 7]  # of two starts


def test_a_network_that_cannot_be_compiled_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def backend(graph: torch.fx.GraphModule, given: list[torch.Tensor]) -> Callable[..., Any]:
        raise RuntimeError("no way")

    monkeypatch.setattr(compiled, "_BACKEND", backend)
    data = write_arrays(tmp_path / "data.npz", train=20, val=4)
    with pytest.raises(TrainError, match="cannot compile the network") as raised:
        train(make_job(tmp_path / "run", data, *_STEPS, "train.compile=default"))
    assert (raised.value.where, raised.value.found) == ("train.compile", "RuntimeError: no way")
    assert raised.value.fix == "set train.compile=off; a run that has checkpoints starts anew, with --new"


def test_a_machine_without_a_compiler_is_told_of(tmp_path: Path) -> None:
    from torch._inductor import config as inductor

    data = write_arrays(tmp_path / "data.npz", train=20, val=4)
    with inductor.patch({"cpp.cxx": ("no-such-compiler",)}), pytest.raises(TrainError) as raised:
        train(make_job(tmp_path / "run", data, *_STEPS, "train.compile=default"))
    assert raised.value.where == "train.compile"
    assert str(raised.value.fix).startswith("install a C++ compiler, such as g++")


def _compile_rank(rank: int, world: int, job: Job, cache: str, who: int, at: int) -> dict[str, Any]:
    """`train_rank_killed`, with the files of the compiler in `cache`."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
    return train_rank_killed(rank, world, job, who, at)


@pytest.mark.nightly
def test_compiled_kernels_give_the_same_bits_on_any_number_of_workers(tmp_path: Path) -> None:
    data = write_arrays(tmp_path / "data.npz", train=48, val=12)
    net = ("model.name=cnn", "model.args={blocks: [1], widths: [8], residual: false, dropout: 0.2}")
    options = (*_STEPS, *net, "data.batch_size=24", "train.micro_batches=3", "train.duration=2ep")
    options = (*options, "train.compile=default")
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    run_ranks(1, _compile_rank, make_job(alone, data, *options), str(tmp_path / "cache"), -1, 0)
    codes = run_killed(3, _compile_rank, make_job(killed, data, *options, world=3), str(tmp_path / "cache"), 1, 2)
    assert codes[1] == -9
    # a cache of its own: what it computes is compiled again
    run_ranks(2, _compile_rank, make_job(killed, data, *options, world=2), str(tmp_path / "other"), -1, 0)
    assert weights(killed) == weights(alone)


def _job(folder: Path, data: Path, *options: str, world: int) -> Job:
    net = ("model.name=cnn", "model.args={blocks: [1, 1], widths: [8, 16]}")
    return make_job(folder, data, *_STEPS[2:], *net, "data.batch_size=24", "optim.ema=0.9", *options, world=world)


@pytest.mark.slow
def test_synchronised_statistics_are_those_of_the_global_batch(tmp_path: Path) -> None:
    """On three workers as in one micro-batch, to rounding; and after a kill to the bit."""
    data = write_arrays(tmp_path / "data.npz", train=65, val=12)
    options = ("train.batch_norm=sync", "train.micro_batches=auto", "optim.lr=0.01")
    one, whole, killed = (tmp_path / name for name in ("one", "whole", "killed"))
    train(_job(one, data, *options, world=0))
    train(_job(whole, data, *options, world=3), 3)
    found, wanted = (load_file(folder / "model" / "model.safetensors") for folder in (whole, one))
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=2e-3, atol=2e-5, msg=lambda text, name=name: name + text)
    assert run_killed(3, train_rank_killed, _job(killed, data, *options, world=3), 1, 2)[1] == -9
    with pytest.raises(ConfigError, match="all micro-batches at once") as raised:
        _job(killed, data, *options, world=2)
    assert (raised.value.where, raised.value.found) == ("scale.workers, train.batch_norm", "2")
    assert raised.value.valid == "3, fixed when the run was started"
    assert str(raised.value.fix).startswith("scale.workers=3;")
    with pytest.raises(TrainError, match="a worker for each micro-batch"):  # whoever starts fewer than the config says
        train(_job(killed, data, *options, world=3))
    train(_job(killed, data, *options, world=3), 3)
    assert weights(killed) == weights(whole)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("scale.workers=0", "train.micro_batches=2"), "one worker for each micro-batch"),
        (("scale.workers=[1, 3]", "train.micro_batches=3"), "one worker for each micro-batch"),
        (("scale.workers=2", "train.compile=default"), "do not go together"),
        (("scale.workers=4", "data.batch_size=62"), "the smallest batch has 3, in 4 micro-batches"),
    ],
)
def test_what_synchronised_statistics_need(options: tuple[str, ...], said: str, tmp_path: Path) -> None:
    data = write_arrays(tmp_path / "data.npz", train=65, val=12)
    with pytest.raises(RayclsError) as raised:
        make_job(tmp_path / "run", data, *_NET, "train.batch_norm=sync", *options)
    assert said in str(raised.value)
    if "micro-batch, all at once" in str(raised.value):
        workers = options[1][-1]
        assert raised.value.fix == f"scale.workers={workers}, or train.batch_norm=micro_batch"
