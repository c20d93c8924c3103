"""Pages of the documentation as what a reader does with them: files to write, commands to type, output to see."""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raycls.cli import app

__all__ = ["ANY", "Block", "Step", "blocks", "differs", "make_data", "steps", "type_in", "working_directory"]

ANY = "..."
"""In shown output: some lines where it stands alone, some characters where it stands in a line."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page. `name` is that of the file it is, where its first line says so: `# nets.py`."""

    language: str
    text: str
    name: str | None


@dataclass(frozen=True)
class Step:
    """A command of a console block, without its comment, and the lines that the page shows after it."""

    words: tuple[str, ...]
    shown: tuple[str, ...]


def blocks(page: Path) -> list[Block]:
    found = []
    for language, text in re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE):
        name = re.match(r"# (\S+\.(?:py|yaml))\n", text)
        found.append(Block(language, text, None if name is None else name[1]))
    return found


def steps(block: Block) -> list[Step]:
    """Commands joined by `&&` are one each; the output belongs to the last."""
    found: list[Step] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            commands = " ".join(shlex.split(line[2:], comments=True, posix=False)).split(" && ")
            found += [Step(tuple(shlex.split(command)), ()) for command in commands]
        else:
            found[-1] = Step(found[-1].words, (*found[-1].shown, line))
    return found


def differs(shown: tuple[str, ...], seen: str) -> str:
    """How the output of a command is not what the page shows; empty where it is, or where the page shows nothing."""
    if not shown:
        return ""
    patterns = (r"(?:.*\n)*?" if line == ANY else _line(line) for line in shown)
    if re.fullmatch("".join(patterns), seen):
        return ""
    return "the page shows\n" + "\n".join(shown) + "\n--- and the command printed\n" + seen


def _line(line: str) -> str:
    return ".*".join(re.escape(part) for part in line.split(ANY)) + r"[ ]*\n"


def make_data(folder: Path) -> None:
    """What the pages take for granted: images of two colours in `photos` and `holdout`, and a manifest of the first."""
    draw = np.random.default_rng(0)
    rows = ["path,label,camera"]
    for name, count in (("photos", 20), ("holdout", 3)):
        for channel, label in enumerate(("cat", "dog")):
            (folder / name / label).mkdir(parents=True)
            for index in range(count):
                pixels = draw.integers(0, 120, (20, 24, 3), dtype=np.uint8)
                pixels[..., channel] += 100
                Image.fromarray(pixels).save(folder / name / label / f"{index:02}.png")
                camera = ("north", "south")[index % 2]
                rows += [f"photos/{label}/{index:02}.png,{label},{camera}"] * (name == "photos")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")


@contextmanager
def working_directory(folder: Path) -> Iterator[None]:
    """Commands are typed in `folder`; the environment of this process is as before at the end."""
    environment = dict(os.environ)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(environment)


def type_in(words: tuple[str, ...], *, apart: bool = False) -> tuple[int, str]:
    """Exit code and output, of both streams in their order. raycls runs in this process unless it is to run `apart`."""
    if words[0] != "raycls" or apart:
        programs = {"python": [sys.executable], "raycls": [sys.executable, "-m", "raycls"]}
        command = [*programs.get(words[0], words[:1]), *words[1:]]
        ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        return ended.returncode, ended.stdout
    screen = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", list(words))
        patch.setattr(sys, "stdout", screen)
        patch.setattr(sys, "stderr", screen)
        with pytest.raises(SystemExit) as leaving:
            app.main()
    assert isinstance(leaving.value.code, int)
    return leaving.value.code, screen.buffer.getvalue().decode()
