"""`raycls folds`: how far a cross-validation is, and what it says."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from raycls.cli.command import AsJson, load_config, out_file
from raycls.cli.run_argument import parted, run_folder
from raycls.config.write import word
from raycls.errors import EXIT_DONE, EXIT_STOPPED, ConfigError

__all__ = ["register"]

_CONFIGS = (".yaml", ".yml")


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(folds)


def folds(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="Runs of the folds, folders or names below runs/; or their config, a YAML file, with the overrides "
            "that they were trained with. The other folds are found beside these, or in run.storage.",
        ),
    ],
    out: Annotated[str | None, typer.Option(metavar="FILE", help="Write a page too, an HTML file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Sum up a cross-validation (data.fold): the state and metrics of every fold, their mean and its interval.

    Ends with exit code 4 where a fold is not done, and says what trains it.
    """
    names, overrides = parted(runs)
    if not names:
        raise ConfigError("there is no RUN", valid="the run of a fold, or the config of all of them")
    file = None if out is None else out_file(out, ".html", "the page is an HTML file")
    from raycls.cli.init import write
    from raycls.report.folds import beside, folds_of, page
    from raycls.report.runs import tell
    from raycls.run import strict_json
    from raycls.run.folder import RunFolder
    from raycls.screen.trained.folds_text import folds_lines

    if len(names) == 1 and names[0].endswith(_CONFIGS) and os.path.isfile(names[0]):
        config, given = load_config(names[0], list(overrides)).run, []
        source = " ".join(map(word, (names[0], *overrides)))
    elif overrides:
        raise ConfigError("options belong to a config, and a run has its own", found=" ".join(overrides))
    else:
        given = [tell(RunFolder(run_folder(name))) for name in names]
        config, source = given[0].config, word(_shown(given[0].folder.store.address(RunFolder.CONFIG)))
    found = folds_of(config, source, beside(config, given) if config.data.fold.of != "off" else given)
    facts = found.facts()
    if file is not None:
        write(page(found, ", ".join(names)).decode(), file)
    lines = [*folds_lines(facts), *([] if file is None else ["", f"wrote {file}"])]
    typer.echo(strict_json.dumps(facts) if as_json else "\n".join(lines))
    raise typer.Exit(EXIT_DONE if found.complete else EXIT_STOPPED)


def _shown(address: str) -> str:
    """A path from the working directory where it is below it."""
    below = "://" not in address and Path(address).is_relative_to(Path.cwd())
    return os.path.relpath(address) if below else address
