"""`raycls pack`: a data set in few large files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from raycls.cli.command import Overrides, asks_for_ray, join, load_config, prepare, say
from raycls.config.write import override
from raycls.errors import EXIT_DATA, ConfigError
from raycls.quantities import aligned, bytes_text, plural

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["register"]

_SIZES, _QUALITIES = (1, 1 << 16), (1, 100)


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(pack)


def pack(
    file: Annotated[
        str | None, typer.Argument(metavar="CONFIG", help="A YAML file, or recipe:NAME for one of configs/.")
    ] = None,
    overrides: Overrides = None,
    out: Annotated[str | None, typer.Option(metavar="FOLDER", help="Where the packed data goes. Required.")] = None,
    form: Annotated[str, typer.Option("--to", metavar="FORM", help="arrow or parquet.")] = "arrow",
    size: Annotated[
        str, typer.Option(metavar="PIXELS", help="The shorter side that larger images are resized to, or none.")
    ] = "256",
    quality: Annotated[
        str, typer.Option(metavar="QUALITY", help="Of the JPEG of a resized image, 1 to 100, or raw: pixels.")
    ] = "90",
    by: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="A column of the manifest to keep, for raycls eval --by."),
    ] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, help="How many processes of this machine. Default: one per core.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what an earlier command packed into FOLDER.")] = False,
    check: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Compare packed data with its checksums instead.")
    ] = None,
) -> None:
    """Convert the images of CONFIG, all splits, to few large files to train from. Rerun the command to resume.

    Without scale.workers among the options this machine does it, without Ray.
    """
    if check is not None:
        _check(check, [*([file] if file else []), *(overrides or [])])
        return
    if file is None or out is None:
        raise ConfigError(
            f"there is no {'CONFIG' if file is None else 'folder to pack into'}",
            valid="raycls pack CONFIG --out FOLDER",
        )
    if form not in ("arrow", "parquet"):
        raise ConfigError("data cannot be packed in this form", where="--to", found=form, valid="arrow, parquet")
    sides = _number("--size", size, "none", _SIZES)
    level = _number("--quality", quality, "raw", _QUALITIES)
    loaded = load_config(file, overrides)
    prepare()
    from raycls.screen.working import Working
    from raycls.session.packing.pack import Request, pack

    for note in loaded.notes:
        say(note)
    on_ray = asks_for_ray(loaded.run, overrides)
    request = Request(out, form, sides, level or 0, tuple(by or ()), force, on_ray, processes)
    with Working("starting") as working:
        found = pack(loaded.run, request, join=join, say=working.lines)
    typer.echo("\n".join(_lines(found.folder, found.manifest, found.seconds, found.made)))


def _number(option: str, text: str, word: str, bounds: tuple[int, int]) -> int | None:
    """The number that an option has; None for `word`."""
    if text == word:
        return None
    if not text.isdecimal() or not bounds[0] <= int(text) <= bounds[1]:
        raise ConfigError(
            f"{option} is of the wrong value", where=option, found=text, valid=f"{bounds[0]} to {bounds[1]}, or {word}"
        )
    return int(text)


def _check(folder: str, given: list[str]) -> None:
    if given:
        raise ConfigError("--check takes the folder alone", where="--check", found=" ".join(given))
    from raycls.config.paths import expand
    from raycls.screen.working import Working
    from raycls.session.packing.facts import check

    with Working("checking the packed data"):
        count, bad = check(expand(folder, where="--check"))
    for name, found in bad:
        typer.echo(f"{name}: {found}")
    if not bad:
        typer.echo(f"checked {count} files of {folder}: all are as they were written")
        return
    typer.echo(f"{len(bad)} of {count} files are damaged: delete them and rerun raycls pack to write them again")
    raise typer.Exit(EXIT_DATA)


def _lines(folder: str, manifest: Mapping[str, Any], seconds: float, made: int) -> list[str]:
    """A row for each split, and how the data is trained from."""
    before: Mapping[str, int] | None = manifest["bytes_before"]
    rows = [("split", "images", "shards", "before", "after")]
    for name, count in manifest["splits"].items():
        shards = [shard for shard in manifest["shards"] if shard["split"] == name]
        after = sum(shard["bytes"] for shard in shards)
        was = _size(before[name] if before else None)
        rows.append((name, f"{count:,}", f"{len(shards):,}", was, bytes_text(after)))
    total = sum(manifest["splits"].values())
    size = _size(sum(before.values()) if before else None)
    rows.append(("all", f"{total:,}", f"{len(manifest['shards']):,}", size, bytes_text(manifest["bytes_after"])))
    stored = "raw pixels" if manifest["quality"] == "raw" else f"JPEG of quality {manifest['quality']}"
    side = "not resized" if manifest["size"] == "none" else f"shorter side at most {manifest['size']}"
    done = f"{plural(made, 'shard')} made in {seconds:.1f} s" if made else "complete already"
    named = f"{override('data.source.name', 'packed')} {override('data.source.path', folder)}"
    return [
        *aligned(rows, numbers=range(1, 5)),
        f"{manifest['to']}, {stored}, {side}: {done}",
        f"wrote {folder}",
        f"train from it with {named}",
    ]


def _size(count: int | None) -> str:
    return "-" if count is None else bytes_text(count)
