"""Templates into one HTML file: escaped, and with a policy that lets nothing run or load but what is in it."""

from __future__ import annotations

import base64
import functools
import hashlib
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from raycls import __version__
from raycls.report.axis import number

__all__ = ["fragment", "render"]

_FOLDER = Path(__file__).parent / "templates"


def render(template: str, *, script: str = "", connects: bool = False, **values: Any) -> bytes:
    """The page that `template` makes of `values`, UTF-8.

    `script` is the only file of code that the page runs: its hash stands in the policy of the page, so that no text
    that got into it as HTML could run. `connects`: the page may ask the server that it came from.
    """
    code = (_FOLDER / script).read_text(encoding="utf-8") if script else ""
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    policy = [
        "default-src 'none'",
        "img-src data:",
        "style-src 'unsafe-inline'",
        "base-uri 'none'",
        "form-action 'none'",
        *([f"script-src 'sha256-{digest}'"] if script else []),
        *(["connect-src 'self'"] if connects else []),
    ]
    text = (
        _environment()
        .get_template(template)
        .render(
            policy="; ".join(policy),
            style=Markup((_FOLDER / "page.css").read_text(encoding="utf-8")),  # noqa: S704 - a file of this package
            script=Markup(code),  # noqa: S704 - a file of this package
            version=__version__,
            **values,
        )
    )
    return text.encode("utf-8", "backslashreplace")  # a file name that is no UTF-8 stays readable


def fragment(template: str, **values: Any) -> str:
    """Part of a page, as the text that stands between its tags."""
    return _environment().get_template(template).render(**values)


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    environment.filters["percent"] = lambda value, digits=1: f"{100 * value:.{digits}f} %"
    environment.filters["thousands"] = lambda value: f"{value:,}"
    return environment
