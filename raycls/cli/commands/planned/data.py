"""`raycls data check` and `raycls data show`: the data of a config, before anything is trained on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raycls.cli.command import AsJson, Overrides, asks_for_ray, join, load_config, out_file, prepare, say
from raycls.cli.run_argument import run_folder
from raycls.config.paths import expand
from raycls.errors import EXIT_DATA, EXIT_DONE
from raycls.quantities import plural

if TYPE_CHECKING:
    from raycls.session.checking.check import Checked

__all__ = ["register"]

Config = Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML file, or recipe:NAME for one of configs/.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    data = typer.Typer(help="Check and show the data of a config.", no_args_is_help=True, rich_markup_mode=None)
    data.command()(check)
    data.command()(show)
    app.add_typer(data, name="data")


def check(
    config: Config,
    overrides: Overrides = None,
    runs: Annotated[
        list[str] | None,
        typer.Option("--run", metavar="RUN", help="A trained run that judges the labels; may be given several times."),
    ] = None,
    out: Annotated[
        str, typer.Option(metavar="FILE", help="The findings with pictures, an HTML file; beside it FILE.json.")
    ] = "data-check.html",
    write: Annotated[
        str | None,
        typer.Option(metavar="MANIFEST", help="Write the images that are left as a manifest, .csv or .jsonl."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Look at every image of CONFIG: unreadable files, duplicates, leaks between splits, doubtful labels.

    Ends with exit code 3 where something must be looked at. No image file is touched. Without scale.workers among the
    options this machine does it, without Ray.
    """
    page_file = out_file(out, ".html", "the findings are an HTML file")
    manifest = None if write is None else Path(expand(write, where="--write"))
    folders = [run_folder(run) for run in runs or ()]
    loaded = load_config(config, overrides)
    prepare()
    from raycls.screen.working import Working

    with Working("starting") as working:
        from raycls.cli.init import write as put
        from raycls.run import strict_json
        from raycls.screen.measured.data_text import check_lines, check_rows
        from raycls.session.checking.check import check
        from raycls.session.checking.cleaned import refuse
        from raycls.session.checking.page import page

        for note in loaded.notes:
            say(note)
        checked = check(
            loaded.run,
            folders,
            working.lines,
            lambda dataset: None if manifest is None else refuse(dataset.splits, manifest),
            join if asks_for_ray(loaded.run, overrides) else None,
        )
        facts = checked.facts()
        about = f"{config}: {loaded.run.data.source.path or loaded.run.data.source.name}"
        put(page(checked, check_rows(facts), about).decode(), page_file)
        put(f"{strict_json.dumps(facts)}\n", page_file.with_suffix(".json"))
        told = [] if manifest is None else _write(checked, manifest)
    written = [*told, f"wrote {page_file} and {page_file.with_suffix('.json')}"]
    typer.echo(strict_json.dumps(facts) if as_json else "\n".join([*check_lines(facts), "", *written]))
    raise typer.Exit(EXIT_DONE if checked.clean else EXIT_DATA)


def show(
    config: Config,
    overrides: Overrides = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "train",
    count: Annotated[int, typer.Option("--per-class", min=1, max=32, help="Images of each class.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Chooses the images.")] = 0,
    classes: Annotated[
        list[str] | None, typer.Option("--class", metavar="NAME", help="Of this class; may be given several times.")
    ] = None,
    augmented: Annotated[bool, typer.Option("--augmented", help="Beside each image what the network gets.")] = False,
    epoch: Annotated[int, typer.Option(min=0, help="For --augmented, the first one is 0.")] = 0,
    out: Annotated[str, typer.Option(metavar="FILE", help="The sheet, a PNG file.")] = "data-show.png",
) -> None:
    """Draw a contact sheet of the data of CONFIG: a row for each class."""
    sheet = out_file(out, ".png", "the sheet is a PNG file")
    loaded = load_config(config, overrides)
    prepare()
    from raycls.screen.working import Working

    with Working("starting") as working:
        from raycls.session.checking.shown import Asked, show

        for note in loaded.notes:
            say(note)
        asked = Asked(split, count, seed, tuple(classes or ()), augmented, epoch)
        shown = show(loaded.run, asked, working.lines)
        shown.sheet.image.save(sheet)
    typer.echo(
        f"wrote {sheet}: {plural(shown.images, 'image')} of {plural(shown.classes, 'class')} of the split {split}"
    )


def _write(checked: Checked, file: Path) -> list[str]:
    from raycls.cli.init import write as put
    from raycls.config.write import override
    from raycls.session.checking.cleaned import cleaned, verify

    found = cleaned(checked, file)
    put(found.text, file, check=lambda written: verify(checked, written))
    why = ", ".join(f"{count:,} {reason}" for reason, count in found.left_out.items())
    source = f"{override('data.source.name', 'manifest')} {override('data.source.path', str(file))}"
    source += f" {override('data.source.args', {})}" if checked.run.data.source.args else ""
    return [
        f"wrote {file}: {plural(found.images, 'image')}" + (f"; left out: {why}" if why else ""),
        f"train from it with {source}",
    ]
