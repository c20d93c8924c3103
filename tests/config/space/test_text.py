"""How a space is written, what becomes of it, and what cannot be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raycls.config.errors import Place, Problem
from raycls.config.load import ConfigProblemsError, load, load_text, show
from raycls.config.space.space import Condition, Parameter
from raycls.config.space.text import Places, kind_of, read


def one(value: Any, path: str = "optim.lr") -> Parameter:
    parameters, problems = read({path: value}, Places({}, Place("x")))
    assert not problems
    return parameters[0]


def wrong(value: Any) -> Problem:
    parameters, problems = read({"optim.lr": value}, Places({}, Place("x")))
    assert not parameters
    assert len(problems) == 1
    return problems[0]


@pytest.mark.parametrize(
    ("text", "kind", "numbers"),
    [
        ("uniform(0, 1)", "uniform", (0, 1, 0)),
        ("loguniform(1e-4, 1)", "loguniform", (1e-4, 1, 0)),
        ("randint(1, 10)", "randint", (1, 10, 0)),
        ("  lograndint( 1 ,1000 ) ", "lograndint", (1, 1000, 0)),
        ("quniform(0.1, 0.5, 0.1)", "quniform", (0.1, 0.5, 0.1)),
    ],
)
def test_ranges(text: str, kind: str, numbers: tuple[float, ...]) -> None:
    parameter = one(text)
    assert (parameter.kind, parameter.values) == (kind, ())
    assert (parameter.low, parameter.high, parameter.step) == numbers


@pytest.mark.parametrize("value", [[8, "a b", 1e-3, {"x": 1}], "choice(8, a b, 1e-3, {x: 1})"])
def test_choices_hold_values_of_our_yaml(value: Any) -> None:
    parameter = one(value)
    assert (parameter.kind, parameter.values) == ("choice", (8, "a b", 0.001, {"x": 1}))


def test_conditions_name_a_value_or_several_by_dotted_or_nested_path() -> None:
    when = {"optim": {"name": ["sgd", "rmsprop"]}, "model.name": "tiny_cnn"}
    parameter = one({"when": when, "values": "uniform(0, 0.9)"}, "optim.args.momentum")
    assert parameter.kind == "uniform"
    assert parameter.when == (Condition("optim.name", ("sgd", "rmsprop")), Condition("model.name", ("tiny_cnn",)))


@pytest.mark.parametrize(
    ("value", "what", "fix"),
    [
        ([], "empty choice", "write [value, ...]"),
        ("choice()", "empty choice", "write [value, ...]"),
        (0.1, "values to choose from", "write [0.1]"),
        (None, "values to choose from", "leave the path out"),
        ("adam", "values to choose from", "write [adam]"),
        ("uniform 0, 1", "values to choose from", "write uniform(lo, hi)"),
        ("log-uniform(0.1", "values to choose from", "write loguniform(lo, hi)"),
        ({}, "values to choose from", None),
        ({"min": 0, "max": 1}, "values to choose from", None),
        ("log_uniform(1e-4, 1)", "function log_uniform", "did you mean loguniform(lo, hi)?"),
        ("tune.randint(1, 2)", "function tune.randint", "did you mean randint(lo, hi)?"),
        ("gauss(0, 1)", "function gauss", None),
        ("uniform(1)", "2 numbers, not 1", None),
        ("uniform()", "2 numbers, not 0", None),
        ("quniform(1, 2)", "3 numbers, not 2", None),
        ("randint(1, 2, 3)", "2 numbers, not 3", None),
        ("uniform(a, 1)", "numbers, a ", None),
        ("uniform(true, 1)", "numbers, true ", None),
        ("uniform(0, .inf)", "numbers, .inf ", None),
        ("uniform(0, .nan)", "numbers, .nan ", None),
        ("randint(1, 1e3)", "integers, 1000.0 ", "write 1000"),
        ("randint(1, 2.5)", "integers, 2.5 ", None),
        ("uniform(1, 0)", "lower end 1 ", "write uniform(0, 1)"),
        ("loguniform(0, 1)", "lower end 0 ", None),
        ("lograndint(-1, 1)", "lower end -1 ", None),
        ("quniform(0, 1, 0)", "step 0 ", None),
    ],
)
def test_what_cannot_be_read(value: Any, what: str, fix: str | None) -> None:
    problem = wrong(value)
    assert what in problem.what
    assert (problem.path, problem.fix) == ("search.space.optim.lr", fix)
    assert problem.valid or "empty" in what


def test_brackets_inside_brackets_that_are_no_yaml() -> None:
    problem = wrong("choice([1, 2)")
    assert "not valid YAML" in problem.what
    assert problem.found == "choice([1, 2)"


@pytest.mark.parametrize(
    ("value", "path", "what"),
    [
        ({"when": {"optim.name": "sgd"}}, "", "values"),
        ({"values": [1]}, "", "when"),
        ({"wenn": {}, "values": [1]}, ".wenn", "no such key"),
        ({"when": "sgd", "values": [1]}, ".when", "other paths"),
        ({"when": {}, "values": [1]}, ".when", "other paths"),
        ({"when": {"optim.name": []}, "values": [1]}, ".when.optim.name", "empty"),
        ({"when": {"optim.name": "sgd"}, "values": []}, ".values", "empty choice"),
    ],
)
def test_conditions_that_cannot_be_read(value: Any, path: str, what: str) -> None:
    problem = wrong(value)
    assert what in problem.what
    assert problem.path == f"search.space.optim.lr{path}"


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("optim", "section"),
        ("train.early_stop", "section"),
        ("optim.lr", "option"),
        ("model.args", "mapping"),
        ("model.args.width", "argument"),
        ("model.args.block.width", "argument"),
        ("model.args..width", "unknown"),
        ("optim.lr.x", "inside"),
        ("augment.train.resize", "inside"),
        ("optim.lrr", "unknown"),
        ("", "unknown"),
    ],
)
def test_what_a_path_names(path: str, kind: str) -> None:
    assert kind_of(path) == kind


FILE = """\
search:
  space:
    optim: {lr: loguniform(1e-4, 1), weight_decay: [0, 1e-4]}
    model:
      args:
        width: [8,
                16]
    optim.args.momentum: {when: {model.args.width: 8}, values: quniform(0.5, 0.9, 0.2)}
"""


def test_sections_and_dots_are_one_and_every_value_knows_its_origin(tmp_path: Path) -> None:
    file = tmp_path / "one.yaml"
    file.write_text(FILE)
    loaded = load(file, ["search.space.optim.lr=[0.1, 0.2]", "search.space.schedule.name=[step, cosine]"])
    assert loaded.run.search.space == {
        "optim.lr": [0.1, 0.2],
        "optim.weight_decay": [0, 1e-4],
        "model.args.width": [8, 16],
        "optim.args.momentum": {"when": {"model.args.width": 8}, "values": "quniform(0.5, 0.9, 0.2)"},
        "schedule.name": ["step", "cosine"],
    }
    origins = {path: origin for path, origin in loaded.origins.items() if path.startswith("search.space")}
    assert origins == {
        "search.space.optim.lr": "command line",
        "search.space.optim.weight_decay": "one.yaml:3",
        "search.space.model.args.width": "one.yaml:6",
        "search.space.optim.args.momentum.when.model.args.width": "one.yaml:8",
        "search.space.optim.args.momentum.values": "one.yaml:8",
        "search.space.schedule.name": "command line",
    }
    assert "optim.weight_decay: [0, 0.0001]" in show(loaded)
    assert load_text(show(loaded)).run.search == loaded.run.search


def test_an_extended_file_and_an_emptied_space(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(FILE)
    file = tmp_path / "one.yaml"
    file.write_text("extends: base.yaml\nsearch: {space: {optim.lr: [0.1]}}\n")
    assert load(file).run.search.space["optim.lr"] == [0.1]
    assert load(file).origins["search.space.optim.lr"] == "one.yaml:2"
    assert load(file).origins["search.space.optim.weight_decay"] == "base.yaml:3"
    assert load(file, ["search.space={}"]).run.search.space == {}


def test_a_path_that_is_written_in_both_ways() -> None:
    with pytest.raises(ConfigProblemsError) as caught:
        load_text("search:\n  space:\n    optim.lr: [0.1]\n    optim:\n      lr: [0.2]\n", "one.yaml")
    (problem,) = caught.value.problems
    assert (problem.where, problem.path) == ("one.yaml:5", "search.space.optim.lr")
    assert "twice" in problem.what
