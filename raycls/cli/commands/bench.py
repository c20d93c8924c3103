"""`raycls bench`: a config, part by part; and with `model` a network computed in several ways."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from raycls.cli.command import Overrides, load_config, out_file, prepare, say
from raycls.cli.commands.trained.bench import model

__all__ = ["register"]

_CONFIG = "CONFIG"


class _Group(TyperGroup):
    """What does not begin with `model` is a config, or an option before one."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        return super().resolve_command(ctx, args if args[0] == "model" else [_CONFIG, *args])


class _Bench(TyperCommand):
    """Its name in the group stands where its first argument is typed."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        options, _, *others = super().collect_usage_pieces(ctx)
        return [options, *others]


def register(app: typer.Typer) -> None:
    """Add the group to the command line."""
    group = typer.Typer(
        cls=_Group,
        context_settings={"ignore_unknown_options": True},  # they are those of a command
        help="Measure on this machine how fast a config trains and what bounds it (raycls bench CONFIG --help), or a "
        "trained network (raycls bench model --help).",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.command(_CONFIG, cls=_Bench)(bench)
    group.command("model")(model)
    app.add_typer(group, name="bench")


def bench(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML file, or recipe:NAME for one of configs/.")],
    overrides: Overrides = None,
    seconds: Annotated[float, typer.Option(min=0, help="To measure for, after the start.")] = 60.0,
    json_file: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Write the figures to this file too.")
    ] = None,
) -> None:
    """Images per second of reading, decoding, augmenting, transfer, the step alone, and all together, here and now.

    They take turns. Beside them torch's own DataLoader with the same files; below, what bounds the run, and overrides
    to try. No run folder is touched.
    """
    file = None if json_file is None else out_file(json_file, ".json", "the figures are JSON", option="--json")
    loaded = load_config(config, overrides)
    prepare()
    from raycls.run import strict_json
    from raycls.screen.measured.speed_text import speed_lines
    from raycls.screen.working import Working

    for note in loaded.notes:
        say(note)
    with Working("looking at the config"):
        from raycls.launch.speed import speed

        facts = speed(loaded.run, seconds, say=say)
    if file is not None:
        file.write_text(strict_json.dumps(facts) + "\n", encoding="utf-8")
    typer.echo("\n".join(speed_lines(facts, [config, *(overrides or ())])))
