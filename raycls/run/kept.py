"""Which weights of a run there are: what `model/` holds, and what the checkpoints hold beside it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from raycls.errors import CheckpointError, ConfigError, RayclsError
from raycls.run import checkpoint
from raycls.run.checkpoint_files import BadCheckpointError
from raycls.run.folder import RunFolder
from raycls.run.model_file import read_model

__all__ = ["Weights", "best_weights", "choose", "evaluated_tensors", "load", "provenance_of"]

_MOVING_AVERAGE = "module."
"""What torch's AveragedModel puts before the names of the network that it averages."""


@dataclass(frozen=True)
class Weights:
    """Weights that can be evaluated. Plain values: it travels to every worker."""

    name: str
    """`best`, `last` or `step-N`; empty where `model/` was written by a version that did not say."""
    step: int | None
    """Steps that led to them, None where that is not known."""
    checkpoint: bool
    """Whether they are in the checkpoint of `step`, and not in `model/`."""

    def to_dict(self) -> dict[str, Any]:
        """For a reader: `{"name", "step"}`."""
        return {"name": self.name, "step": self.step}


def provenance_of(run: str, weights: Weights, sha256: str) -> dict[str, Any]:
    """Which run and which weights of it an artefact comes from, as plain JSON.

    `run` is how messages call the run, `sha256` that of `model/model.safetensors`, empty for those of a checkpoint.
    """
    return {"run": run, "weights": weights.name, "step": weights.step, "sha256": sha256}


def evaluated_tensors(trees: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The weights of a checkpoint that are evaluated and kept: the moving average where there is one."""
    if "ema" not in trees:
        return dict(trees["model"])
    averaged = trees["ema"].items()
    return {name.removeprefix(_MOVING_AVERAGE): value for name, value in averaged if name.startswith(_MOVING_AVERAGE)}


def best_weights(folder: RunFolder, step: int) -> dict[str, torch.Tensor] | str:
    """The weights of the best checkpoint, that of `step`; in words what is wrong where it is not as it was written."""
    try:
        return evaluated_tensors(checkpoint.load(folder, step).trees)
    except CheckpointError as error:
        if isinstance(error.__cause__, BadCheckpointError):
            return f"the best checkpoint, that of step {step}, cannot be used: {error.__cause__}"
        raise


def choose(folder: RunFolder, wanted: str | None) -> Weights:
    """The weights that `wanted` names: `best`, `last` or `step-N`; None is what `model/` holds at the end of the run.

    Raises ConfigError with those that there are where these are not.
    """
    info = _model_info(folder)
    if wanted is None:
        if info is None:
            raise _not_there(folder, info, "this run has no finished model", None)
        return _kept(folder, info)
    step = _step_of(folder, info, wanted)
    if step is not None and step == _model_step(info):
        return Weights(wanted, step, checkpoint=False)
    if step is not None and step in folder.steps():
        return Weights(wanted, step, checkpoint=True)
    raise _not_there(folder, info, f"this run has no weights {wanted}", wanted)


def _kept(folder: RunFolder, info: dict[str, Any]) -> Weights:
    """What `model/` is to hold: where the run was resumed since it was written, the best or last weights are others."""
    kept = info.get("weights") or {}
    name, step = str(kept.get("name", "")), kept.get("step")
    now = _step_of(folder, info, name)
    if now in (step, None):
        return Weights(name, step, checkpoint=False)
    there = now in folder.steps()
    return Weights(name, now, checkpoint=True) if there else Weights(f"step-{step}", step, checkpoint=False)


def load(folder: RunFolder, weights: Weights) -> dict[str, torch.Tensor]:
    """The tensors by name. Where they are not as they were written, CheckpointError with those that are."""
    if not weights.checkpoint or weights.step is None:
        return read_model(folder)[0]
    try:
        return evaluated_tensors(checkpoint.load(folder, weights.step).trees)
    except CheckpointError as error:
        if not isinstance(error.__cause__, BadCheckpointError):
            raise
        there = _names(folder, _intact_model(folder), checkpoint.intact(folder))
        raise CheckpointError(
            error.what,
            where=error.where,
            found=error.found,
            valid=", ".join(_listed(there)) or "none: no other is whole",
            fix=f"evaluate another one, --weights {next(iter(there))}" if there else "train anew with --new",
        ) from error.__cause__


def _intact_model(folder: RunFolder) -> dict[str, Any] | None:
    """What is written about `model/`, None where it is not there or not whole."""
    try:
        info = _model_info(folder)
        if info is not None:
            read_model(folder)
    except RayclsError:
        return None
    return info


def _names(folder: RunFolder, info: dict[str, Any] | None, checkpoints: Iterable[int]) -> dict[str, int]:
    """The names of the weights in `model/` and in these checkpoints, and their steps."""
    model: int | None = _model_step(info)
    steps: list[int] = sorted({*checkpoints, *([model] if model is not None else [])})
    named = {name: step for name in ("best", "last") if (step := _step_of(folder, info, name)) is not None}
    there = {name: step for name, step in named.items() if step in steps}
    return {**there, **{f"step-{step}": step for step in steps}}


def _model_info(folder: RunFolder) -> dict[str, Any] | None:
    there = folder.store.exists(folder.WEIGHTS)
    return folder.read_json(folder.MODEL_INFO) or {} if there else None


def _model_step(info: dict[str, Any] | None) -> int | None:
    return ((info or {}).get("weights") or {}).get("step")


def _step_of(folder: RunFolder, info: dict[str, Any] | None, wanted: str) -> int | None:
    if wanted == "best":
        best = folder.read_json(folder.BEST)
        kept = ((info or {}).get("weights") or {}) if best is None else {}
        return int(best["step"]) if best else kept.get("step") if kept.get("name") == "best" else None
    if wanted == "last":
        result = folder.read_json(folder.RESULT)
        return int(result["step"]) if result else max(folder.steps(), default=None)
    match = re.fullmatch(r"step-(\d+)", wanted)
    return int(match[1]) if match else None


def _listed(names: Mapping[str, int]) -> list[str]:
    return [name if name.startswith("step-") else f"{name} (step {step})" for name, step in names.items()]


def _not_there(folder: RunFolder, info: dict[str, Any] | None, what: str, wanted: str | None) -> ConfigError:
    names = _names(folder, info, folder.steps())
    there = _listed(names)
    if not there:
        fix = f"let the run end first: rerun raycls {folder.command} to resume it"
    elif wanted is None:
        fix = f"let the training end first: rerun raycls train to resume it; or --weights {next(iter(names))}"
    else:
        fix = "choose one of these with --weights, or leave it out for what model/ holds"
    return ConfigError(
        what,
        where=folder.store.describe(folder.WEIGHTS if wanted is None else folder.CHECKPOINTS),
        found=None if wanted is None else f"--weights {wanted}",
        valid=", ".join(there) or "none: there is no checkpoint yet",
        fix=fix,
    )
