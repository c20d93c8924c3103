"""timm's models as its source lists them, without importing it, which takes seconds and torch.

The models are the functions of `timm/models/**/*.py` that are decorated with `@register_model`.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from raycls.config.names.suggest import suggest
from raycls.errors import ConfigError

__all__ = ["PREFIX", "check_name", "names"]

PREFIX = "timm:"
_MODEL = re.compile(r"^@register_model\b[^\n]*\n(?:@[^\n]*\n)*def (\w+)\(", re.MULTILINE)


@cache
def names() -> tuple[str, ...]:
    """The name of every model, sorted; empty where timm is not installed as files."""
    spec = find_spec("timm")  # a package of the top level is found without running any of it
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    files = [file for folder in folders for file in Path(folder, "models").rglob("*.py")]
    return tuple(sorted({name for file in files for name in _MODEL.findall(file.read_text(encoding="utf-8"))}))


def check_name(name: str) -> None:
    """Check `timm:NAME`, or `timm:NAME.TAG` with the tag of one of its configurations, where timm is installed.

    Only what timm itself registers is a name: never a repository or a folder, which `timm.create_model` takes too.
    Raises ConfigError.
    """
    listed, wanted = names(), name.removeprefix(PREFIX).partition(".")[0]
    if not listed or wanted in listed:
        return
    near = suggest(wanted, listed)
    raise ConfigError(
        f"timm has no model {wanted!r}",
        where="model.name",
        found=name,
        valid=f"timm:NAME, with one of the {len(listed)} names of timm.list_models()",
        fix=None if near is None else f"did you mean {PREFIX}{near}?",
    )
