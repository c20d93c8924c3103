"""Where an artefact goes: beside its run, or to a file that the user names. It appears when it is complete."""

from __future__ import annotations

from raycls.errors import ConfigError
from raycls.export.export import REJECTED, Exported, Wanted
from raycls.run.folder import RunFolder
from raycls.run.storage.store import Store
from raycls.session.trained.trained import Trained
from raycls.tasks.build import gives_masks, takes_volumes

__all__ = ["inside_of", "place_of", "put"]


def inside_of(trained: Trained, preprocess: str | None, *, triton: bool) -> bool:
    """Whether the artefact preprocesses its images itself, of what `--preprocess` says. ConfigError where a model
    repository of Triton is asked for and the run takes volumes or gives masks."""
    task = trained.run.task
    images = not (takes_volumes(task) or gives_masks(task))
    if triton and not images:
        raise ConfigError(
            "a model repository of Triton is written for classes of images",
            where="--to triton",
            found=f"task.name: {task.name}",
            fix="export one file with --to=onnx, and write its config.pbtxt yourself",
        )
    return images if preprocess is None else preprocess == "inside"


def place_of(trained: Trained, wanted: Wanted, out: str | None) -> tuple[Store, str]:
    """The folder, local or not, and the name of the artefact without its suffix. ConfigError for another suffix."""
    if out is None:
        outside = "" if wanted.inside else "-outside"
        return trained.folder.store.sub(RunFolder.EXPORT), f"{trained.run.run.name}-{wanted.precision}{outside}"
    store, name = Store.around(out)
    if not name.endswith(wanted.suffix) or name == wanted.suffix:
        raise ConfigError(
            "the name of the file does not say what it is",
            where="--out",
            found=out,
            valid=f"a path that ends with {wanted.suffix}",
        )
    return store, name.removesuffix(wanted.suffix)


def put(done: Exported, store: Store) -> str:
    """Copy what `done` wrote into `store`; returns where the file is, as a message shows it.

    A file that passed takes the place of an earlier one, and of an earlier rejected one. A rejected file leaves an
    earlier one that passed alone.
    """
    store.upload_file(done.path, done.path.name)
    store.upload_file(done.report, done.report.name)
    if done.passed:
        for old in (done.path.name + REJECTED, f"{done.path.name}{REJECTED}.json"):
            store.delete(old)
    return store.describe(done.path.name)
