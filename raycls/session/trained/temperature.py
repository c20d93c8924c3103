"""`model/temperature.json`: what the logits of the kept weights are divided by to be probabilities that hold.

`raycls eval RUN --calibrate` writes it; who gives probabilities of the run applies it where the user asks for it, as
with `--calibrated`. It belongs to the weights whose sha256 it names; other weights have none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raycls.errors import CheckpointError
from raycls.run.folder import RunFolder
from raycls.run.kept import Weights

__all__ = ["FILE", "temperature_of", "write_temperature"]

FILE = "model/temperature.json"


def temperature_of(folder: RunFolder, weights: Weights) -> float:
    """The temperature of these weights; 1.0 where none was fitted, or one for others. CheckpointError: no number."""
    found = folder.read_json(FILE)
    if found is None or weights.checkpoint or found.get("sha256") != _sha256(folder):
        return 1.0
    value = found.get("temperature")
    if type(value) not in (int, float) or not value > 0:
        raise CheckpointError(
            "the temperature of the run is no number above 0",
            where=folder.store.describe(FILE),
            found=repr(value),
            fix="delete the file, or fit it anew: raycls eval RUN --calibrate",
        )
    return float(value)


def write_temperature(folder: RunFolder, temperature: float, facts: Mapping[str, Any]) -> None:
    """Write it for the weights that `model/` holds. `facts` say what it was fitted on and what it did."""
    folder.write_json(FILE, {"format": 1, "temperature": temperature, "sha256": _sha256(folder), **facts})


def _sha256(folder: RunFolder) -> str:
    return (folder.read_json(folder.MODEL_INFO) or {}).get("sha256", "")
