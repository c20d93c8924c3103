"""Weights that others trained: where they are."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from urllib.parse import urlparse
from uuid import uuid4

import torch
from torchvision.models import WeightsEnum

from raycls.config.names.suggest import suggest
from raycls.config.paths import expand
from raycls.config.sections.run import RunSection
from raycls.config.write import override
from raycls.errors import ConfigError, ModelError
from raycls.progress import progress
from raycls.run.storage.store import Store
from raycls.workdir import workdir

__all__ = ["Remote", "fetch", "locate", "published"]

_log = logging.getLogger("raycls")
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar")
_TIMEOUT_SECONDS = 30.0
_MODEL = "model.safetensors"


@dataclass(frozen=True)
class Remote:
    """A file on an object store. Each process that needs it reads it anew: it may have been replaced."""

    uri: str

    @contextmanager
    def copied(self) -> Iterator[Path]:
        """A local copy, with the JSON file beside it that says what the weights are of."""
        store, name = Store.around(self.uri)
        progress(f"reading {store.describe(name)}")
        with tempfile.TemporaryDirectory(prefix="raycls-weights-") as folder:
            for each in (name, str(PurePosixPath(name).with_suffix(".json"))):
                data = store.find_bytes(each)
                if data is not None:
                    Path(folder, each).write_bytes(data)
            yield Path(folder, name)


def locate(name: str, offered: type[WeightsEnum] | None) -> WeightsEnum | Path | Remote:
    """What `model.weights` names: one of the weights `offered` for the model, or else a run folder (its kept weights)
    or a file, here or at a URI.

    A relative path is one from the working directory of the command, see `workdir.workdir`.
    Raises ConfigError for an unknown name, ModelError for a file that is not there.
    """
    found = published(name, offered)
    if found is not None:
        return found
    if "://" in name:
        store, file = Store.around(name)
        store.check()
        if store.is_folder(file):
            name = Store(name).address(f"model/{_MODEL}")
            store, file = Store.around(name)
        if not store.exists(file):
            raise ModelError("the file of the weights is not there", where="model.weights", found=store.describe(file))
        return Remote(name)
    path = Path(workdir(), expand(name, where="model.weights"))
    if path.is_file():
        return path
    if (path / "model" / _MODEL).is_file():
        return path / "model" / _MODEL
    if path.is_dir():
        raise _folder(path, name)
    if "/" in name or os.sep in name or path.suffix.lower() in _SUFFIXES:
        raise ModelError(
            "the file of the weights is not there",
            where="model.weights",
            found=f"{name} (in {workdir()})",
            fix="write the path of an existing file",
        )
    names = list(offered.__members__) if offered is not None else []
    close = suggest(name, names)
    of_run = Path(RunSection().storage, name)
    raise ConfigError(
        f"unknown weights: {name}" + (f"; did you mean {close}?" if close else ""),
        where="model.weights",
        found=name,
        valid=", ".join([*names, "a run folder", "a .safetensors or .pth file"]),
        fix=override("model.weights", str(of_run)) if Path(workdir(), of_run, "model", _MODEL).is_file() else None,
    )


def _folder(path: Path, name: str) -> ModelError:
    """A folder in the place of a file: one inside of a run with a model, or one with files of weights."""
    folders = [name for name in (".", "../model", "../../model") if (path / name / _MODEL).is_file()]
    inside = [f"{folder}/{_MODEL}" for folder in folders[:1]]
    inside = inside or sorted(file.name for file in path.iterdir() if file.suffix.lower() in _SUFFIXES)
    fix = "write the path of a file, or of the folder of a run that has ended"
    if inside:
        fix = override("model.weights", os.path.normpath(os.path.join(name, inside[0])))
        fix += f", or another of {', '.join(inside)}" if len(inside) > 1 else ""
    return ModelError("the weights are a folder, not a file", where="model.weights", found=name, fix=fix)


def published(name: str, offered: type[WeightsEnum] | None) -> WeightsEnum | None:
    """The one of the weights `offered` that `name` means, with or without the name of the enum, or None."""
    if offered is None:
        return None
    return offered.__members__.get(name.removeprefix(f"{offered.__name__}."))


def fetch(url: str) -> Path:
    """The local copy of one of torchvision's files, downloaded into torch's cache where it is not there yet.

    Its name ends with the first digits of its sha256, which are compared. The copy appears whole or not at
    all, so several processes may call this at the same time. Raises ModelError when it cannot be had.
    """
    name = PurePosixPath(urlparse(url).path).name
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    path = folder / name
    remedy = f"put {name} into {folder} on every machine, or give a file you have: model.weights=FILE"
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
            size = answer.headers.get("Content-Length") or ""
            total = int(size) if size.isdigit() else None
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
