"""What is wrong with a space is told before anything starts, each error at its place."""

from __future__ import annotations

import time
from typing import Any

import pytest

from raycls.config.load import ConfigProblemsError, Problem, from_dict, load_text, to_dict
from raycls.config.sections.run import Run
from raycls.config.sections.search import SearchConfig
from raycls.config.space.check import apply, space_of


def problems(space: str, rest: str = "") -> list[Problem]:
    """What is wrong with the lines of a space, whose first is line 3 of the file, before `rest`."""
    text = "search:\n  space:\n" + "".join(f"    {line}\n" for line in space.strip().splitlines()) + rest
    with pytest.raises(ConfigProblemsError) as caught:
        load_text(text, "one.yaml")
    return list(caught.value.problems)


def only(space: str, rest: str = "") -> Problem:
    (problem,) = problems(space, rest)
    return problem


@pytest.mark.parametrize(
    ("path", "fix"),
    [
        ("optim.lrr", "did you mean optim.lr?"),
        ("optm.lr", "did you mean optim.lr?"),
        ("lr", "did you mean optim.lr?"),
        ("learning_rate", "did you mean optim.lr?"),
        ("optim.batch_size", "did you mean data.batch_size?"),
        ("model.arg.width", "did you mean model.args.width?"),
        ("qqqq.zzzz", None),
    ],
)
def test_a_misspelt_path(path: str, fix: str | None) -> None:
    problem = only(f"loss.args.label_smoothing: [0, 0.1]\n{path}: [0.1]")
    assert (problem.where, problem.path) == ("one.yaml:4", f"search.space.{path}")
    assert "no such option" in problem.what
    assert problem.fix == fix


def test_a_misspelt_path_is_told_with_its_neighbours() -> None:
    assert str(only("optim.lrr: [0.1]").valid).startswith("optim.name, optim.lr, ")


@pytest.mark.parametrize(
    "path",
    [
        "run.seed",
        "scale.workers",
        "search.trials",
        "track.log_every",
        "checkpoint.every",
        "evaluate.metric",
        "data.source.path",
        "data.source.args.x",
        "data.split.seed",
        "data.formats",
        "data.max_pixels",
        "data.channels",
        "data.bit_depth",
        "data.executor",
        "data.prefetch",
        "train.budget",
        "train.ledger",
        "extends",
        "run",
    ],
)
def test_a_path_that_may_not_be_searched(path: str) -> None:
    problem = only(f"{path}: [1, 2]")
    assert (problem.where, problem.path) == ("one.yaml:3", f"search.space.{path}")
    assert " cannot be searched: " in problem.what


def test_a_section_and_what_lies_inside_a_value() -> None:
    section, inside = problems("optim: [sgd]\nmodel.name.x: [1]")
    assert "section" in section.what
    assert "optim.lr" in str(section.valid)
    assert (inside.path, inside.fix) == ("search.space.model.name.x", "search model.name")


CHOICES = """
optim.lr:
  - 0.1
  - "0.2"
  - -1
optim.weight_decay_on: [all, weight]
data.batch_size: [32, 64.5]
schedule.warmup: [1ep, 3]
augment.train: [[resize, 5], null]
optim.args.momentum:
  when: {optim.weight_decay_on: all}
  values:
    - 0.9
    - 1.0
"""


def test_every_wrong_value_of_a_choice_is_told_at_its_own_line() -> None:
    found = [(problem.where, problem.path, problem.what.split()[-1], problem.fix) for problem in problems(CHOICES)]
    choice = "choices"
    assert found == [
        ("one.yaml:5", "search.space.optim.lr[1]", "value", "write 0.2"),
        ("one.yaml:6", "search.space.optim.lr[2]", "range", None),
        ("one.yaml:7", "search.space.optim.weight_decay_on[1]", choice, "did you mean weights?"),
        ("one.yaml:8", "search.space.data.batch_size[1]", "value", None),
        ("one.yaml:9", "search.space.schedule.warmup[1]", "value", "write 3ep or write 3st"),
        ("one.yaml:10", "search.space.augment.train[0][1]", "value", None),
        ("one.yaml:15", "search.space.optim.args.momentum[1]", "range", None),
    ]


def test_a_wrong_value_is_told_with_what_was_found_and_what_is_allowed() -> None:
    problem = only("optim.lr: [0.1, -1]")
    assert (problem.found, problem.valid) == ("-1 (integer)", "a number, greater than 0")


@pytest.mark.parametrize(
    ("line", "what", "valid"),
    [
        ("optim.lr: uniform(0, 1)", "lower end 0 ", "a number, greater than 0"),
        (
            "optim.args.momentum: uniform(0.5, 1)",
            "upper end 1 ",
            "a number, at least 0 and less than 1",
        ),
        (
            "data.batch_size: randint(0, 64)",
            "lower end 0 ",
            "an integer, at least 1",
        ),
        (
            "loss.args.label_smoothing: quniform(0, 1, 0.25)",
            "upper end 1.0 ",
            "a number, at least 0 and less than 1",
        ),
        ("optim.ema: uniform(0.9, 1)", "upper end 1 ", None),
        ("optim.weight_decay_on: randint(1, 2)", "a range", "all or weights"),
        ("optim.args.nesterov: randint(0, 1)", "a range", "true or false"),
        ("train.duration: randint(5, 9)", "a range", None),
        ("model.args: uniform(0, 1)", "a range", "a mapping"),
    ],
)
def test_a_range_that_is_partly_or_wholly_outside(line: str, what: str, valid: str | None) -> None:
    problem = only(line)
    path, _, text = line.partition(": ")
    assert what in problem.what
    assert (problem.where, problem.path, problem.found) == ("one.yaml:3", f"search.space.{path}", text)
    assert problem.valid == valid if valid else problem.valid


def test_both_ends_can_be_outside() -> None:
    assert len(problems("optim.args.momentum: uniform(-1, 1)")) == 2


@pytest.mark.parametrize(
    ("line", "fix"),
    [
        ("data.batch_size: uniform(16, 64)", "write randint(16, 64)"),
        ("data.batch_size: loguniform(0.5, 64)", "write lograndint(1, 64)"),
        ("data.batch_size: quniform(16, 64, 0.5)", "write quniform(16, 64, 1)"),
        ("train.micro_batches: uniform(1, 4)", "write randint(1, 4)"),
    ],
)
def test_fractions_where_whole_numbers_belong(line: str, fix: str) -> None:
    problem = only(line)
    assert problem.fix == fix
    assert str(problem.valid).startswith("an integer, at least 1")


@pytest.mark.parametrize(
    ("line", "index"),
    [
        ("optim.lr: [0.1, 0.2, 1e-1]", 2),
        ("model.args.width: [1, 1.0]", 1),
        ("model.args: [{width: 8}, {width: 8}]", 1),
        ("optim.name: choice(sgd, sgd)", 1),
    ],
)
def test_a_value_that_is_there_twice(line: str, index: int) -> None:
    problem = only(line)
    assert problem.path == f"search.space.{line.partition(':')[0]}[{index}]"
    assert "twice" in problem.what


def test_true_and_one_are_two_values() -> None:
    load_text("search: {space: {model.args.x: [1, true, '1']}}")


def test_a_path_inside_another_one() -> None:
    problem = only("model.args.width: [8]\nmodel.args: [{depth: 1}]")
    assert problem.where == "one.yaml:3"
    assert "inside model.args" in problem.what


def test_problems_of_conditions_have_the_line_of_the_condition() -> None:
    found = problems("""
optim.name: [sgd, adamw]
optim.args.momentum:
  when:
    optim.nane: sgd
  values: [0.5, 0.9]
optim.args.eps:
  when: {optim.name: [adamw, adam]}
  values: [1e-8, 1e-6]
""")
    assert [(problem.where, problem.path, problem.fix) for problem in found] == [
        ("one.yaml:6", "search.space.optim.args.momentum.when.optim.nane", "did you mean optim.name?"),
        ("one.yaml:9", "search.space.optim.args.eps.when.optim.name", None),
    ]
    assert (found[1].found, found[1].valid) == ("adam (string)", "sgd, adamw")


def test_a_circle_of_conditions() -> None:
    problem = only(
        """
optim.args.momentum: {when: {optim.args.alpha: 0.9}, values: [0.5, 0.9]}
optim.args.alpha: {when: {optim.args.momentum: 0.9}, values: [0.5, 0.9]}
""",
        "optim: {name: rmsprop}\n",
    )
    assert problem.where == "one.yaml:3"
    assert "optim.args.momentum -> optim.args.alpha -> optim.args.momentum" in problem.what


def test_a_grid_needs_finite_values() -> None:
    problem = only("optim.lr: loguniform(1e-4, 1)\noptim.args.momentum: quniform(0, 0.9, 0.1)", "  algorithm: grid\n")
    assert (problem.path, problem.found) == ("search.space.optim.lr", "loguniform(0.0001, 1)")
    assert "search.algorithm: random" in str(problem.fix)


def test_population_based_training_varies_what_can_change_within_a_run() -> None:
    right = "optim.lr: loguniform(1e-4, 1)\naugment.train: [[resize], [center_crop]]\n"
    found = problems(right + "model.args.width: [8, 16]\noptim.ema: [0.9]", "  scheduler: {name: pbt}\n")
    assert [problem.path for problem in found] == ["search.space.model.args.width", "search.space.optim.ema"]
    assert "optim.lr" in str(found[0].valid)


def test_a_combination_that_breaks_a_rule_is_named() -> None:
    problem = only("optim.args.nesterov: [true, false]\noptim.args.momentum: uniform(0, 0.9)")
    assert (problem.where, problem.path) == ("one.yaml:3", "search.space.optim.args.nesterov")
    assert problem.what.startswith(
        "a combination breaks a rule: args.nesterov: true needs args.momentum greater than 0"
    )
    assert problem.found == "optim.args.nesterov: true, optim.args.momentum: 0"


def test_a_rule_between_the_space_and_the_rest_of_the_config_is_told_once() -> None:
    problem = only("data.batch_size: [2, 3, 8]", "train: {micro_batches: 4}\n")
    assert "train.micro_batches (4)" in problem.what
    assert problem.found == "data.batch_size: 2, train.micro_batches: 4"


def test_a_value_that_no_combination_can_have() -> None:
    assert "epochs or steps" in only("train.duration: [5ep, 2h]").what


def test_a_condition_mends_a_combination() -> None:
    space = (
        "optim.args: {nesterov: [true, false], momentum: {when: {optim.args.nesterov: false}, values: uniform(0, 0.9)}}"
    )
    run = load_text(f"search: {{space: {{{space}}}}}").run
    assert space_of(run).paths == ("optim.args.nesterov", "optim.args.momentum")


def test_problems_of_the_space_come_with_all_others() -> None:
    found = problems("optim.lrr: [1]\nmodel.args.x: []", "optim: {lr: x, lrr: 3}\n")
    assert [problem.path for problem in found] == [
        "search.space.optim.lrr",
        "search.space.model.args.x",
        "optim.lrr",
        "optim.lr",
    ]


def test_a_space_with_too_many_paths() -> None:
    assert "200 paths" in only("\n".join(f"model.args.a{index}: [1, 2]" for index in range(201))).what


def test_a_large_space_is_right_and_quick() -> None:
    lines = [f"model.args.a{index}: [{', '.join(map(str, range(20)))}]" for index in range(60)]
    lines += [
        "optim.lr: loguniform(1e-5, 10)",
        "data.batch_size: lograndint(1, 4096)",
        "optim.name: [sgd, adam, adamw]",
    ]
    lines += [
        "optim.args.momentum: {when: {optim.name: sgd}, values: uniform(0, 0.99)}",
        "schedule.warmup: [0st, 1ep, 5%]",
    ]
    lines += [
        "augment.train: [null, [resize], [{random_crop: {size: 8}}, horizontal_flip]]",
        "optim.clip_norm: ['off', 1]",
    ]
    text = "search:\n  space:\n" + "".join(f"    {line}\n" for line in lines)
    began = time.process_time()
    space = space_of(load_text(text).run)
    assert time.process_time() - began < 5  # a tenth of that on a quiet machine; a measure of it is no test
    assert len(space.parameters) == 67
    assert space.size() is None


def test_no_space_is_no_problem() -> None:
    assert space_of(Run()).parameters == ()
    assert space_of(load_text("search: {space: }").run).size() == 1


def test_a_space_that_was_not_loaded_is_checked_when_it_is_used() -> None:
    with pytest.raises(ConfigProblemsError, match=r"search\.space\.optim\.lrr"):
        space_of(from_dict({"search": {"space": {"optim": {"lrr": [1]}}}}))


SEARCH: dict[str, Any] = {
    "model": {"args": {"width": 48, "depth": 2}},
    "search": {"space": {"model.args.width": [8]}, "trials": 3},
}


def test_apply_sets_values_and_leaves_the_search_out() -> None:
    run = from_dict(SEARCH)
    chosen = {
        "optim.lr": 1,
        "model.args.width": 8,
        "schedule.warmup": "3ep",
        "optim.name": "adam",
        "optim.args.betas": [0.5, 0.9],
    }
    trial = apply(run, chosen)
    assert trial.search == SearchConfig()
    assert (trial.optim.lr, trial.optim.args["betas"], str(trial.schedule.warmup)) == (1.0, [0.5, 0.9], "3ep")
    assert trial.model.args == {"width": 8, "depth": 2}
    assert run.model.args == {"width": 48, "depth": 2}
    assert from_dict(to_dict(trial)) == trial


def test_apply_takes_a_whole_mapping_and_a_path_that_is_not_there_yet() -> None:
    run = from_dict(SEARCH)
    assert apply(run, {"model.args": {"groups": 4}}).model.args == {"groups": 4}
    assert apply(run, {"model.args.block.kind": "a"}).model.args == {"width": 48, "depth": 2, "block": {"kind": "a"}}


@pytest.mark.parametrize(
    ("chosen", "path"),
    [({"optim.lrr": 1}, "optim.lrr"), ({"optim.lr": -1}, "optim.lr"), ({"train.duration": "2h"}, "train.duration")],
)
def test_apply_refuses_what_cannot_run(chosen: dict[str, Any], path: str) -> None:
    with pytest.raises(ConfigProblemsError) as caught:
        apply(Run(), chosen)
    assert [problem.path for problem in caught.value.problems] == [path]
