"""The gate: the same image files through the run's own decoder and network, and through the artefact."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from raycls.export.artefact import Artefact
from raycls.export.pictures import Pictures
from raycls.progress import counted
from raycls.quantities import plural
from raycls.session.trained.answers import probabilities
from raycls.session.trained.trained import Network

__all__ = ["Comparison", "Gate", "Reference", "compare", "reference_of"]

_BATCH = 32
_TIE = 1e-6
"""Two classes whose probabilities differ by less in the run's own answer are one as far as float32 can tell."""


@dataclass(frozen=True)
class Reference:
    """What the run says of some pictures."""

    pictures: Pictures
    probabilities: np.ndarray
    """`[N, C] float64`."""


@dataclass(frozen=True)
class Gate:
    """What an artefact has to keep. None: not asked."""

    agreement: float | None
    """Least share of images with the same top-1 class."""
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
    """Share of images with the same top-1 class."""
    difference: float
    """The largest absolute difference of a probability, over images and classes."""
    mean_difference: float
    """The mean over images of the largest absolute difference of a probability."""
    accuracy: float
    """Top-1 of the trained network on these images."""
    artefact_accuracy: float
    worst: str
    """The image with the largest difference."""
    differing: tuple[str, ...]
    """Up to ten images with another top-1 class."""

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
            found.append(f"top-1 agreement {self.agreement:.2%} is below {gate.agreement:.2%}")
        if gate.difference is not None and not self.difference <= gate.difference:
            found.append(f"the largest probability difference {self.difference:.2g} is above {gate.difference:g}")
        if gate.drop is not None and self.drop > gate.drop:
            found.append(f"the accuracy drop {self.drop:.2f} points is above {gate.drop:g}")
        return found


def reference_of(network: Network, pictures: Pictures) -> Reference:
    """What the run says of each picture: decoded, augmented and normalised as an evaluation does it."""
    doing = f"asking the run about {plural(len(pictures), 'image')}"
    said = [
        probabilities(network.rows_of([pictures.sample(row) for row in rows])["logits"])
        for rows in counted(_batches(pictures), doing, len(_batches(pictures)), "batches")
    ]
    return Reference(pictures, np.concatenate(said))


def compare(reference: Reference, artefact: Artefact) -> Comparison:
    """The same image files through the artefact, which is handed what its `preprocessing` asks for."""
    pictures, trained = reference.pictures, reference.probabilities
    doing = f"asking the file about {plural(len(pictures), 'image')}"
    said = [
        artefact.probabilities([_image(pictures, artefact, row) for row in rows])
        for rows in counted(_batches(pictures), doing, len(_batches(pictures)), "batches")
    ]
    exported = np.concatenate(said)
    apart = np.abs(trained - exported).max(1)
    apart[~np.isfinite(apart)] = np.inf
    first, second, labels, keys = trained.argmax(1), exported.argmax(1), pictures.labels, pictures.keys
    rows = np.arange(len(trained))
    same = (first == second) | (trained[rows, first] - trained[rows, second] < _TIE)
    return Comparison(
        images=len(pictures),
        data=pictures.told,
        agreement=float(same.mean()),
        difference=float(apart.max()),
        mean_difference=float(apart.mean()),
        accuracy=float((first == labels).mean()),
        artefact_accuracy=float((second == labels).mean()),
        worst=keys[int(apart.argmax())],
        differing=tuple(keys[int(row)] for row in np.flatnonzero(~same)[:10]),
    )


def _batches(pictures: Pictures) -> list[range]:
    return [range(start, min(start + _BATCH, len(pictures))) for start in range(0, len(pictures), _BATCH)]


def _image(pictures: Pictures, artefact: Artefact, row: int) -> np.ndarray:
    return pictures.image(row) if artefact.inside else pictures.sample(row)["image"]
