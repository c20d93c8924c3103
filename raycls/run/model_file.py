"""The finished model of a run: `model/model.safetensors` and `model/model.json`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from raycls.errors import CheckpointError
from raycls.run.folder import RunFolder

__all__ = ["read_model", "sha256_of", "write_model"]


def write_model(
    folder: RunFolder,
    tensors: Mapping[str, torch.Tensor],
    *,
    classes: Sequence[str],
    preprocessing: Mapping[str, Any],
    config: Mapping[str, Any],
    weights: Mapping[str, Any],
) -> str:
    """Write the weights of a run with what is needed to use them; returns the sha256 of the weights file.

    Equal tensors give equal bytes: the file holds names, dtypes, shapes and values, in one order, nothing else.
    `preprocessing`, `config` and `weights` (which ones these are: `name`, `step` and `reason`) are plain JSON.
    """
    copies = {name: tensors[name].detach().to("cpu").contiguous().clone() for name in sorted(tensors)}
    data = save_tensors(copies, metadata={"format": "pt"})
    digest = hashlib.sha256(data).hexdigest()
    folder.store.write_bytes(folder.WEIGHTS, data)
    info = {
        "format": 1,
        "sha256": digest,
        "weights": weights,
        "classes": list(classes),
        "preprocessing": preprocessing,
        "config": config,
    }
    folder.write_json(folder.MODEL_INFO, info)
    return digest


def sha256_of(folder: RunFolder) -> str:
    """Of `model/model.safetensors` as written, in hexadecimal; empty where none is known. Nothing is verified."""
    return str((folder.read_json(folder.MODEL_INFO) or {}).get("sha256", ""))


def read_model(folder: RunFolder) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """(tensors by name, info with weights, classes, preprocessing and config) as `write_model` wrote them.

    Raises CheckpointError where they are missing, damaged, or not written together.
    """
    weights, text = folder.store.find_bytes(folder.WEIGHTS), folder.store.find_bytes(folder.MODEL_INFO)
    if weights is None or text is None:
        missing = folder.WEIGHTS if weights is None else folder.MODEL_INFO
        raise CheckpointError(
            "this run has no finished model",
            where=folder.store.describe(missing),
            found="no such file",
            fix=f"let the run end: rerun `raycls {folder.command}` to resume it",
        )
    try:
        info = json.loads(text)
        if info["sha256"] != hashlib.sha256(weights).hexdigest():
            raise ValueError("the weights are not those that model.json names (their sha256 differs)")
        return load_tensors(weights), info
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(
            "the finished model is damaged",
            where=folder.store.describe(folder.MODEL),
            found=str(error) or type(error).__name__,
            fix=f"delete the folder `model` and rerun `raycls {folder.command}` to write it again",
        ) from error
