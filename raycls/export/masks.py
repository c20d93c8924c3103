"""The gate of a network whose answers are masks: the same samples through the run and through the artefact."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from raycls.errors import DataError
from raycls.export.artefact import Artefact
from raycls.export.compare import Comparison, given_to
from raycls.export.pictures import Pictures
from raycls.progress import counted
from raycls.quantities import plural
from raycls.session.trained.trained import Network
from raycls.tasks.segmentation.cases import dice_of, macro_dice

__all__ = ["Maps", "compare_masks"]

_TIE = 1e-6
"""As in `raycls.tasks.reading`: probabilities that differ by less are one."""


class Maps(nn.Module):
    """A network as a graph has it: one tensor out, also of those that give several by name."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        found = self.model(images)
        return found["out"] if isinstance(found, Mapping) else found


def compare_masks(network: Network, pictures: Pictures, artefact: Artefact) -> Comparison:
    """`agreement` is the share of pixels (voxels) with the same class, over all samples; `accuracy` the Dice: the mean
    over samples of each class, and over the classes but the first. One sample is held at a time."""
    doing = f"comparing the file with the run on {plural(len(pictures), 'image')}"
    apart: list[float] = []
    same: list[tuple[int, int]] = []
    dice: tuple[list[list[float]], list[list[float]]] = [], []
    for row in counted(range(len(pictures)), doing, len(pictures), "images"):
        sample = pictures.sample(row)
        given = given_to(artefact, pictures, row, sample)
        _refuse_other_size(artefact, given, pictures.keys[row])
        trained = _probabilities(network.maps_of([sample])[0])
        exported = artefact.probabilities([given])[0].astype(np.float64)
        difference = float(np.abs(trained - exported).max())
        apart.append(difference if np.isfinite(difference) else np.inf)
        agree = np.take_along_axis(trained, exported.argmax(0)[None], 0)[0] >= trained.max(0) - _TIE
        same.append((int(agree.sum()), agree.size))
        for each, maps in zip(dice, (trained, exported), strict=True):
            each.append(dice_of(sample["mask"], maps.argmax(0), len(trained)))
    keys = pictures.keys
    whole = np.array(same)
    return Comparison(
        images=len(pictures),
        data=pictures.told,
        agreement=float(whole[:, 0].sum() / whole[:, 1].sum()),
        difference=max(apart),
        mean_difference=float(np.mean(apart)),
        accuracy=macro_dice(np.array(dice[0]), 1),
        artefact_accuracy=macro_dice(np.array(dice[1]), 1),
        worst=keys[int(np.argmax(apart))],
        differing=tuple(keys[row] for row, (right, of) in enumerate(same) if right < of)[:10],
        metric="dice",
    )


def _refuse_other_size(artefact: Artefact, given: np.ndarray, key: str) -> None:
    """DataError where a sample is not of the one size that the file takes."""
    size = artefact.preprocessing["network_size"]
    found = list(given.shape[1:] if given.ndim == 4 else given.shape[:2])
    if found != size:
        raise DataError(
            "an exported network of masks takes one size, and the samples to compare it on have several",
            where=key,
            found=f"{found}, and {size} of the first one",
            valid="samples of one size",
            fix="train with operations that make one size in augment.eval: resize, center_crop or pad",
        )


def _probabilities(maps: np.ndarray) -> np.ndarray:
    return torch.from_numpy(maps).double().softmax(0).numpy()
