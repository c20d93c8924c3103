"""The features of a split: computed once, by whoever computes predictions, and kept in the run folder part by part."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import astuple
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import raycls
from raycls.config.write import flow
from raycls.data import samples
from raycls.data.images.planes import RGB
from raycls.data.making.bad import Bad, BadImageError, or_skip
from raycls.data.source import Files, Split
from raycls.errors import DataError, ModelError
from raycls.models.surgery import beside, find_head, modes_kept
from raycls.quantities import cores, plural
from raycls.session.data.record import MOST_SAMPLES, digests
from raycls.session.predictions.compute import Part, Work
from raycls.session.predictions.inputs import Inputs
from raycls.session.predictions.parts import Folder
from raycls.session.predictions.predict import Elsewhere, here, told

__all__ = ["FEATURES", "digest_of", "features_of", "head_of"]

FEATURES = "features"
"""The folder of the run folder that holds them."""


def head_of(model: nn.Module, num_classes: int, example: tuple[Tensor, ...]) -> str:
    """The name of the linear layer whose output is that of the network and whose inputs are its features.

    ModelError where there is none. `example` is what the network takes for one sample.
    """
    name = find_head(model, num_classes)
    head = model if name is None else model.get_submodule(name)
    seen: list[tuple[Tensor, Tensor]] = []

    def look(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append((inputs[0], output))

    if name is None or not isinstance(head, nn.Linear):
        raise _no_head("no linear layer" if name is None else f"{name}, a {type(head).__name__}", num_classes)
    hook = head.register_forward_hook(look)
    try:
        with torch.no_grad(), modes_kept(model):
            draw = torch.Generator().manual_seed(0)
            batch = (torch.randn(2, *part.shape[1:], generator=draw) for part in example)
            output = model.eval()(*beside(model, tuple(batch)))
    finally:
        hook.remove()
    if len(seen) != 1 or seen[0][0].ndim != 2 or not torch.equal(seen[0][1], output):
        raise _no_head(f"{name}, whose outputs are not what the network returns", num_classes)
    return name


def _no_head(found: str, num_classes: int) -> ModelError:
    return ModelError(
        "this network has no features that a linear head could be trained on",
        where="model.name",
        found=found,
        valid=f"a network that ends with a linear layer of {num_classes} outputs, one per class",
    )


def digest_of(model: nn.Module, head: str) -> str:
    """sha256 over the tensors of the network without its head, in hexadecimal."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if not name.startswith(f"{head}."):
            value = tensor.detach().cpu().contiguous()
            digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
            digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def features_of(
    work: Work, network: str, elsewhere: Callable[[], Elsewhere | None], say: Callable[[str], None]
) -> tuple[np.ndarray, list[Bad], bool]:
    """The features of the samples of `work.split`, `[N, D] float32` in their order, and whether all were there already.
    Between them, with `data.on_bad_image: skip`, the bad images: `place` is their row, and they have no features.

    They are computed on the cluster that `elsewhere` gives, or here, and kept beside the network of `work`, that is in
    the folder `features` of the probe. What is there is taken where it is of the same network (`network` is its
    `digest_of`), the same samples and the same operations on them, and else deleted. DataError for a sample that cannot
    be decoded, ModelError for features that are not finite.
    """
    folder = Folder(work.trained.folder.store.sub(work.split.name))
    changed = folder.take_over(_job(work, network))
    if changed is not None:
        say(f"features of the split {work.split.name} are extracted anew: {', '.join(changed)} changed")
    parts = folder.whole()
    missing = [number for number in range(work.parts) if number not in parts]
    if parts and missing:
        say(f"resuming: {len(parts)} of {plural(work.parts, 'part')} of the split {work.split.name} are there")
    cluster = elsewhere() if missing else None
    computed = here(work, missing, cores()) if cluster is None else cluster.compute(work, missing)
    with closing(computed):
        for part in told(computed, work, missing):
            _refuse_bad(work, part)
            folder.add(part)
            parts[part.number] = part
    bad = _bad_images(work, [parts[number].errors for number in range(work.parts)])
    if len(bad) == len(work.split):
        raise _no_features(work, 0, bad[0].reason)
    found = np.concatenate([part.features for number in range(work.parts) if len((part := parts[number]).features)])
    return found, bad, not missing


def _job(work: Work, network: str) -> dict[str, Any]:
    """What decides the features, as plain JSON."""
    run = work.trained.run
    images = run.data.image_size, work.split.formats, work.split.max_pixels
    planes = [] if work.split.planes == RGB else list(astuple(work.split.planes))
    return {
        "network": network,
        "model": flow(run.model.model_dump(mode="json", exclude={"weights"})),
        "layer": work.layer,
        "augment": flow([run.augment.model_dump(mode="json", include={"eval", "mean", "std"}), run.task.name]),
        "images": flow([images[0], list(images[1]), images[2], *planes]),
        "samples": _samples(work.split),
        "batch": work.batch,
        "part_rows": work.part_rows,
        "device": work.device,
        "precision": work.precision,
        "threads": run.scale.threads,
        "libraries": flow([version(name) for name in ("torch", "torchvision", "pillow", "numpy")]),
        "code": _code(work.workdir),
    }


def _samples(split: Split) -> str:
    """sha256 over the names of the samples and what they hold; of many files, over their sizes and times of change."""
    if isinstance(split.reader, Files) and len(split) > MOST_SAMPLES:
        return Inputs(split.keys, split.reader).fingerprint()
    held = digests(split, np.arange(len(split))).tobytes()
    return samples.digest_of((*split.keys.digest_parts(), held))


def _code(workdir: str) -> str:
    """sha256 over the files of the working directory that are imported: plug-ins, and what they import of it.

    The network and the operations have been built when this is asked.
    """
    digest, root, own = hashlib.sha256(), Path(workdir), Path(raycls.__file__).parent
    files = {Path(file) for module in list(sys.modules.values()) if (file := getattr(module, "__file__", None))}
    for file in sorted(files):
        local = file.is_relative_to(root) and not file.is_relative_to(own) and "site-packages" not in file.parts
        if local and file.is_file():
            digest.update(str(file.relative_to(root)).encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _refuse_bad(work: Work, part: Part) -> None:
    start = part.number * work.part_rows
    for place, error in enumerate(part.errors):
        if error is not None and (work.trained.run.data.on_bad_image == "error" or _bad(work, start + place) is None):
            raise _no_features(work, start + place, error)
    finite = np.isfinite(part.features).all(axis=1)
    if not finite.all():
        raise ModelError(
            "the network gives features that are not finite",
            where=work.split.locate(start + int(np.argmin(finite))),
            fix="probe other weights: these are not those of a network that works",
        )


def _no_features(work: Work, row: int, error: str) -> DataError:
    fix = work.split.without(row).removeprefix("or ")
    found = DataError("a sample has no features", where=work.split.locate(row), found=error, fix=fix)
    return found if work.trained.run.data.on_bad_image == "skip" or _bad(work, row) is None else or_skip(found)


def _bad_images(work: Work, errors: Sequence[Sequence[str | None]]) -> list[Bad]:
    """Of the samples without features, whose `errors` of each part are known to be those of bad images."""
    rows = [row for row, error in enumerate(chain.from_iterable(errors)) if error is not None]
    return [bad for row in rows if (bad := _bad(work, row)) is not None]


def _bad(work: Work, row: int) -> Bad | None:
    """The sample at `row`, made again, where it is a bad image."""
    try:
        work.trained.sample(work.trained.arrays(), work.split, row)
    except BadImageError as error:
        return Bad.of(error, row, row, work.split, row)
    except DataError:
        return None
    return None
