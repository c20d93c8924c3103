"""A trained network that another one learns from: found, built, and asked about the other one's images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor, nn
from torchvision.models import WeightsEnum

from raycls.config.load import load_text
from raycls.config.paths import expand
from raycls.config.sections.data import AugmentConfig
from raycls.config.sections.model import ModelConfig
from raycls.config.sections.run import RunSection
from raycls.config.sections.types import named
from raycls.config.write import override
from raycls.errors import ModelError
from raycls.models import zoo
from raycls.models.heads import rows_by_name
from raycls.models.networks.timm_models import Preprocessing
from raycls.models.surgery import restore
from raycls.progress import progress
from raycls.run.folder import RunFolder
from raycls.run.model_file import read_model
from raycls.workdir import workdir

__all__ = ["Images", "Teacher", "open_teacher"]

_WHERE = "task.args.teacher"
_OTHERWISE = ("multilabel", "simclr", "moco", "segmentation", "volume_segmentation")
"""Tasks whose logits are no softmax over the classes of one label."""
_SEED = 0
"""Of the weights that are replaced by those of the file."""


@dataclass(frozen=True)
class Images:
    """How images come to a network."""

    mean: Sequence[float]
    """Of each channel, in 0..1, as is `std`."""
    std: Sequence[float]
    size: tuple[int, int] | None = None
    """Height and width; None where it takes images as they come."""


@dataclass(frozen=True)
class Teacher:
    """A network in evaluation mode, without gradients. It is no part of the network that is trained."""

    network: nn.Module
    outputs: tuple[int, ...]
    """Which of its outputs is which class of the data, in the data's order."""
    known: int
    """How many classes it knows, the data's among them."""
    images: Images
    facts: Mapping[str, Any]
    """Which one it is, as plain JSON: `sha256` of its weights among it."""
    notes: tuple[str, ...]
    """Lines about it for the user."""

    @torch.no_grad()
    def logits(self, images: Tensor, given: Images) -> Tensor:
        """`[B, classes] float32` in the data's order, for `[B, 1 or 3, H, W]`, normalised as `given` says.

        They are normalised and resized (bilinear, antialiased) as the teacher's own were, where that differs. Both are
        linear, so images that were mixed before stay mixed.
        """
        if (tuple(given.mean), tuple(given.std)) != (tuple(self.images.mean), tuple(self.images.std)):
            ours, theirs = (torch.tensor([each.mean, each.std], dtype=torch.float64) for each in (given, self.images))
            scale, shift = ours[1] / theirs[1], (ours[0] - theirs[0]) / theirs[1]
            scale, shift = (value.to(images.device, images.dtype).view(1, -1, 1, 1) for value in (scale, shift))
            images = images * scale + shift
        if self.images.size not in (None, tuple(images.shape[2:])):
            images = F.interpolate(images, self.images.size, mode="bilinear", antialias=True)
        logits = self.network(images).float()
        return logits if self.outputs == tuple(range(logits.shape[1])) else logits[:, list(self.outputs)]


def open_teacher(
    given: str | Mapping[str, Any],
    classes: Sequence[str],
    images: Images,
    device: torch.device,
    layout: torch.memory_format,
) -> Teacher:
    """The teacher that `task.args.teacher` names, for data with these `classes`, on `device`.

    A text is a run folder (a path or a URI) whose `model/` is read, or the weights file in there. A mapping is a
    `model` section with weights: `{name: resnet50, weights: FILE}`; `images` are the data's own, which hold for weights
    that say nothing about theirs. Raises ModelError where there is none, or where it does not know every class.
    """
    made = _of_run(given, classes, images) if isinstance(given, str) else _of_model(given, classes, images)
    made.network.requires_grad_(False).eval()
    made.network.to(device=device, memory_format=layout)  # pyright: ignore[reportCallIssue]
    return made


def _of_run(given: str, classes: Sequence[str], images: Images) -> Teacher:
    folder = _folder(given)
    progress(f"reading the teacher, {folder.store.describe()}")
    tensors, info = read_model(folder)
    if folder.store.exists(RunFolder.CONFIG):
        task = load_text(folder.read_config(), folder.store.describe(RunFolder.CONFIG)).run.task.name
        if task in _OTHERWISE:
            raise ModelError(
                "the teacher does not say which one class an image has",
                where=_WHERE,
                found=f"{folder.store.describe()}, a run with task.name {task}",
                valid="a run of classification or distillation",
            )
    config = ModelConfig.model_validate_json(json.dumps(info["config"]))
    _check_channels(config.in_channels, images)
    names = info["classes"]
    rows = rows_by_name(len(names), names, len(classes), classes)
    if rows.of is None or None in rows.of:
        lacking = [name for number, name in enumerate(classes) if rows.of is None or rows.of[number] is None]
        raise ModelError(
            "the teacher does not know every class of the data",
            where=_WHERE,
            found=f"without {', '.join(lacking[:5])}{' ...' if len(lacking) > 5 else ''}",
            valid=f"a teacher that was trained on {', '.join(classes[:5])}{' ...' if len(classes) > 5 else ''}",
        )
    network = zoo.build(config, len(names), _SEED, load=False)
    try:
        restore(network, tensors)
    except RuntimeError as error:
        raise ModelError(
            "the teacher is no classifier: its weights are not those of its network alone",
            where=_WHERE,
            found=f"{folder.store.describe()}: {str(error).splitlines()[-1].strip()[:200]}",
            valid="a run that trained a classifier",
        ) from error
    kept = info.get("weights") or {}
    facts = {"run": folder.store.describe(), "weights": kept.get("name"), "sha256": info["sha256"]}
    extra = len(names) - len(classes)
    note = f"teacher: {config.name} of {folder.store.describe()}, {kept.get('name') or 'kept'} weights"
    note += f"; {extra} of its classes are not the data's and left out" if extra else ""
    outputs = tuple(place for place in rows.of if place is not None)
    return Teacher(network, outputs, len(names), _images(info, images), facts, (note,))


def _of_model(given: Mapping[str, Any], classes: Sequence[str], images: Images) -> Teacher:
    try:
        config = ModelConfig.model_validate(dict(given))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ModelError(
            "the teacher is no model section",
            where=".".join([_WHERE, *map(str, first["loc"])]),
            found=str(first["msg"]),
            valid="a run folder, or {name: MODEL, weights: FILE, args: {...}} as in the section model",
        ) from error
    if config.weights is None:
        raise ModelError(
            "the teacher has no weights: it would teach noise",
            where=f"{_WHERE}.weights",
            valid="a file, or the name of published weights",
        )
    _check_channels(config.in_channels, images)
    progress(f"reading the teacher, {config.name}")
    network = zoo.build(config, len(classes), _SEED, load=False)
    loaded = zoo.load(config, network, classes)
    if loaded.anew:
        raise ModelError(
            "the teacher does not know every class of the data: rows of its head start anew",
            where=_WHERE,
            found="; ".join(loaded.notes),
            valid=f"weights for {', '.join(classes[:5])}{' ...' if len(classes) > 5 else ''}",
        )
    facts = {"model": config.name, "weights": config.weights, "sha256": _sha256(network)}
    brought = loaded.preprocessing
    if isinstance(brought, WeightsEnum):
        shown = brought.transforms()
        images = _as_taken(shown.mean, shown.std, (shown.crop_size[0], shown.crop_size[0]), images)
    elif brought is not None:
        written = brought.written(brought.image_size) if isinstance(brought, Preprocessing) else brought
        images = _images({"preprocessing": written}, images)
    return Teacher(
        network, tuple(range(len(classes))), len(classes), images, facts, (f"teacher: {config.name}", *loaded.notes)
    )


def _folder(given: str) -> RunFolder:
    name = given.removesuffix("/").removesuffix(f"/{RunFolder.WEIGHTS}")
    folder = RunFolder(name if "://" in name else Path(workdir(), expand(name, where=_WHERE)))
    folder.store.check()
    if not folder.store.exists(RunFolder.CONFIG) and not folder.store.exists(RunFolder.WEIGHTS):
        of_run = Path(RunSection().storage, name)
        known = "://" not in name and Path(workdir(), of_run, RunFolder.WEIGHTS).is_file()
        raise ModelError(
            "the teacher is not there",
            where=_WHERE,
            found=folder.store.describe(),
            valid="a run folder (a path or a URI), or {name: MODEL, weights: FILE}",
            fix=override(_WHERE, str(of_run)) if known else None,
        )
    return folder


def _images(info: Mapping[str, Any], student: Images) -> Images:
    """From what `model.json` says about the images of a run."""
    told = info["preprocessing"]
    return _as_taken(told["mean"], told["std"], _size(told.get("eval"), told["image_size"]), student)


def _as_taken(mean: Sequence[float], std: Sequence[float], size: tuple[int, int] | None, student: Images) -> Images:
    """`mean` and `std`, of RGB or of grey, for as many channels as the images of the `student` have."""
    augment = AugmentConfig(mean=tuple(mean), std=tuple(std))
    return Images(*augment.normalisation(len(student.mean)), size)


def _check_channels(found: int, student: Images) -> None:
    if found != len(student.mean):
        raise ModelError(
            "the teacher takes images of another number of channels than the network that learns from it",
            where=_WHERE,
            found=f"model.in_channels {found} of the teacher, {len(student.mean)} here",
            valid="the same for both",
        )


def _size(operations: Sequence[Any] | None, image_size: int) -> tuple[int, int] | None:
    """Height and width after the last operation that decides them; None where none does."""
    if operations is None:
        return image_size, image_size
    for entry in reversed(operations):
        name, arguments = named(entry)
        if name in ("center_crop", "resize"):
            size = arguments.get("size") or image_size
            sides = [size] if isinstance(size, int) else [*size]
            exact = name == "center_crop" or arguments.get("fit", "side") != "side"
            return (sides[0], sides[-1]) if exact or len(sides) == 2 else None
    return None


def _sha256(network: nn.Module) -> str:
    """Of all weights and buffers with their names, kinds and shapes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
