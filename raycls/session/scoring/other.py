"""Other data than that of a run: the source that `raycls eval RUN --data PATH` means, and how its labels are read."""

from __future__ import annotations

import os
from collections.abc import Collection

from raycls.config.load import from_dict
from raycls.config.paths import expand
from raycls.config.sections.data import SourceConfig
from raycls.config.sections.run import Run
from raycls.config.write import override, to_dict
from raycls.data.sources.recognised import SUFFIXES, recognised
from raycls.errors import ConfigError
from raycls.tasks.build import reading_of

__all__ = ["dividing", "source_of", "with_source"]

_DIVIDERS = (";", "|", ",", "/", " ")
"""What divides the labels of one cell in the tables that people write."""


def source_of(path: str) -> SourceConfig:
    """The source that `--data PATH` means; ConfigError where PATH is nothing that can be evaluated."""
    there = expand(path, where="--data")
    suffix = os.path.splitext(path)[1].lower()
    if suffix in (".yaml", ".yml"):
        from raycls.config.load import load

        return load(there).run.data.source
    if (name := recognised(there)) is not None:
        return SourceConfig(name=name, path=path)
    raise ConfigError(
        "there is no data to evaluate",
        where=f"--data {path}",
        found="nothing there" if not os.path.exists(there) else f"a file named {suffix or 'without a suffix'}",
        valid="a folder of class folders, of shards or of packed data, a manifest, arrays, Parquet or tar shards "
        f"({' '.join(SUFFIXES)}), or a config file (.yaml) with data.source",
    )


def with_source(run: Run, path: str) -> Run:
    """The config of a run with the source that `--data PATH` means.

    A manifest is read with the `multilabel` of the run: its images have any number of classes, whatever it looks like.
    """
    values, source = to_dict(run), source_of(path)
    if source.name == "manifest" and not path.lower().endswith((".yaml", ".yml")) and reading_of(run.task).several:
        own = run.data.source
        source.args["multilabel"] = (own.args.get("multilabel") if own.name == "manifest" else None) or True
    values["data"] |= {
        "source": source.model_dump(),
        "group": None,
        "weight": None,
        "fold": {},
    }  # other data has no such columns
    return from_dict(values)


def dividing(names: Collection[str], classes: Collection[str]) -> str:
    """A remedy for unknown `names` such as `cat|dog` where cat is one of the `classes`; empty where there is none."""
    for divider in _DIVIDERS:
        if any(divider in name and {part.strip() for part in name.split(divider)} & set(classes) for name in names):
            given = override("data.source.args.multilabel", divider)
            return f"say what divides the labels of one cell with {given}, "
    return ""
