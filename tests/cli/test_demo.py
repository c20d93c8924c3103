"""The settings of `raycls demo` are those of one file, in a checkout and in a wheel."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from raycls.cli.demo import settings
from raycls.config.load import load, to_dict

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "configs" / "digits.yaml"


def test_the_demo_is_the_digits_config_under_another_name() -> None:
    demo, digits = to_dict(settings()), to_dict(load(DIGITS).run)
    assert demo.pop("run") == {**digits.pop("run"), "name": "demo"}
    assert demo == digits


def test_a_wheel_has_the_recipes_where_they_are_looked_for(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "raycls", tmp_path / "raycls", ignore=shutil.ignore_patterns("__pycache__"))
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["packages"] == ["raycls"]
    for source, target in wheel["force-include"].items():
        shutil.copytree(ROOT / source, tmp_path / target)
    code = (
        "import raycls; from raycls.cli.demo import settings; from raycls.config.names.recipes import names; "
        "print(raycls.__file__, settings().run.name, *names())"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
    )
    recipes = sorted(file.stem for file in (ROOT / "configs").glob("*.yaml"))
    assert found.stdout.split() == [str(tmp_path / "raycls" / "__init__.py"), "demo", *recipes], found.stderr
