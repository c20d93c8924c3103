"""`model/temperature.json`: what the logits of the kept weights are divided by to be probabilities that hold.

`raycls eval RUN --calibrate` writes it; who gives probabilities of the run applies it where the user asks for it, as
with `--calibrated`. It belongs to the weights whose sha256 it names; other weights have none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raycls.errors import CheckpointError, ConfigError
from raycls.run.folder import RunFolder
from raycls.run.kept import Weights
from raycls.run.model_file import sha256_of

__all__ = ["FILE", "fitted_temperature", "temperature_of", "write_temperature"]

FILE = "model/temperature.json"


def temperature_of(folder: RunFolder, weights: Weights) -> float:
    """The temperature of these weights; 1.0 where none was fitted, or one for others. CheckpointError: no number."""
    found = folder.read_json(FILE)
    if found is None or weights.checkpoint or found.get("sha256") != sha256_of(folder):
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


def fitted_temperature(folder: RunFolder, weights: Weights) -> float:
    """`temperature_of`; ConfigError where none was fitted for these weights."""
    found = temperature_of(folder, weights)
    if found == 1.0:
        raise ConfigError(
            "no temperature was fitted for these weights",
            where="--calibrated",
            found=f"{folder.store.describe(FILE)} is of others, or not there",
            fix="fit one with raycls eval RUN --calibrate, or leave out --calibrated",
        )
    return found


def write_temperature(folder: RunFolder, temperature: float, facts: Mapping[str, Any]) -> None:
    """Write it for the weights that `model/` holds. `facts` say what it was fitted on and what it did."""
    folder.write_json(FILE, {"format": 1, "temperature": temperature, "sha256": sha256_of(folder), **facts})
