"""Every file in configs/ is a run that could start: it loads, and its names and arguments exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

import raycls.cli
from raycls.cli import app
from raycls.config.load import load, load_text, to_dict
from raycls.config.space.check import apply, space_of
from raycls.data.images.operations import build
from raycls.data.source import check_source
from raycls.models.zoo import check
from raycls.train.optim import lr_factor

CONFIGS = Path(__file__).parents[1] / "configs"
FILES = sorted(CONFIGS.glob("*.yaml"))
SEARCHES = [file for file in FILES if file.stem.startswith("search_")]
DEMO = Path(raycls.cli.__file__).with_name("demo.yaml")


def test_the_promised_files_are_there_and_no_more_than_fifteen() -> None:
    names = {file.stem for file in FILES}
    assert {"digits", "cifar10_small", "cifar10_resnet18", "imagenet_resnet50", "finetune_folder"} <= names
    assert {"search_digits", "search_cifar10"} <= names
    assert len(names) <= 15


@pytest.mark.parametrize("file", [*FILES, DEMO], ids=lambda file: file.stem)
def test_header_says_what_command_and_expected(file: Path) -> None:
    lines = file.read_text().splitlines()
    header = lines[: next(index for index, line in enumerate(lines) if not line.startswith("#"))]
    words = [line[2:].split(":")[0] for line in header if line[2:3] != " "]
    assert words == ["What", "Command", "Expected"]
    command = next(line for line in header if line.startswith("# Command:"))
    assert f"configs/{file.name}" in command or (file == DEMO and "raycls demo" in command)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_names_and_arguments_exist(file: Path) -> None:
    run = load(file).run
    assert run.run.name == file.stem
    assert isinstance(run.train.micro_batches, int)  # auto would make another number of workers another run
    check_source(run.data)
    check(run.model)
    for operations, train in ((run.augment.train, True), (run.augment.eval, False)):
        build(operations, train=train, image_size=run.data.image_size)
    lr_factor(run.schedule, 0, steps_per_epoch=100, total_steps=1000)


@pytest.mark.parametrize("file", SEARCHES, ids=lambda file: file.stem)
def test_every_trial_of_a_search_could_start(file: Path) -> None:
    run = load(file).run
    assert run.search.trials > 1
    trials = [apply(run, chosen) for chosen in space_of(run).corners(32)]
    assert len(trials) > 10
    for trial in trials:
        check(trial.model)
        build(trial.augment.train, train=True, image_size=trial.data.image_size)


@pytest.mark.parametrize("file", [file for file in FILES if file not in SEARCHES], ids=lambda file: file.stem)
def test_files_stand_on_their_own(file: Path) -> None:
    origins = set(load(file).origins.values())
    assert all(origin == "default" or origin.startswith(f"{file.name}:") for origin in origins)
    assert load(file).run.search.space == {}


@pytest.mark.parametrize("file", SEARCHES, ids=lambda file: file.stem)
def test_a_search_extends_the_config_it_varies(file: Path) -> None:
    files = {origin.partition(":")[0] for origin in load(file).origins.values()} - {"default", file.name}
    assert len(files) == 1
    assert files < {other.name for other in FILES}


def test_the_demo_is_the_digits_config_under_another_name() -> None:
    demo, digits = (to_dict(load(file).run) for file in (DEMO, CONFIGS / "digits.yaml"))
    assert demo.pop("run") == {**digits.pop("run"), "name": "demo"}
    assert demo == digits


def test_imagenet_rate_falls_at_epochs_30_60_and_80() -> None:
    run = load(CONFIGS / "imagenet_resnet50.yaml").run
    steps = 1252  # of 1,281,167 images in batches of 1,024

    def factor(epoch: int, step: int = 0) -> float:
        return lr_factor(run.schedule, epoch * steps + step, steps_per_epoch=steps, total_steps=90 * steps)

    assert factor(0) == pytest.approx(1 / (5 * steps))
    assert factor(5) == 1
    for epoch, after in ((30, 0.1), (60, 0.01), (80, 0.001)):
        assert factor(epoch, -1) == pytest.approx(10 * after)
        assert factor(epoch) == pytest.approx(after)


def test_readme_of_the_configs_lists_each() -> None:
    text = (CONFIGS / "README.md").read_text()
    assert all(f"`{file.name}`" in text for file in FILES)


def test_configs_in_the_readme_are_valid() -> None:
    text = (CONFIGS.parent / "README.md").read_text()
    blocks = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 3
    complete, _, searched = (load_text(block).run for block in blocks)
    assert isinstance(complete.train.micro_batches, int)
    assert space_of(searched).paths


def test_options_that_the_readme_names_in_its_text_are_valid() -> None:
    text = (CONFIGS.parent / "README.md").read_text()
    options = re.findall(r"`((?:data\.source|optim\.ema|train\.early_stop\.patience)=[^`]+)`", text)
    assert len(options) == 4
    for option in options:
        check_source(load_text("", "README.md", [option, *["data.source.path=x"] * ("source" not in option)]).run.data)


def test_the_two_first_commands_are_in_the_first_25_lines_of_the_readme() -> None:
    first = (CONFIGS.parent / "README.md").read_text().splitlines()[:25]
    assert any("pip install uv && uv run raycls demo" in line for line in first)
    assert any("pip install uv && uv run pytest" in line for line in first)


@pytest.mark.parametrize("file", ["README.md", "cluster/README.md"])
def test_commands_in_a_readme_have_words_that_the_command_line_takes(file: str) -> None:
    """Their commands, options and config paths exist; nothing is run here."""
    blocks = re.findall(r"```console\n(.*?)```", (CONFIGS.parent / file).read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    typed = [
        shlex.split(found[1], comments=True) for line in lines if (found := re.search(r"^\$.*?\braycls (.*)", line))
    ]
    assert len(typed) > 2
    for words in typed:
        given = _given(words)
        if words[0] == "submit":
            given = _given(given["words"])
        for word in (*(given.get("overrides") or ()), *(given.get("words") or ())):
            if "=" in word:
                load_text("", file, [word])


def _given(words: list[str]) -> dict[str, Any]:
    """What the command line makes of the words after `raycls`. Raises a usage error."""
    command: Any = typer.main.get_command(app.app)
    context = None
    while hasattr(command, "commands"):
        context = command.make_context(command.name, [], parent=context, resilient_parsing=True)
        command, words = command.commands[words[0]], words[1:]
    return command.make_context(command.name, list(words), parent=context).params
