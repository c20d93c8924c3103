"""The run folder of a network that was made from another one, pruned or averaged: complete when its `result.json` is
there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from raycls.config import load as config
from raycls.config.sections.model import ModelConfig
from raycls.errors import ConfigError
from raycls.run.folder import RunFolder
from raycls.run.model_file import write_model
from raycls.run.storage.store import Store
from raycls.session.data.preprocessing import preprocessing_of
from raycls.session.trained.result import write_result
from raycls.session.trained.trained import Trained
from raycls.tasks.base import Task

__all__ = ["FACTS", "Kind", "Place", "check_network", "place_of", "write"]

Kind = Literal["pruned", "averaged"]

FACTS: Mapping[Kind, str] = {"pruned": "prune.json", "averaged": "average.json"}
"""What such a run comes from and what was measured: written first, so that a folder without a `result.json` that has
it is known for one that was not finished."""


@dataclass(frozen=True)
class Place:
    """Where a pruned or an averaged run goes."""

    folder: RunFolder
    name: str
    storage: str
    """What `run.storage` says: the folder or URI around it."""
    kind: Kind
    """For messages and for what is written of the weights."""

    def check(self) -> None:
        """ConfigError where something else is there."""
        store = self.folder.store
        store.check()
        if store.exists(RunFolder.RESULT) or (store.list() and not store.exists(FACTS[self.kind])):
            raise ConfigError(
                f"there is something in the folder of the {self.kind} run",
                where=store.describe(),
                found=", ".join(sorted(store.list())[:5]),
                valid="a folder that is empty or not there",
                fix="give another one with --out, or move this one away",
            )


def place_of(trained: Trained, out: str | None, kind: Kind) -> Place:
    """The folder `out`, or by default NAME-`kind` beside the run. ConfigError where its name cannot be a run's."""
    if out is None:
        first = trained.folder.store
        store = first.sibling(f"{first.place[1]}-{kind}")
    else:
        store = Store(out)
    storage, name = store.place
    try:
        trained.run.run.model_validate({"name": name, "storage": storage})
    except ValueError as error:
        raise ConfigError(
            f"the folder of the {kind} run has a name that no run can have",
            where="--out",
            found=name,
            valid="letters, digits, dots, dashes and underscores, of which the first is a letter or digit",
            fix="give another folder with --out",
        ) from error
    return Place(RunFolder(store), name, storage, kind)


def check_network(trained: Trained, task: Task, kind: Kind) -> None:
    """ConfigError where the network of `task`, that of the run, is more than what the config names."""
    if type(task).network is not Task.network:
        raise ConfigError(
            f"only the network that the config names can be {kind}, not what a task puts around it",
            where="task.name",
            found=trained.run.task.name,
            valid="a run that starts with the weights of this one (model.weights) and trains a classifier",
        )


def write(
    trained: Trained, place: Place, model: ModelConfig, tensors: dict[str, Tensor], facts: dict[str, Any]
) -> None:
    """Write the run: as the first one was, with the new network, and with its weights to start from."""
    first, folder, run = trained.folder, place.folder, trained.run
    section = model.model_copy(update={"weights": folder.store.address(RunFolder.WEIGHTS)})
    named = run.run.model_copy(update={"name": place.name, "storage": place.storage})
    changed = run.model_copy(update={"run": named, "model": section})
    folder.write_json(FACTS[place.kind], facts)
    for name in (RunFolder.ENV, RunFolder.PLAN, RunFolder.SPLITS):
        data = first.store.find_bytes(name)
        if data is not None:
            folder.store.write_bytes(name, data)
    folder.store.write_bytes(RunFolder.CONFIG, config.to_yaml(changed).encode())
    weights = {"name": place.kind, "step": trained.weights.step, "reason": f"{place.kind} from {trained.name}"}
    write_model(
        folder,
        tensors,
        classes=trained.classes,
        preprocessing=preprocessing_of(run),
        config=section.model_dump(mode="json"),
        weights=weights,
    )
    write_result(folder, trained.plan, asked=run.evaluate.keep, weights=weights, seconds=0.0)
