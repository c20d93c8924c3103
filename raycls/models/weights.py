"""Weights that others trained: where they are, reading them without running code, fitting them into a network."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import urllib.request
from collections import OrderedDict
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlparse
from uuid import uuid4

import safetensors.torch
import torch
from torch import Tensor, nn
from torchvision.models import WeightsEnum

from raycls.config.suggest import suggest
from raycls.errors import ConfigError, ModelError
from raycls.models.surgery import find_head
from raycls.progress import progress

__all__ = ["fetch", "load_into", "locate", "published", "read"]

_log = logging.getLogger("raycls")
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar")
_PREFIXES = ("module.", "_orig_mod.")
_TIMEOUT_SECONDS = 30.0
# torchvision's DenseNet files are older than the rule that a module's name has no dot.
_DENSENET_KEY = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")


def locate(name: str, offered: type[WeightsEnum] | None) -> WeightsEnum | Path:
    """What `model.weights` names: one of the weights `offered` for the model, or else a local file.

    Raises ConfigError for an unknown name, ModelError for a file that is not there.
    """
    found = published(name, offered)
    if found is not None:
        return found
    path = Path(name).expanduser()
    if path.is_file():
        return path
    if "/" in name or os.sep in name or path.suffix.lower() in _SUFFIXES:
        raise ModelError(
            "the file of the weights is not there" if not path.is_dir() else "the weights are a folder, not a file",
            where="model.weights",
            found=f"{name} (in {Path.cwd()})",
            fix="write the path of an existing file",
        )
    names = list(offered.__members__) if offered is not None else []
    close = suggest(name, names)
    raise ConfigError(
        f"unknown weights: {name}" + (f"; did you mean {close}?" if close else ""),
        where="model.weights",
        found=name,
        valid=", ".join([*names, "a local .safetensors or .pth file"]),
    )


def published(name: str, offered: type[WeightsEnum] | None) -> WeightsEnum | None:
    """The one of the weights `offered` that `name` means, with or without the name of the enum, or None."""
    if offered is None:
        return None
    return offered.__members__.get(name.removeprefix(f"{offered.__name__}."))


def load_into(model: nn.Module, source: WeightsEnum | Path, num_classes: int) -> None:
    """Copy the weights from `source` into `model`, in place.

    A head for another number of classes is left out, and the log says so: the one of `model` keeps its
    initial weights. So are the auxiliary heads of GoogLeNet and Inception. Any other difference is a
    ModelError that lists it.
    """
    path = fetch(source.url) if isinstance(source, WeightsEnum) else source
    tensors = _fitting_names(read(path), model)
    head = find_head(model, num_classes)
    own = model.state_dict()
    left_out = _foreign_head(tensors, own, head)
    for name in left_out:
        _log.warning(
            "%s: %s is for %d classes, the data has %d; it starts anew",
            path.name,
            name,
            tensors[name].shape[0],
            num_classes,
        )
        del tensors[name]
    shapes = [
        f"{name}: {list(tensor.shape)} in the file, {list(own[name].shape)} in the model"
        for name, tensor in tensors.items()
        if name in own and tensor.shape != own[name].shape
    ]
    if shapes:
        raise _mismatch(path, {"other shapes": shapes})
    try:
        missing, unexpected = model.load_state_dict(tensors, strict=False)
    except (RuntimeError, ValueError) as error:
        raise _mismatch(path, {"other shapes": str(error).splitlines()[1:] or [str(error)]}) from error
    # Files older than torch 0.4.1 have no counters; those of the model start at zero.
    missing = [name for name in missing if name not in left_out and not name.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise _mismatch(path, {"missing in the file": missing, "not in the model": unexpected})


def read(path: Path) -> OrderedDict[str, Tensor]:
    """The tensors of a `.safetensors` file or of a file saved by torch, by name, on the CPU.

    A torch file may hold a state dict, or one under `state_dict` or `model`; the prefixes that
    DataParallel, DDP, averaged models and `torch.compile` add are removed. Nothing in the file is executed.

    Raises ModelError for a file that is damaged, is no such file, or holds more than tensors.
    """
    content: Any
    try:
        if path.suffix.lower() == ".safetensors":
            content = safetensors.torch.load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # both readers raise many kinds for a damaged file
        raise _unreadable(path, error) from error
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        raise ModelError(
            "the file holds no state dict",
            where=str(path),
            found=type(content).__name__,
            valid="names with tensors, or these under the key state_dict or model",
        )
    tensors = _without_prefixes(content)
    others = [f"{name} ({type(value).__name__})" for name, value in tensors.items() if not isinstance(value, Tensor)]
    if others or not tensors:
        raise ModelError(
            "the file holds other things than tensors" if others else "the file holds no tensors",
            where=str(path),
            found=", ".join(others[:5]) or None,
            valid="names with tensors, or these under the key state_dict or model",
        )
    return tensors


def fetch(url: str) -> Path:
    """The local copy of one of torchvision's files, downloaded into torch's cache where it is not there yet.

    Its name ends with the first digits of its sha256, which are compared. The copy appears whole or not at
    all, so several processes may call this at the same time. Raises ModelError when it cannot be had.
    """
    name = PurePosixPath(urlparse(url).path).name
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    path = folder / name
    remedy = f"put {name} into {folder} on every machine, or give a file you have: model.weights=<file>"
    if not path.exists():
        _log.info("downloading %s to %s", name, folder)
        try:
            _download(url, path)
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise ModelError(
                f"the weights {name} cannot be downloaded",
                where="model.weights",
                found=str(reason) or type(error).__name__,
                fix=remedy,
            ) from error
    if problem := _damage(path, name):
        raise ModelError(
            f"the weights {name} are damaged",
            where=str(path),
            found=problem,
            fix=f"delete the file and start again; without a network, {remedy}",
        )
    return path


def _download(url: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        # torchvision wrote the address; no config can.
        with temporary.open("xb") as file, urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310
            total = getattr(answer, "length", None)
            progress(f"downloading {path.name}", 0, total, "bytes")
            while block := answer.read(1 << 20):
                file.write(block)
                progress(f"downloading {path.name}", file.tell(), total, "bytes")
        if problem := _damage(temporary, path.name):
            raise OSError(f"what arrived is damaged or incomplete: {problem}")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _damage(path: Path, name: str) -> str | None:
    """How the content differs from the digest in `name`, or None where it does not."""
    expected = re.search(r"-([0-9a-f]{8,})\.", name)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if expected is None or digest.startswith(expected[1]):
        return None
    return f"sha256 {digest[:16]}... instead of {expected[1]}..."


def _without_prefixes(content: Mapping[str, Any]) -> OrderedDict[str, Any]:
    """`content` without the wrappers' prefixes; the versions that torch keeps beside a state dict survive."""
    tensors = OrderedDict(content)
    metadata = dict(getattr(content, "_metadata", None) or {})
    if any(name.startswith("module.") for name in tensors):
        tensors.pop("n_averaged", None)  # the counter of swa_utils.AveragedModel
    while prefix := next((p for p in _PREFIXES if tensors and all(name.startswith(p) for name in tensors)), None):
        tensors = OrderedDict((name.removeprefix(prefix), value) for name, value in tensors.items())
        metadata = {name.removeprefix(prefix): value for name, value in metadata.items() if name + "." != prefix}
    tensors._metadata = metadata  # type: ignore[attr-defined]
    return tensors


def _fitting_names(tensors: OrderedDict[str, Tensor], model: nn.Module) -> OrderedDict[str, Tensor]:
    """`tensors` under the names of today, without auxiliary heads that `model` does not have."""
    own = model.state_dict()
    fitting: OrderedDict[str, Tensor] = OrderedDict()
    for name, tensor in tensors.items():
        if name not in own:
            name = _DENSENET_KEY.sub(r"\1\2", name)
        if name in own or not (hasattr(model, "aux_logits") and name.startswith(_AUXILIARY)):
            fitting[name] = tensor
    # A file without versions (safetensors) is taken to be of the model's own.
    versions = getattr(tensors, "_metadata", None) or getattr(own, "_metadata", None)
    fitting._metadata = versions  # type: ignore[attr-defined]
    return fitting


def _foreign_head(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], head: str | None) -> list[str]:
    """The names of the head's tensors where they differ from the model's in the number of classes alone."""
    names = [f"{head}.weight", f"{head}.bias"] if head is not None else []
    names = [name for name in names if name in own and name in tensors]
    same_inputs = all(
        tensors[name].ndim == own[name].ndim and tensors[name].shape[1:] == own[name].shape[1:] for name in names
    )
    return names if same_inputs and any(tensors[name].shape != own[name].shape for name in names) else []


def _mismatch(path: Path, differences: Mapping[str, list[str]]) -> ModelError:
    parts = []
    for title, names in differences.items():
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            parts.append(f"{title}: {', '.join(name.strip() for name in names[:5])}{more}")
    return ModelError(
        "the weights do not fit the model",
        where=str(path),
        found="; ".join(parts),
        fix="give weights of the same architecture, or change model.name and model.args",
    )


def _unreadable(path: Path, error: Exception) -> ModelError:
    text = str(error)
    if "weights_only" in text or "Weights only" in text:
        return ModelError(
            "the file holds more than tensors, or is not a file saved by torch",
            where=str(path),
            found="content that only unpickling could read, which runs code from the file",
            fix="save model.state_dict() with torch.save, or write a .safetensors file",
        )
    return ModelError(
        "the weights cannot be read",
        where=str(path),
        found=f"{type(error).__name__}: {(text.splitlines() or [''])[0]}",
        valid="a .safetensors file, or a state dict saved by torch.save",
    )
