"""`raycls predict` as it is typed, on a run of real image files."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from harness.command_line import Result

_LEAN = """
import sys
sys.argv = ["raycls", "predict", "shapes", "photos/circle/000.png"]
from raycls.cli.app import main
try:
    main()
except SystemExit as end:
    code = end.code
heavy = {"ray", "pandas", "matplotlib", "pyarrow", "scipy", "sklearn", "rich", "onnx", "tensorboardX", "jinja2"}
print("code", code, "heavy", sorted(heavy & sys.modules.keys()))
"""


@pytest.fixture
def here(trained: Path, monkeypatch: pytest.MonkeyPatch, raycls_command: Callable[..., Result]) -> Path:
    del raycls_command  # which goes to a folder of its own first
    monkeypatch.chdir(trained)
    return trained


def test_one_picture_needs_no_ray(trained: Path) -> None:
    """What is imported decides how soon a picture is answered: torch and torchvision alone are slow."""
    done = subprocess.run([sys.executable, "-c", _LEAN], cwd=trained, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[-1] == "code 0 heavy []", done.stdout + done.stderr
    assert lines[0] == "photos/circle/000.png"
    assert [line.split()[-1] for line in lines[1:4]] == ["circle", "stripes", "square"]
    assert not [line for line in done.stderr.splitlines() if not line.startswith("starting for ")]  # a busy machine


def test_few_pictures_are_printed_with_their_classes(here: Path, raycls_command: Callable[..., Result]) -> None:
    found = raycls_command("predict", "shapes", "photos/circle/000.png", "photos/square/000.png", "--top", "2")
    assert (found.code, found.err) == (0, "")
    lines = found.out.splitlines()
    assert len(lines) == 2 * 3
    shares = [float(match[1]) for line in lines if (match := re.match(r" +([\d.]+)%  #* +\w+", line))]
    assert len(shares) == 4
    assert shares[0] >= shares[1]


def test_many_pictures_are_a_line_each(here: Path, raycls_command: Callable[..., Result]) -> None:
    found = raycls_command("predict", "shapes", "photos/circle")
    lines = found.out.splitlines()
    assert len(lines) == 40
    assert all(re.fullmatch(r"photos/circle/\d+\.(png|jpg)  [\d.]+%  (circle|square|stripes)", line) for line in lines)


def test_json_is_one_object_per_picture_and_nothing_else(here: Path, raycls_command: Callable[..., Result]) -> None:
    found = raycls_command("predict", "shapes", "photos/circle", "--json", "--all")
    rows = [json.loads(line) for line in found.out.splitlines()]
    assert [row["path"] for row in rows] == sorted(str(file) for file in Path("photos/circle").iterdir())
    assert set(rows[0]["probabilities"]) == {"circle", "square", "stripes"}


def test_a_file_that_is_no_image_is_told_and_never_fatal(
    here: Path, raycls_command: Callable[..., Result], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_text("hello")
    shown = raycls_command("predict", "shapes", str(bad), "photos/circle/000.png")
    assert shown.code == 0
    assert f"{bad}  error: a sample is not an image: this is text, it begins 'hello'" in shown.out
    assert "photos/circle/000.png" in shown.out
    written = raycls_command("predict", "shapes", str(bad), "photos", "--out", str(tmp_path / "p.csv"))
    assert written.code == 0
    lines = written.out.splitlines()
    assert lines[0].startswith("120 images predicted: ")
    reason = "a sample is not an image: this is text, it begins 'hello'"
    assert lines[1:3] == ["1 image without an answer:", f"  {bad}: {reason}"]
    assert lines[-1] == f"wrote {tmp_path / 'p.csv'}"
    assert raycls_command("predict", "shapes", str(bad)).code == 3  # nothing has an answer


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("predict", "shapes"), 2, "Missing argument"),
        (("predict", "shapes", "scale.threads=1"), 2, "there is no INPUT"),
        (("predict", "shapes", "nothing.jpg"), 2, "INPUT nothing.jpg"),
        (("predict", "shapes", "none/*.jpg"), 2, "a pattern matches no file"),
        (("predict", "shapes", "photos", "--out", "p.xlsx"), 2, ".parquet, .csv, .jsonl"),
        (("predict", "shapes", "photos", "--top", "0"), 2, "--top"),
        (("predict", "shapes", "photos", "optim.lr=1"), 2, "optim.lr=1"),
        (("predict", "shapes", "photos", "--weights", "step-7"), 2, "--weights step-7"),
        (("predict", "shapes", "runs/shapes/model"), 3, "no file that is named like an image"),
        (("predict", "nobody", "photos"), 2, "there is no run nobody"),
    ],
)
def test_what_cannot_be_predicted_is_refused(
    here: Path, raycls_command: Callable[..., Result], words: tuple[str, ...], code: int, said: str
) -> None:
    found = raycls_command(*words)
    assert (found.code, said in found.err) == (code, True), found.err
    assert found.out == ""
