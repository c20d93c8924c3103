"""The gate: the same image files through the run's own decoder and network, and through the artefact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from raycls.export.artefact import Artefact
from raycls.export.pictures import Pictures
from raycls.progress import counted
from raycls.quantities import plural
from raycls.session.trained.trained import Network
from raycls.tasks.reading import Reading

__all__ = ["Comparison", "Gate", "Reference", "compare", "given_to", "reference_of"]

_BATCH = 32


@dataclass(frozen=True)
class Reference:
    """What the run says of some pictures."""

    pictures: Pictures
    probabilities: np.ndarray
    """`[N, C] float64`."""
    thresholds: np.ndarray | None = None
    """`[C]`, from which on a class is one of an image that may have any number."""

    @property
    def reading(self) -> Reading:
        return self.pictures.trained.reading


@dataclass(frozen=True)
class Gate:
    """What an artefact has to keep. None: not asked."""

    agreement: float | None
    """Least share of images with the same top-1 class, or with the same classes where there may be any number."""
    difference: float | None
    """Largest difference of a probability."""
    drop: float | None
    """How much of the accuracy may be lost, in percentage points."""


@dataclass(frozen=True)
class Comparison:
    """An artefact beside the trained network."""

    images: int
    data: str
    agreement: float
    """Share of images with the same top-1 class, or with the same classes where there may be any number."""
    difference: float
    """The largest absolute difference of a probability, over images and classes."""
    mean_difference: float
    """The mean over images of the largest absolute difference of a probability."""
    accuracy: float
    """`metric` of the trained network on these images."""
    artefact_accuracy: float
    worst: str
    """The image with the largest difference."""
    differing: tuple[str, ...]
    """Up to ten images that do not agree."""
    metric: str = "top1"
    """What `accuracy` is: `top1`; `map`, the mean average precision, where an image may have any number of classes;
    `dice`, where the answers are masks, of which `agreement` counts pixels."""

    @property
    def drop(self) -> float:
        """Accuracy that the artefact lost, in percentage points; negative where it gained."""
        return 100 * (self.accuracy - self.artefact_accuracy)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "differing": list(self.differing), "drop": self.drop}

    def failures(self, gate: Gate) -> list[str]:
        """What of `gate` is not kept, in words."""
        found: list[str] = []
        if gate.agreement is not None and self.agreement < gate.agreement:
            what = {"top1": "top-1", "dice": "pixel"}.get(self.metric, "label set")
            found.append(f"{what} agreement {self.agreement:.2%} is below {gate.agreement:.2%}")
        if gate.difference is not None and not self.difference <= gate.difference:
            found.append(f"the largest probability difference {self.difference:.2g} is above {gate.difference:g}")
        if gate.drop is not None and self.drop > gate.drop:
            what = {"top1": "accuracy", "dice": "Dice"}.get(self.metric, "mAP")
            found.append(f"the {what} drop {self.drop:.2f} points is above {gate.drop:g}")
        return found


def reference_of(network: Network, pictures: Pictures, thresholds: np.ndarray | None = None) -> Reference:
    """What the run says of each picture: decoded, augmented and normalised as an evaluation does it."""
    doing = f"asking the run about {plural(len(pictures), 'image')}"
    said = [
        network.task.reading.probabilities(network.rows_of([pictures.sample(row) for row in rows])["logits"])
        for rows in counted(_batches(pictures), doing, len(_batches(pictures)), "batches")
    ]
    return Reference(pictures, np.concatenate(said), thresholds)


def compare(reference: Reference, artefact: Artefact) -> Comparison:
    """The same image files through the artefact, which is handed what its `preprocessing` asks for."""
    pictures, trained = reference.pictures, reference.probabilities
    doing = f"asking the file about {plural(len(pictures), 'image')}"
    said = [
        artefact.probabilities([given_to(artefact, pictures, row) for row in rows])
        for rows in counted(_batches(pictures), doing, len(_batches(pictures)), "batches")
    ]
    exported = np.concatenate(said)
    apart = np.abs(trained - exported).max(1)
    apart[~np.isfinite(apart)] = np.inf
    reading, truth, keys = reference.reading, pictures.truth, pictures.keys
    same = reading.same(trained, exported, reference.thresholds)
    return Comparison(
        images=len(pictures),
        data=pictures.told,
        agreement=float(same.mean()),
        difference=float(apart.max()),
        mean_difference=float(apart.mean()),
        accuracy=reading.scored(trained, truth),
        artefact_accuracy=reading.scored(exported, truth),
        worst=keys[int(apart.argmax())],
        differing=tuple(keys[int(row)] for row in np.flatnonzero(~same)[:10]),
        metric=reading.score,
    )


def _batches(pictures: Pictures) -> list[range]:
    return [range(start, min(start + _BATCH, len(pictures))) for start in range(0, len(pictures), _BATCH)]


def given_to(
    artefact: Artefact, pictures: Pictures, row: int, sample: Mapping[str, np.ndarray] | None = None
) -> np.ndarray:
    """What `artefact` is handed for one picture: its image, or what an evaluation makes of it (`sample`, where that is
    made already)."""
    if artefact.inside:
        return pictures.image(row)
    sample = pictures.sample(row) if sample is None else sample
    return sample["volume"] if "volume" in sample else sample["image"]
