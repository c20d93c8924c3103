"""`model/crf.json`: the parameters of the CRF that is joined to the masks of a run, fitted on its validation split.

`raycls eval RUN --crf` fits and writes it; `raycls predict RUN ... --crf` reads it. It belongs to the weights whose
sha256 it names, and says on which samples it was fitted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from raycls.data.making.sample import collate
from raycls.data.samples import digest_of
from raycls.data.source import Split
from raycls.errors import CheckpointError, ConfigError, DataError
from raycls.progress import counted
from raycls.quantities import plural
from raycls.run.folder import RunFolder
from raycls.run.model_file import sha256_of
from raycls.session.trained.trained import Network, Trained
from raycls.tasks.crf.dense import Crf, normal
from raycls.tasks.crf.fitted import Case, fitted
from raycls.train.precision import arithmetic

__all__ = ["FILE", "fit_crf", "kept_crf"]

FILE = "model/crf.json"
_MOST = 32
"""Samples that are fitted on at most, evenly spread over the split: all of them are held in memory."""


def kept_crf(trained: Trained) -> dict[str, Any]:
    """What `fit_crf` wrote for these weights. ConfigError where it wrote nothing."""
    found = trained.folder.read_json(FILE)
    if found is None or trained.weights.checkpoint or found.get("sha256") != sha256_of(trained.folder):
        raise ConfigError(
            "no CRF was fitted for these weights",
            where="--crf",
            found=f"{trained.folder.store.describe(FILE)} is of others, or not there",
            fix="fit one with raycls eval RUN --crf, or leave out --crf",
        )
    return _checked(trained.folder, found)


def fit_crf(trained: Trained, split: Split, say: Callable[[str], None]) -> dict[str, Any]:
    """The parameters that raise the Dice of `split`, the validation split, most: as JSON, kept in the run folder.

    Those that are there already are taken where the weights and the split are the same. DataError where no sample of
    the split can be read.
    """
    rows = np.arange(min(_MOST, len(split))) * len(split) // min(_MOST, len(split))
    mark = digest_of((*split.keys.digest_parts(), rows.astype("<i8").tobytes()))
    folder = trained.folder
    found = folder.read_json(FILE)
    if found is not None and (found.get("sha256"), found.get("samples")) == (sha256_of(folder), mark):
        say(f"crf: the parameters that were fitted before, of {FILE}")
        return _checked(folder, found)
    with arithmetic(threads=trained.run.scale.threads, strict=trained.plan.reduction == "exact"):
        best = fitted(_cases(trained, split, rows.tolist()))
    facts = {
        "format": 1,
        "crf": asdict(best.crf),
        "sha256": sha256_of(folder),
        "split": split.name,
        "count": len(rows),
        "samples": mark,
        "dice": {"with": best.score, "without": best.without},
        "tried": best.tried,
    }
    folder.write_json(FILE, facts)
    say(
        f"crf: fitted on {plural(len(rows), 'sample')} of the split {split.name}, {best.tried} settings: Dice of all "
        f"their voxels {best.without:.4f} without and {best.score:.4f} with it"
    )
    return facts


def _cases(trained: Trained, split: Split, rows: list[int]) -> list[Case]:
    network, arrays = Network(trained, torch.device("cpu")), trained.arrays()
    task: Any = network.task
    found: list[Case] = []
    for row in counted(rows, "asking the network about the split val", len(rows), "images"):
        try:
            sample = trained.sample(arrays, split, row)
        except DataError:
            if trained.run.data.on_bad_image == "skip":
                continue
            raise
        maps = torch.from_numpy(network.maps_of([sample])[0])
        batch = task.batch(collate([sample], split.locate), train=False)
        spacing = tuple(batch.spacing[0].double().tolist())
        found.append(Case(normal(maps), task.levels(batch)[0], batch.codes[0].long() - 1, spacing))
    if not found:
        raise DataError("no sample can be read to fit a CRF on", where=f"split {split.name}", fix="restore its files")
    return found


def _checked(folder: RunFolder, found: dict[str, Any]) -> dict[str, Any]:
    try:
        Crf(**found["crf"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            "the parameters of the CRF cannot be read",
            where=folder.store.describe(FILE),
            found=str(error),
            fix="delete the file, and fit them anew: raycls eval RUN --crf",
        ) from error
    return found
