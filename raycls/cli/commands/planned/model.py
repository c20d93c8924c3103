"""`raycls model`: the layers of a network, what it costs, and whether it suits the images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from raycls.cli.command import AsJson, Overrides, load_config, prepare, say
from raycls.quantities import aligned, bytes_text

if TYPE_CHECKING:
    from raycls.session.data.network import Described

__all__ = ["register"]

_SHOWN = 4
"""Parts that run again, by name; `--json` has all."""


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(model)


def model(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML file, or recipe:NAME for one of configs/.")],
    overrides: Overrides = None,
    classes: Annotated[int | None, typer.Option(min=1, help="Classes; the data is not opened then.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print the layers of the network of CONFIG with shapes, parameters and multiply-adds, and what memory it takes.

    A network that leaves too little of small images is pointed out.
    """
    loaded = load_config(config, overrides)
    prepare()
    from raycls.run import strict_json
    from raycls.screen.working import Working
    from raycls.session.data.network import describe

    for note in loaded.notes:
        say(note)
    with Working("looking at the network"):
        found = describe(loaded.run, classes)
    name = loaded.run.model.name
    typer.echo(strict_json.dumps(_facts(name, found)) if as_json else "\n".join(_lines(name, found)))


def _facts(name: str, found: Described) -> dict[str, Any]:
    from dataclasses import asdict

    seen = found.insight
    return {
        "model": name,
        "classes": found.classes,
        "input": found.input,
        "layers": [asdict(part) for part in seen.parts],
        "parameters": sum(part.parameters for part in seen.parts),
        "trained_parameters": sum(part.trained for part in seen.parts),
        "macs": seen.macs,
        "flops": 2 * seen.macs,
        "activation_bytes": {"image": found.image_bytes, "batch": found.batch_bytes, "batch_images": found.rows},
        "activation_checkpointing": {"parts": found.again, "batch": found.checkpointed.most},
        "stem": None if seen.stem is None else asdict(seen.stem),
        "last_convolution": None if seen.last is None else asdict(seen.last),
        "problem": found.problem,
        "fix": found.fix,
    }


def _lines(name: str, found: Described) -> list[str]:
    seen = found.insight
    facts = _facts(name, found)
    rows = [("layer", "kind", "output", "parameters", "MACs")]
    for part in seen.parts:
        output = "-" if part.output is None else " x ".join(map(str, part.output))
        frozen = "" if part.trained == part.parameters else " (frozen)" if not part.trained else " (part frozen)"
        rows.append((part.path, part.kind, output, f"{part.parameters:,}{frozen}", f"{part.macs:,}"))
    lines = aligned(rows, numbers=range(3, 5))
    given = " and ".join(" x ".join(map(str, shape)) for shape in found.input)
    lines += [
        "",
        f"{name}, {found.classes} classes, input {given}",
        f"parameters   {facts['parameters']:,}, trained {facts['trained_parameters']:,}",
        f"operations   {facts['flops']:,} FLOPs per image = 2 x {seen.macs:,} MACs, forward",
        f"activations  {bytes_text(found.image_bytes)} per image, {bytes_text(found.batch_bytes)} per micro-batch of "
        f"{found.rows}: what forward keeps for backward, in float32",
    ]
    if found.again:
        shown = ", ".join(found.again[:_SHOWN]) + (
            f" and {len(found.again) - _SHOWN} more" * (len(found.again) > _SHOWN)
        )
        lines.append(
            f"checkpointed {bytes_text(found.checkpointed.most)} with train.activation_checkpointing=on, where "
            f"{shown} run{'s' * (len(found.again) == 1)} again"
        )
    if seen.stem is not None:
        stem = seen.stem
        lines.append(
            f"stem         stride {stem.stride}, receptive field {stem.field}x{stem.field} pixels, "
            f"leaves {stem.height}x{stem.width}"
        )
    if seen.last is not None:
        lines.append(f"last conv    {seen.last.height}x{seen.last.width}, stride {seen.last.stride}")
    return lines + ([f"note: {found.problem}", f"  fix: {found.fix}"] if found.problem else [])
