"""`raycls probe`: what the features of a network are worth, by a linear head on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from raycls.cli.command import AsJson, Overrides, join, load_config, prepare, say, typed
from raycls.cli.run_argument import run_folder
from raycls.config.names.recipes import PREFIX

if TYPE_CHECKING:
    from collections.abc import Set

    from raycls.config.load import Loaded
    from raycls.config.sections.run import Run
    from raycls.run.folder import RunFolder

__all__ = ["register"]

_NAME = "-probe"
_GRID = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(probe)


def probe(
    of: Annotated[
        str,
        typer.Argument(
            metavar="RUN|CONFIG", help="A run folder or its name; or a YAML file, whose model.weights are probed."
        ),
    ],
    overrides: Overrides = None,
    weight_decay: Annotated[
        list[float] | None,
        typer.Option(min=1e-12, metavar="NUMBER", help="Instead of 1, 0.1 ... 1e-6; may be repeated."),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="The most passes over the features per weight decay.")] = 500,
    new: Annotated[bool, typer.Option("--new", help="Start anew; the earlier probe is set aside.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a linear head on the features of a network that stays as it is, and write both as a run.

    Features are extracted once, with the operations of evaluation, and kept. The weight decay is chosen on the
    validation split. The run is NAME-probe unless run.name is given.
    """
    config = of.endswith((".yaml", ".yml")) or of.startswith(PREFIX)
    folder = None if config else run_folder(of)
    # nothing is trained in micro-batches, so they bound no number of workers
    words = [*(overrides or ()), "train.micro_batches=auto"]
    loaded = load_config(of, words) if folder is None else _config_of(folder, words)
    prepare()
    from raycls.run import strict_json
    from raycls.run.folder import RunFolder
    from raycls.screen.trained.probe_text import probe_lines
    from raycls.screen.working import Working
    from raycls.session.probing.probe import Grid, probed
    from raycls.session.probing.probe import probe as probe_run

    for note in loaded.notes:
        say(note)
    home = None if folder is None else RunFolder(folder)
    run = _renamed(loaded.run, home, {each.partition("=")[0] for each in overrides or ()})
    grid = Grid(tuple(dict.fromkeys(weight_decay or _GRID)), epochs)
    with Working("starting") as working:
        facts = probe_run(probed(run, home), grid, of=home, new=new, command=typed(), join=join, say=working.lines)
    typer.echo(strict_json.dumps(facts) if as_json else "\n".join(probe_lines(facts)))


def _renamed(run: Run, home: RunFolder | None, given: Set[str]) -> Run:
    """The run under the name of the probe, beside the run that is probed, where options `given` do not say other."""
    storage, name = (run.run.storage, run.run.name) if home is None else home.store.place
    storage = run.run.storage if "run.storage" in given else storage
    name = run.run.name if "run.name" in given else f"{name[: 128 - len(_NAME)]}{_NAME}"
    return run.model_copy(update={"run": run.run.model_copy(update={"name": name, "storage": storage})})


def _config_of(folder: str, overrides: list[str]) -> Loaded:
    from raycls.config.load import load_text
    from raycls.names import name_problems
    from raycls.run.folder import RunFolder

    store = RunFolder(folder)
    store.store.check()
    where = store.store.describe(RunFolder.CONFIG)
    return load_text(store.read_config(), where, overrides, names=name_problems)
