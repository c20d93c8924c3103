"""`recipe:NAME` is the file of that name in configs/, wherever a config is named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from harness.errors import raised
from typer.testing import CliRunner

from raycls.cli.app import app
from raycls.config.load import load, to_dict
from raycls.config.names.recipes import names
from raycls.errors import ConfigError
from raycls.jobs.package import refuse_outside

CONFIGS = Path(__file__).parents[3] / "configs"


@pytest.mark.parametrize("name", names())
def test_a_recipe_is_its_file(name: str) -> None:
    assert to_dict(load(f"recipe:{name}").run) == to_dict(load(CONFIGS / f"{name}.yaml").run)


def test_where_a_value_of_a_recipe_was_set_is_said(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("extends: recipe:digits\noptim: {lr: 0.3}\n")
    loaded = load(own, ["train.duration=2ep"])
    assert loaded.origins["optim.lr"] == "own.yaml:2"
    assert loaded.origins["train.duration"] == "command line"
    assert loaded.origins["model.args.width"].startswith("digits.yaml:")
    assert (loaded.run.run.name, loaded.run.optim.lr, loaded.run.model.args) == ("own", 0.3, {"width": 48})
    assert load("recipe:digits").origins["optim.lr"].startswith("recipe:digits:")


def test_a_recipe_that_is_not_there_is_refused_with_the_nearest_one(tmp_path: Path) -> None:
    known, fix = re.compile(r"\bdigits\b"), "did you mean recipe:digits?"
    with raised(ConfigError, where="CONFIG", found="recipe:digit", valid=known, fix=fix):
        load("recipe:digit")
    own = tmp_path / "own.yaml"
    own.write_text("model: {name: resnet18}\nextends: recipe:nothing\n")
    with raised(ConfigError, where=f"{own}:2", found="recipe:nothing", valid=known):
        load(own)


def test_commands_take_a_recipe_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refuse_outside("recipe:digits")
    told = CliRunner().invoke(app, ["config", "recipe:digits", "optim.lr=0.2"])
    assert told.exit_code == 0
    assert "lr: 0.2" in told.stdout
