"""The command line: each sub-command parses its words, calls one function, and turns errors into one block.

Nothing here imports torch, ray or matplotlib before a command needs them, so `--help` and `config` answer at once.
"""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Literal

import typer

from raycls import __version__
from raycls.cli import clusters, jobs
from raycls.cli.run_argument import run_folder
from raycls.config.paths import expand
from raycls.errors import EXIT_DATA, EXIT_DONE, EXIT_FAILED, ConfigError, RayclsError

if TYPE_CHECKING:
    from raycls.config.load import Loaded
    from raycls.config.sections.track import TrackConfig
    from raycls.screen.run import Display

__all__ = ["app", "main"]

Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[PATH=VALUE]...", help="Options that replace those of the file, such as optim.lr=3e-4."),
]
RunFolderArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run folder, or the name of one under runs/.")]

app = typer.Typer(
    name="raycls",
    help="Train image classifiers on Ray: the same weights, to the bit, on any number of workers.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run the command line and leave with its exit code; an unexpected error leaves a file with its traceback."""
    for stream in (sys.stdout, sys.stderr):
        _never_fail_on_text(stream)
    try:
        typer.main.get_command(app)(prog_name="raycls")
    except RayclsError as error:
        if error.fix and "--new" in sys.argv:  # which would start anew once more
            error.fix = error.fix.replace("the same command", "the same command without --new")
        _say(f"raycls: {error}")
        code = error.exit_code
    except KeyboardInterrupt:
        code = 130
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except Exception as error:  # noqa: BLE001 - the last resort: the user gets one line, the file all of it
        _say(f"raycls: unexpected {type(error).__name__}: {error}\n  trace: {_write_traceback(error)}")
        code = EXIT_FAILED
    else:
        code = EXIT_DONE
    sys.exit(_flushed(code))


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    if version:
        typer.echo(f"raycls {__version__}")
        raise typer.Exit


@app.command()
def train(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML file, see configs/.")],
    overrides: Overrides = None,
    new: Annotated[
        bool, typer.Option("--new", help="Start again: a run folder that is there is renamed, never deleted.")
    ] = False,
) -> None:
    """Train what CONFIG describes. The same command again resumes the run."""
    loaded = _load(config, overrides)
    _prepare()
    with _display(loaded.run.track) as display:
        from raycls.launch import trainer  # after the config: its errors need no torch to be told

        for note in loaded.notes:
            display.record({"kind": "event", "text": note})
        outcome = trainer.train(loaded.run, new=new, command=_command(), display=display)
    raise typer.Exit(outcome.exit_code)


@app.command()
def search(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML file with a section search, see configs/.")],
    overrides: Overrides = None,
    new: Annotated[
        bool, typer.Option("--new", help="Start again: a search folder that is there is renamed, never deleted.")
    ] = False,
) -> None:
    """Search over options of CONFIG with Ray Tune. The same command again goes on with the search."""
    loaded = _load(config, overrides)
    _prepare()
    from raycls.screen.search import make_search_display

    with make_search_display(loaded.run.track, _screen()) as display:
        from raycls.tune import play as searching

        outcome = searching.search(loaded, new=new, command=_command(), display=display)
    raise typer.Exit(outcome.exit_code)


@app.command("eval")
def evaluate(
    run: RunFolderArgument,
    overrides: Overrides = None,
    split: Annotated[str | None, typer.Option(help="train, val or test. Default: test where the data has it.")] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="Other data, evaluated as a whole: a folder of class folders, a manifest, an .npz, or a config file.",
        ),
    ] = None,
    extra_classes: Annotated[
        Literal["refuse", "leave-out"], typer.Option(help="Images of classes that the model does not know.")
    ] = "refuse",
    weights: Annotated[
        str | None, typer.Option(metavar="WEIGHTS", help="best, last or step-N. Default: as evaluate.keep says.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Evaluate the model of a run on a split as the run was started with it, or on other data as a whole.

    Every image counts once, on any number of workers.
    """
    folder = run_folder(run)
    _prepare()
    from raycls.config.sections.track import TrackConfig
    from raycls.run import strict_json
    from raycls.screen.run_text import summary_lines

    with _display(TrackConfig(), sys.stderr) as display:
        from raycls.launch import trainer

        summary = trainer.evaluate(
            folder,
            split=split,
            data=data,
            extra_classes=extra_classes,
            weights=weights,
            overrides=overrides or (),
            display=display,
        )
    typer.echo(strict_json.dumps(summary) if as_json else "\n".join(summary_lines(summary)))


@app.command()
def ledger(run: RunFolderArgument) -> None:
    """Say whether the steps behind the last weights saw every training sample exactly once per epoch.

    Those behind the best weights, which model/ may hold, are the first ones of these.
    """
    folder = run_folder(run)
    from raycls.screen.run_text import ledger_lines
    from raycls.screen.working import Working

    names: Callable[[int], str] = str
    with Working("reading the ledger"):
        from raycls.run import sample_ledger as ledgers
        from raycls.run.folder import RunFolder
        from raycls.run.storage.store import Store

        store = Store(folder)
        store.check()
        report = ledgers.check(RunFolder(store))
        if report.left_out:  # then the run has written down which sample is which
            from raycls.session.data.scored import find_record

            record = find_record(RunFolder(store))
            names = str if record is None else record.parts["train"].name
    typer.echo("\n".join(ledger_lines(report, names)))
    raise typer.Exit(EXIT_DONE if report.ok else EXIT_FAILED)


@app.command("config")
def show_config(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A YAML file, or the word schema for the JSON Schema.")],
    overrides: Overrides = None,
) -> None:
    """Print the resolved config, each value with where it was set."""
    from raycls.config import load as loading

    if file == "schema":
        if overrides:
            raise ConfigError("raycls config schema takes no options", found=" ".join(overrides))
        typer.echo(loading.schema_json())
    else:
        typer.echo(loading.show(_load(file, overrides)).rstrip("\n"))


@app.command()
def init(
    directory: Annotated[
        str,
        typer.Argument(
            metavar="DIR", help="A folder of images, one folder per class; a manifest or .npz; with --check a config."
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PATH=VALUE]...", help="Options of data.source, such as data.source.args.splits=none."),
    ] = None,
    out: Annotated[str, typer.Option(metavar="FILE", help="Where the config goes.")] = "raycls.yaml",
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it is there.")] = False,
    ignore: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Files that are no images, such as '*.txt'.")
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Decode every image, and name all that training would stop at; write no config."),
    ] = False,
) -> None:
    """Look at a folder of images and write a config that trains on it."""
    if check:
        _prepare()
        from raycls.screen.working import Working

        with Working("starting"):
            from raycls.cli import image_check

        checked = image_check.look(directory, ignore=tuple(ignore or ()), overrides=overrides or ())
        typer.echo("\n".join(image_check.report(checked)))
        raise typer.Exit(EXIT_DATA if checked.bad or checked.unfit else EXIT_DONE)
    file = Path(expand(out, where="--out"))
    if file.exists() and not force:
        raise ConfigError(f"{out} is there already", fix="choose another --out FILE, or --force to replace it")
    from raycls.config.write import word
    from raycls.screen.working import Working

    with Working(f"looking at {directory}"):
        from raycls.cli import init as starter

        survey = starter.survey(directory, ignore=tuple(ignore or ()), overrides=overrides or ())
    text = starter.compose(survey, out=out)
    typer.echo("\n".join(starter.describe(survey)))
    starter.write(text, file)
    typer.echo(f"wrote {out}\nnext: raycls train {word(out)}")


@app.command()
def demo() -> None:
    """Train a small network on 1,797 handwritten digits, then test it: no network, no GPU."""
    _prepare()
    from raycls.screen.working import Working

    with Working("starting"):
        from raycls.cli import demo as demonstration

    settings = demonstration.settings()
    with _display(settings.track) as display:
        result = demonstration.run(settings, command=_command(), display=display)
    typer.echo("\n".join(demonstration.lines(result)))
    raise typer.Exit(result.exit_code)


@app.command()
def doctor(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[CONFIG] [PATH=VALUE]...", help="The run to be looked at; without one, the cluster."),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="host:port of a Ray. Default: RAY_ADDRESS, or a Ray of its own here.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
    timeout: Annotated[float, typer.Option(min=1.0, help="Seconds that a node has for each answer.")] = 60.0,
) -> None:
    """Look at a cluster, and at a run on it, before anything is taken: a row and a remedy for each question."""
    from raycls.doctor.arguments import read, refuse_dashboard

    refuse_dashboard(address, words or (), _say)
    asked = read(words or (), timeout)
    _prepare()
    from raycls.screen.working import Working

    with Working("starting"):
        from raycls.doctor import doctor as examination

    if address:
        os.environ["RAY_ADDRESS"] = address
    raise typer.Exit(examination.doctor(asked, as_json=as_json))


jobs.register(app)
clusters.register(app)


def _load(file: str, overrides: list[str] | None) -> Loaded:
    """The config with every error told at once: of the schema, and in the names that it holds."""
    from raycls.config.load import load
    from raycls.names import name_problems

    return load(file, overrides or (), names=name_problems)


def _display(track: TrackConfig, stream: IO[str] | None = None) -> Display:
    from raycls.screen.run import make

    return make(track, _screen() if stream is None else stream)


def _screen() -> IO[str]:
    """A live display belongs on the terminal (stderr); plain lines are what the command prints (stdout)."""
    return sys.stderr if sys.stdout.isatty() and sys.stderr.isatty() else sys.stdout


def _command() -> list[str]:
    """The words that were typed, for the run folder and for the line that says how to resume."""
    program = Path(sys.argv[0]).name
    start = ["python", "-m", "raycls"] if program == "__main__.py" else [program]
    return [*start, *sys.argv[1:]]


def _write_traceback(error: Exception) -> str:
    text = "".join(traceback.format_exception(error))
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="raycls-", suffix=".traceback.txt", delete=False, encoding="utf-8", errors="backslashreplace"
        ) as file:
            file.write(text)
    except OSError as problem:  # no room for the file: the traceback itself is the last resort
        return f"no file could be written ({problem}):\n{text}"
    return file.name


def _say(text: str) -> None:
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        return  # nobody reads any more; the exit code still tells


def _never_fail_on_text(stream: Any) -> None:
    """A class name that the terminal's encoding lacks is shown escaped instead of ending the command."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")


def _flushed(code: int) -> int:
    """Flush what is left; where the reader went away early, as `head` does, leave without a traceback."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def _prepare() -> None:
    """What must be set before torch and Ray are imported; a job first compares itself with its submission."""
    from raycls.cluster.environment import prepare_environment
    from raycls.jobs import note as submitted

    submitted.check(_say)
    prepare_environment()
