"""`raycls probe`: a run whose network is that of `model.weights` and whose head was trained on cached features."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from raycls.config import load as config
from raycls.config.sections.run import Run
from raycls.data.source import Dataset
from raycls.errors import ConfigError, DataError, ModelError
from raycls.models import zoo
from raycls.models.surgery import restore
from raycls.plugins import no_exit
from raycls.progress import progress
from raycls.run.folder import RunFolder
from raycls.run.kept import Weights, choose
from raycls.run.model_file import read_model, write_model
from raycls.run.storage.lock import HANDOVER_SECONDS, Lock
from raycls.session.data.preprocessing import preprocessing_of
from raycls.session.data.resumed import searched_data
from raycls.session.data.unfit import first_sample
from raycls.session.plan_file import read_plan, required_plan, write_plan
from raycls.session.predictions.compute import Work
from raycls.session.predictions.predict import Elsewhere, Join, part_rows
from raycls.session.prepare import Prepared, prepare, reduction_of
from raycls.session.probing.features import FEATURES, digest_of, features_of, head_of
from raycls.session.probing.head import Fitted, Head, chosen, fit
from raycls.session.probing.neighbours import NEIGHBOURS, nearest
from raycls.session.recovery.bad_images import note_bad
from raycls.session.setup import device_of, make_task, refuse_missing_gpu
from raycls.session.trained.result import write_result
from raycls.session.trained.trained import Trained
from raycls.tasks.scores.intervals import wilson
from raycls.train.precision import arithmetic, autocast, resolve_precision
from raycls.workdir import set_workdir

__all__ = ["Grid", "probe", "probed"]

_Splits = dict[str, tuple[Tensor, Tensor]]
"""Features `[N, D] float32` and labels `[N] int64` of each split, on one device."""
_TASKS = ("classification", "simclr", "moco", "distillation")
_ACTING = {
    "augment": ("train", "eval", "mean", "std"),
    "train": ("reduction", "amp", "memory_format", "overfit", "fast_dev_run"),
    "evaluate": ("split", "batch_size"),
}
"""What is taken of these sections. The others say how the network is trained, which it is not."""
_NAME = "probe"
"""Of these weights, beside `best` and `last`."""


@dataclass(frozen=True)
class Grid:
    """How the head is trained."""

    weight_decays: tuple[float, ...]
    epochs: int
    """The most passes over the features per weight decay."""


def probed(run: Run, of: RunFolder | None) -> Run:
    """The run that a probe of `run` is: one label per image, plain cross entropy, nothing of the network trained.

    `of` is the folder of `run` where that was trained: its weights are those that are probed. ConfigError for a task
    with any number of labels, or of a plug-in.
    """
    if run.task.name not in _TASKS:
        raise ConfigError(
            "a linear probe is for one label per image",
            where="task.name",
            found=run.task.name,
            valid=", ".join(_TASKS),
        )
    model = run.model
    if of is not None:
        choose(of, None)  # ConfigError where it has no weights yet
        model = zoo.settled(model).model_copy(update={"weights": of.uri})
    values = config.to_dict(run.model_copy(update={"model": model}))
    kept = {section: values[section] for section in ("run", "data", "model", "scale")}
    kept["data"]["repeats"] = 1
    kept |= {section: {name: values[section][name] for name in names} for section, names in _ACTING.items()}
    kept["task"] = values["task"] if run.task.name == "classification" else {"name": "classification"}
    return config.from_dict(kept)


@no_exit()
def probe(
    run: Run,
    grid: Grid,
    *,
    of: RunFolder | None = None,
    new: bool = False,
    command: Sequence[str],
    join: Join,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Extract the features, train the head, and write the run folder; what is in its `probe.json`.

    `run` is that of `probed`; with `of`, its splits are those that the run in this folder was started with. The weight
    decay is chosen on the validation split, and the head is then scored once on the test split. Features are the same
    bits on any number of workers, and so is the head.
    """
    set_workdir(os.getcwd())
    if run.scale.max_workers == 0:
        refuse_missing_gpu(run)
    dataset = None if of is None else searched_data(run, of, say)
    prepared = prepare(run, new=new, command=command, say=say, dataset=dataset, trains=False)
    for line in prepared.weights:
        say(line)
    if run.model.weights is None:
        say("model.weights is not set: these are features of a network that was not trained")
    dataset, folder = prepared.dataset, prepared.folder
    _check_splits(dataset, grid)
    with Lock(folder, "probe", timeout=HANDOVER_SECONDS, say=say), arithmetic(threads=run.scale.threads, strict=True):
        if prepared.result is None:
            _begin(folder)
        task = make_task(run, dataset.classes, torch.device("cpu"))
        model = zoo.build(run.model, len(dataset.classes), run.run.seed, load=False)
        layer = head_of(model, len(dataset.classes), task.example(first_sample(run, dataset, prepared.plan)))
        model = _with_weights(prepared, model, layer, say)
        extracted = _extracted(prepared, model, layer, join, say)
        splits, classes = extracted.splits, len(dataset.classes)
        biased = f"{layer}.bias".lstrip(".") in dict(model.named_parameters())
        found = fit(splits["train"], splits.get("val"), classes, grid.weight_decays, grid.epochs, biased=biased)
        best = chosen(found)
        _put(model, layer, best.head)
        facts = {
            "weights": run.model.weights,
            "network": extracted.network,
            "layer": layer,
            "features": splits["train"][0].shape[1],
            "splits": {name: len(labels) for name, (_, labels) in splits.items()},
            "classes": classes,
            **_measured(splits, found, best, prepared.plan.evaluate_batch, extracted.precision),
            "cached": extracted.cached,
        }
        folder.store.delete(RunFolder.RESULT)  # what follows is done where it is there again
        _write(folder, prepared, model)
        folder.write_json(RunFolder.PROBE, facts)
        weights = {"name": _NAME, "step": None, "reason": "a linear probe"}
        write_result(folder, prepared.plan, asked=run.evaluate.keep, weights=weights, seconds=facts["seconds"])
    return {**facts, "folder": folder.store.describe(), "address": folder.uri}


def _begin(folder: RunFolder) -> None:
    """The folder holds a probe from here on, and no model until its head is fitted."""
    folder.write_json(RunFolder.PROBE, {"state": "unfinished"})
    for name in (RunFolder.RESULT, RunFolder.MODEL_INFO, RunFolder.WEIGHTS):
        folder.store.delete(name)


def _check_splits(dataset: Dataset, grid: Grid) -> None:
    if len(grid.weight_decays) > 1 and "val" not in dataset.splits:
        raise DataError(
            "there is no validation split to choose the weight decay on",
            where="data.split",
            found=", ".join(f"{name} ({len(split)})" for name, split in dataset.splits.items()),
            fix="give data.split a part for val, or name one weight decay: --weight-decay=1e-3",
        )


def _write_plan(prepared: Prepared, device: str) -> str:
    """Write `plan.json`; the precision that the features are computed in, which is that of the plan."""
    folder, plan = prepared.folder, prepared.plan
    first = read_plan(folder)
    precision = plan.precision or (first.precision if first else "")
    if not precision:
        known = device == "cpu" or torch.cuda.is_available()  # a driver cannot ask the GPUs of its cluster
        precision = resolve_precision(prepared.run.train.amp, torch.device(device)) if known else "off"
    reduction = plan.reduction or reduction_of(prepared.run, device)
    write_plan(folder, replace(plan, device=device, precision=precision, reduction=reduction), first)
    return precision


def _with_weights(prepared: Prepared, model: nn.Module, layer: str, say: Callable[[str], None]) -> nn.Module:
    """The network, `model` or another, with the weights that are probed; ConfigError where they are others than when
    the probe was done."""
    run, classes = prepared.run, prepared.dataset.classes
    progress("loading the weights")
    if prepared.result is None:
        zoo.load(run.model, model, classes)
        return model
    restore(model, read_model(prepared.folder)[0])
    try:
        loaded = zoo.build(run.model, len(classes), run.run.seed, classes=classes)
    except (ModelError, ConfigError):
        say(f"{run.model.weights} cannot be read any more: the network that this probe kept is taken")
        return model
    if digest_of(loaded, layer) != digest_of(model, layer):
        raise ConfigError(
            "the weights are others than when this probe was done",
            where="model.weights",
            found=str(run.model.weights),
            valid=f"those that {prepared.folder.store.describe()} keeps",
            fix="start anew with --new (the old probe is kept beside it), or use another run.name",
        )
    return loaded


@dataclass(frozen=True)
class _Extracted:
    splits: _Splits
    network: str
    """`digest_of` the network."""
    precision: torch.autocast
    """What the features were computed in, on the device that they are on now."""
    cached: list[str]
    """The splits whose features were there already."""


def _extracted(prepared: Prepared, model: nn.Module, layer: str, join: Join, say: Callable[[str], None]) -> _Extracted:
    run, folder, network = prepared.run, prepared.folder, digest_of(model, layer)
    first = read_plan(folder)
    splits: _Splits = {}
    cached: list[str] = []
    with ExitStack() as stack:

        @cache
        def elsewhere() -> Elsewhere | None:
            return stack.enter_context(join(run, say)) if run.scale.max_workers else None

        device = first.device if first else ""
        if not device:  # where the features are there already, nobody is needed who computes
            cluster = elsewhere()
            device = cluster.device if cluster is not None else device_of(run, torch.cuda.device_count())
        precision = _write_plan(prepared, device)
        trained = _to_extract(prepared, model)
        here = torch.device(device if torch.cuda.is_available() else "cpu")
        for name, split in prepared.dataset.splits.items():
            rows = part_rows(len(split), prepared.plan.evaluate_batch)
            work = Work(trained, split, 1, False, device, os.getcwd(), rows, precision, layer=layer)
            values, bad, there = features_of(work, network, elsewhere, say)
            note_bad(run, folder, name, len(split), bad, say)
            cached += [name] if there else []
            labels = np.delete(split.labels, [each.place for each in bad])
            splits[name] = torch.from_numpy(values).to(here), torch.from_numpy(labels).to(here)
        for name in (RunFolder.ENV, RunFolder.MODEL):
            trained.folder.store.delete_tree(name)
    return _Extracted(splits, network, autocast(precision, here), cached)


def _to_extract(prepared: Prepared, model: nn.Module) -> Trained:
    """The network for those who extract, in `features/`: what is in `model/` has a fitted head, whenever this ends."""
    folder = prepared.folder
    copy = RunFolder(folder.store.sub(FEATURES))
    copy.store.write_bytes(RunFolder.ENV, folder.store.read_bytes(RunFolder.ENV))  # by which a node knows the folder
    sha256 = _write(copy, prepared, model)
    run = config.load_text(folder.read_config(), folder.store.describe(RunFolder.CONFIG)).run
    classes, weights = tuple(prepared.dataset.classes), Weights(_NAME, None, checkpoint=False)
    return Trained(copy.uri, folder.store.describe(), run, required_plan(folder), classes, weights, sha256)


@torch.no_grad()
def _put(model: nn.Module, layer: str, head: Head) -> None:
    linear = model.get_submodule(layer) if layer else model
    parameters = dict(linear.named_parameters(recurse=False))
    parameters["weight"].copy_(head.weight)
    if head.bias is not None:
        parameters["bias"].copy_(head.bias)


def _measured(
    splits: _Splits,
    found: Sequence[Fitted],
    best: Fitted,
    batch: int,
    precision: torch.autocast,
) -> dict[str, Any]:
    """The numbers: of the grid, of the head that was chosen and of the neighbours, on validation and on test."""
    scored: dict[str, Any] = {}
    classes = len(best.head.weight)
    for name in [name for name in ("val", "test") if name in splits]:
        features, labels = splits[name]
        with torch.no_grad(), precision:  # in batches as an evaluation has them: the same bits, so the same answers
            answers = torch.cat([best.head.logits(part).float().argmax(1) for part in features.split(batch)])
        scored[name] = {
            "head": _share(answers, labels),
            "nearest": _share(nearest(splits["train"], features, classes), labels),
        }
    epochs, seconds = sum(one.trial.epochs for one in found), sum(one.trial.seconds for one in found)
    return {
        "grid": [asdict(one.trial) for one in found],
        "weight_decay": best.trial.weight_decay,
        "scores": scored,
        "neighbours": NEIGHBOURS,
        "epochs": epochs,
        "seconds": seconds,
        "epochs_per_second": epochs / seconds if seconds else None,
    }


def _share(answers: Tensor, labels: Tensor) -> dict[str, Any]:
    hits, count = int((answers == labels).sum()), len(labels)
    return {"top1": hits / count, "hits": hits, "count": count, "interval": wilson(hits, count)}


def _write(folder: RunFolder, prepared: Prepared, model: nn.Module) -> str:
    """Write the network into `folder`; the sha256 of the file."""
    run = prepared.run
    return write_model(
        folder,
        model.state_dict(),
        classes=prepared.dataset.classes,
        preprocessing=preprocessing_of(run),
        config=run.model.model_dump(mode="json"),
        weights={"name": _NAME, "step": None, "reason": f"a linear probe of {run.model.weights or 'no weights'}"},
    )
