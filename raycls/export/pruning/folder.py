"""The run folder of a pruned network: complete when its `result.json` is there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from raycls.config import load as config
from raycls.config.sections.model import ModelConfig
from raycls.errors import ConfigError
from raycls.run.folder import RunFolder
from raycls.run.model_file import write_model
from raycls.run.storage.store import Store
from raycls.session.data.preprocessing import preprocessing_of
from raycls.session.trained.trained import Trained

__all__ = ["FACTS", "Place", "place_of", "write"]

FACTS = "prune.json"
"""Where the pruned run comes from and what was measured: written first, so that a folder without a `result.json` that
has it is known for one that was not finished."""


@dataclass(frozen=True)
class Place:
    """Where a pruned run goes."""

    folder: RunFolder
    name: str
    storage: str
    """What `run.storage` says: the folder or URI around it."""

    def check(self) -> None:
        """ConfigError where something else is there."""
        store = self.folder.store
        store.check()
        if store.exists(RunFolder.RESULT) or (store.list() and not store.exists(FACTS)):
            raise ConfigError(
                "there is something in the folder of the pruned run",
                where=store.describe(),
                found=", ".join(sorted(store.list())[:5]),
                valid="a folder that is empty or not there",
                fix="give another one with --out, or move this one away",
            )


def place_of(trained: Trained, out: str | None) -> Place:
    """The folder `out`, or by default NAME-pruned beside the run. ConfigError where its name cannot be a run's."""
    if out is None:
        store = trained.folder.store
        name = f"{store.describe().rstrip('/').rpartition('/')[2]}-pruned"
        folder = RunFolder(store.sibling(name))
    else:
        folder = RunFolder(Store(out))
        name = folder.store.describe().rstrip("/").rpartition("/")[2]
    address, mark, options = folder.uri.partition("?")
    storage = f"{address.rpartition('/')[0]}{mark}{options}"
    try:
        trained.run.run.model_validate({"name": name, "storage": storage})
    except ValueError as error:
        raise ConfigError(
            "the folder of the pruned run has a name that no run can have",
            where="--out",
            found=name,
            valid="letters, digits, dots, dashes and underscores, of which the first is a letter or digit",
            fix="give another folder with --out",
        ) from error
    return Place(folder, name, storage)


def write(
    trained: Trained, place: Place, model: ModelConfig, tensors: dict[str, Tensor], facts: dict[str, Any]
) -> None:
    """Write the run: as the first one was, with the pruned network, and with its weights to start from."""
    first, folder, run = trained.folder, place.folder, trained.run
    section = model.model_copy(update={"weights": folder.store.address(RunFolder.WEIGHTS)})
    named = run.run.model_copy(update={"name": place.name, "storage": place.storage})
    changed = run.model_copy(update={"run": named, "model": section})
    folder.write_json(FACTS, facts)
    for name in (RunFolder.ENV, RunFolder.PLAN, RunFolder.SPLITS):
        data = first.store.find_bytes(name)
        if data is not None:
            folder.store.write_bytes(name, data)
    folder.store.write_bytes(RunFolder.CONFIG, config.to_yaml(changed).encode())
    weights = {"name": "pruned", "step": trained.weights.step, "reason": f"pruned from {trained.name}"}
    write_model(
        folder,
        tensors,
        classes=trained.classes,
        preprocessing=preprocessing_of(run),
        config=section.model_dump(mode="json"),
        weights=weights,
    )
    plan = trained.plan
    folder.write_json(
        RunFolder.RESULT,
        {
            "state": "done",
            "reason": "done",
            "step": plan.total_steps,
            "epochs": plan.epochs(plan.total_steps),
            "best": None,
            "final": None,
            "kept": {"asked": run.evaluate.keep, **weights},
            "seconds": 0.0,
        },
    )
