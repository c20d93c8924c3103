"""Options that are text take what was written, whatever YAML would read there."""

from __future__ import annotations

from pathlib import Path

import pytest

from raycls.config.load import ConfigProblemsError, from_dict, load, load_text, to_dict, to_yaml
from raycls.config.space.check import space_of

NUMBERS = ["001", "48213377", "1e5", "0x10", "0o17", "1_000", "2024-01-01", "1.0", "true", "FALSE"]
PATHS = [
    "my photos",
    ".5",
    "-5",
    "+1",
    ".inf",
    "a # b",
    "a: b",
    "[raw] a",
    "{a}",
    "*x",
    "&x",
    "!x",
    "it's",
    'a"b',
    "$x",
]


@pytest.mark.parametrize("text", NUMBERS)
@pytest.mark.parametrize("option", ["run.name", "run.storage", "data.source.path", "model.name", "model.weights"])
def test_text_that_looks_like_a_number_stays_text(option: str, text: str, tmp_path: Path) -> None:
    section, _, key = option.rpartition(".")
    nested = f"{{{key}: {text}}}"
    for name in reversed(section.split(".")):
        nested = f"{{{name}: {nested}}}"
    file = tmp_path / "a.yaml"
    file.write_text(nested[1:-1])
    in_file = load(file).run
    typed = load_text("", overrides=[f"{option}={text}"]).run
    for run in (in_file, typed):
        value = to_dict(run)
        for name in option.split("."):
            value = value[name]
        assert value == text
        assert load_text(to_yaml(run)).run == run  # as a run folder keeps it
        assert from_dict(to_dict(run)) == run


@pytest.mark.parametrize("text", PATHS)
def test_a_path_on_the_command_line_is_what_was_typed(text: str) -> None:
    assert load_text("", overrides=[f"data.source.path={text}"]).run.data.source.path == text


@pytest.mark.parametrize(("typed", "text"), [("'001'", "001"), ('"null"', "null"), ('"a b"', "a b"), (" 001 ", "001")])
def test_quotes_around_the_whole_are_those_of_yaml(typed: str, text: str) -> None:
    assert load_text("", overrides=[f"run.storage={typed}"]).run.run.storage == text


@pytest.mark.parametrize("nothing", ["null", "~", ""])
def test_null_is_nothing_everywhere(nothing: str) -> None:
    file = "data: {source: {path: photos}}"
    assert load_text(file, overrides=[f"data.source.path={nothing}"]).run.data.source.path is None
    for text, overrides in ((f"run: {{name: {nothing}}}", []), ("", [f"run.name={nothing}"])):
        with pytest.raises(ConfigProblemsError) as caught:
            load_text(text, overrides=overrides)
        assert [problem.path for problem in caught.value.problems] == ["run.name"]


@pytest.mark.parametrize("text", ["false", "true"])
def test_a_boolean_is_no_name_where_it_may_be_meant_as_off(text: str) -> None:
    with pytest.raises(ConfigProblemsError):
        load_text(f"train: {{amp: {text}}}")


@pytest.mark.parametrize("text", ['"7"', "0x", "seven"])
def test_options_that_are_numbers_stay_strict(text: str) -> None:
    with pytest.raises(ConfigProblemsError):
        load_text(f"run: {{seed: {text}}}")


def test_free_arguments_are_what_yaml_says() -> None:
    run = load_text("model: {args: {x: 001}}", overrides=["data.source.args.y=1e2", "model.args.z='001'"]).run
    assert run.model.args == {"x": 1, "z": "001"}
    assert run.data.source.args == {"y": 100.0}


def test_values_of_a_space_are_text_where_the_option_is() -> None:
    text = """
search:
  space:
    model.name: [001, 1e5, "x"]
    model: {weights: {when: {model.name: 001}, values: "choice(007, null, w)"}}
    model.args.width: {when: {model: {name: [1e5, x]}}, values: [001, 2]}
    optim.lr: [1e-3, 1e-2]
"""
    names, weights, width, rate = space_of(load_text(text).run).parameters
    assert names.values == ("001", "1e5", "x")
    assert weights.values == ("007", None, "w")
    assert weights.when[0].values == ("001",)
    assert width.values == (1, 2)
    assert width.when[0].values == ("1e5", "x")
    assert rate.values == (1e-3, 1e-2)
    (typed,) = space_of(load_text("", overrides=["search.space.model.name=[001, 2]"]).run).parameters
    assert typed.values == ("001", "2")


def test_items_of_a_list_of_text_are_text() -> None:
    with pytest.raises(ConfigProblemsError) as caught:
        load_text("data: {formats: [1e5, png]}")
    (problem,) = caught.value.problems
    assert problem.path == "data.formats[0]"
    assert "1e5" in str(problem.found)


def test_the_file_that_is_extended_may_have_a_number_for_a_name(tmp_path: Path) -> None:
    (tmp_path / "001").write_text("optim: {lr: 0.5}")
    (tmp_path / "a.yaml").write_text("extends: 001")
    assert load(tmp_path / "a.yaml").run.optim.lr == 0.5


def test_a_whole_space_that_a_run_folder_keeps_is_read_back() -> None:
    run = load_text("search: {space: {model.name: [001, 1e5]}}").run
    again = load_text(to_yaml(run)).run
    assert again == run
    assert space_of(again).parameters[0].values == ("001", "1e5")
