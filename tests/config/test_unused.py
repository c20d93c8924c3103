from __future__ import annotations

import re
from pathlib import Path

import pytest

from raycls.config.describe import allowed, options
from raycls.config.load import ConfigProblemsError, Problem, load, load_text, show, to_yaml
from raycls.config.sections import run, search
from raycls.config.sections.run import Run
from raycls.config.unused import _EFFECTIVE  # pyright: ignore[reportPrivateUsage]
from raycls.config.write import leaves, to_dict


def problems(folder: Path, text: str, *overrides: str, base: str = "") -> list[Problem]:
    (folder / "base.yaml").write_text(base)
    file = folder / "mine.yaml"
    file.write_text(("extends: base.yaml\n" if base else "") + text)
    try:
        load(file, overrides)
    except ConfigProblemsError as error:
        return list(error.problems)
    return []


def paths(found: list[Problem]) -> list[str]:
    return [problem.path for problem in found]


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("optim: {name: adamw, momentum: 0.9}", "optim.momentum"),
        ("optim: {betas: [0.9, 0.99]}", "optim.betas"),
        ("optim: {name: rmsprop, nesterov: true}", "optim.nesterov"),
        ("optim: {weight_decay_on: weights}", "optim.weight_decay_on"),
        ("schedule: {name: cosine, gamma: 0.5}", "schedule.gamma"),
        ("schedule: {milestones: [3ep]}", "schedule.milestones"),
        ("data: {processes: 4}", "data.processes"),
        ("data: {executor: inline, prefetch: 8}", "data.prefetch"),
        ("data: {source: {name: arrays}, max_pixels: 100}", "data.max_pixels"),
        ("train: {early_stop: {min_delta: 0.1}}", "train.early_stop.min_delta"),
        ("scale: {workers: 0, max_failures: 5}", "scale.max_failures"),
        ("search: {scheduler: {name: pbt, grace: 2ep}}", "search.scheduler.grace"),
    ],
)
def test_a_value_written_for_nothing_is_a_problem(tmp_path: Path, text: str, option: str) -> None:
    found = problems(tmp_path, f"\n{text}\n")
    assert paths(found) == [option]
    assert found[0].place.line == 2
    assert "no effect beside" in found[0].what


@pytest.mark.parametrize(
    "text",
    [
        "optim: {name: sgd, momentum: 0.5, nesterov: true, weight_decay: 1e-4, weight_decay_on: weights}",
        "optim: {name: rmsprop, momentum: 0.5, alpha: 0.9, eps: 1e-6}",
        "optim: {momentum: 0.5}",
        "schedule: {name: plateau, gamma: 0.5, patience: 2, min_factor: 0.1}",
        "data: {executor: processes, processes: 4, prefetch: 8}",
        "train: {early_stop: {patience: 3, min_delta: 0.1}}",
    ],
)
def test_a_value_with_effect_is_none(tmp_path: Path, text: str) -> None:
    assert problems(tmp_path, text) == []


def test_the_message_names_the_other_choice_and_what_would_help(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, "optim:\n  name: adamw\n  momentum: 0.9\n")
    assert str(found) == (
        f"{tmp_path / 'mine.yaml'}:3  optim.momentum: it has no effect beside optim.name: adamw\n"
        "  found: 0.9 (a number)\n"
        "  valid: beside optim.name: sgd or rmsprop\n"
        "  fix:   leave it out, or change the other one"
    )


def test_all_of_them_are_told_beside_other_problems(tmp_path: Path) -> None:
    found = problems(tmp_path, "optim: {name: adam, momentum: 0.9, alpha: 0.5, lr: -1}\nschedule: {gamma: 0.5}\n")
    assert sorted(paths(found)) == ["optim.alpha", "optim.lr", "optim.momentum", "schedule.gamma"]


def test_nothing_is_said_that_hangs_on_a_value_which_is_wrong_itself(tmp_path: Path) -> None:
    assert paths(problems(tmp_path, "optim: {name: adm, momentum: 0.9}\nschedule: {gamma: 7}\n")) == [
        "optim.name",
        "schedule.gamma",
    ]


def test_a_later_layer_may_choose_otherwise(tmp_path: Path) -> None:
    base = "optim: {name: sgd, momentum: 0.8}\nscale: {max_failures: 9}\n"
    assert problems(tmp_path, "optim: {name: adamw}\n", "scale.workers=0", base=base) == []
    assert problems(tmp_path, "schedule: {name: step, every: 2ep}\n", "schedule.name=cosine") == []


def test_what_the_later_layer_adds_must_have_an_effect(tmp_path: Path) -> None:
    found = problems(tmp_path, "optim: {name: adamw}\n", "optim.momentum=0.5")
    assert [(item.where, item.path) for item in found] == [("command line", "optim.momentum")]
    found = problems(tmp_path, "", "optim.name=adamw", "optim.momentum=0.5")
    assert paths(found) == ["optim.momentum"]
    found = problems(tmp_path, "optim: {momentum: 0.8}\n", base="optim: {name: adamw}\n")
    assert [(item.place.line, item.path) for item in found] == [(2, "optim.momentum")]


def test_a_searched_choice_makes_what_hangs_on_it_allowed(tmp_path: Path) -> None:
    space = "search: {space: {optim.name: [sgd, adamw]}}\n"
    assert problems(tmp_path, f"{space}optim: {{name: adamw, momentum: 0.8, betas: [0.9, 0.99]}}\n") == []
    decay = "search: {space: {optim.weight_decay: 'loguniform(1e-5, 1e-2)'}}\n"
    assert problems(tmp_path, f"{decay}optim: {{weight_decay_on: weights}}\n") == []
    assert paths(problems(tmp_path, f"{space}optim: {{alpha: 0.5}}\n")) == ["optim.alpha"]


def test_a_searched_option_without_effect_is_a_problem_in_the_space(tmp_path: Path) -> None:
    text = "optim: {name: adamw}\nsearch:\n  space:\n    optim:\n      momentum: [0.8, 0.9]\n"
    found = problems(tmp_path, text)
    assert [(item.place.line, item.path) for item in found] == [(5, "search.space.optim.momentum")]
    assert problems(tmp_path, text.replace("adamw", "rmsprop")) == []


def searching(space: str, rest: str = "") -> str:
    return f"{rest}search:\n  space:\n    optim.lr: [0.1, 0.2]\n{space}"


@pytest.mark.parametrize(
    ("space", "beside"),
    [
        ("    optim.name: [sgd, adamw]\n    optim.momentum: uniform(0.8, 0.99)\n", "optim.name: adamw"),
        ("    optim.momentum: [0.8, 0.9]\n    optim.name: [rmsprop, adam]\n", "optim.name: adam"),
        (
            "    optim.momentum: {when: {optim.lr: 0.1}, values: [0.8, 0.9]}\n    optim.name: [sgd, adamw]\n",
            "optim.name: adamw",
        ),
        (
            "    optim.name: [sgd, adam, adamw]\n    optim.momentum: {when: {optim.name: [sgd, adam]}, values: [0]}\n",
            "optim.name: adam",
        ),
        # without the condition's value, optim.name is the adamw of the rest
        (
            "    optim.momentum: [0.8, 0.9]\n    optim.name: {when: {optim.lr: 0.1}, values: [sgd, rmsprop]}\n",
            "optim.name: adamw",
        ),
    ],
)
def test_a_searched_option_that_some_trials_have_for_nothing_is_a_problem(
    tmp_path: Path, space: str, beside: str
) -> None:
    (found,) = problems(tmp_path, searching(space, "optim: {name: adamw}\n"))
    line = 5 + next(index for index, text in enumerate(space.splitlines()) if "optim.momentum" in text)
    assert (found.place.line, found.path) == (line, "search.space.optim.momentum")
    assert f"no effect beside {beside}, which is searched too" in found.what
    assert found.fix is not None and "{when: {optim.name: " in found.fix


@pytest.mark.parametrize(
    "space",
    [
        "    optim.name: [sgd, adamw]\n    optim.momentum: {when: {optim.name: sgd}, values: [0.8, 0.9]}\n",
        "    optim.name: [sgd, rmsprop]\n    optim.momentum: [0.8, 0.9]\n",
        "    optim.weight_decay: uniform(0, 0.1)\n    optim.weight_decay_on: [all, weights]\n",
        # one thing decides about both
        "    optim.name: {when: {optim.lr: 0.1}, values: [sgd]}\n"
        "    optim.momentum: {when: {optim.lr: 0.1}, values: [0.8, 0.9]}\n",
    ],
)
def test_a_searched_option_with_effect_in_every_trial_is_none(tmp_path: Path, space: str) -> None:
    assert problems(tmp_path, searching(space, "optim: {name: adamw}\n")) == []


def test_what_is_searched_for_nothing_is_told_once_the_space_is_right(tmp_path: Path) -> None:
    space = "    optim.name: [sgd, adamv]\n    optim.momentum: [0.8, 0.9]\n"
    assert ["optim.name" in path for path in paths(problems(tmp_path, searching(space)))] == [True]


def test_a_search_folder_of_an_earlier_version_is_read() -> None:
    text = searching("    optim.name: [sgd, adamw]\n    optim.momentum: [0.8, 0.9]\n")
    assert load_text(text).run.search.space["optim.momentum"] == [0.8, 0.9]


def test_what_raycls_printed_is_a_config_again(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("optim: {name: sgd, momentum: 0.8}\n")
    loaded = load(tmp_path / "mine.yaml", ("optim.name=adamw",))
    for text in (show(loaded), to_yaml(loaded.run)):
        file = tmp_path / "config.yaml"
        file.write_text(text)
        assert load(file, ("run.name=again",)).run.optim == loaded.run.optim
        assert load_text(text).run == loaded.run
        assert paths(problems(tmp_path, text, "optim.alpha=0.5")) == ["optim.alpha"]


def test_a_run_folder_of_an_earlier_version_is_read() -> None:
    assert load_text("optim: {name: adamw, momentum: 0.5}\n").run.optim.momentum == 0.5


def test_the_table_names_options_and_values_that_exist() -> None:
    values = {".".join(map(str, path)): value for path, value in leaves(to_dict(Run()))}
    for option, needs in _EFFECTIVE.items():
        assert {option, needs.choice} <= set(options())
        _, choices = allowed(tuple(needs.choice.split(".")))
        number = isinstance(values[needs.choice], (int, float))
        assert number or needs.choice in ("data.source.name", "track.mlflow.uri") or set(needs.values) <= set(choices)


def test_every_option_that_says_it_is_for_some_choice_is_in_the_table() -> None:
    sections = {"optim": run.OptimConfig, "schedule": run.ScheduleConfig}
    sections["search.scheduler"] = search.SchedulerConfig
    said = {
        f"{section}.{name}"
        for section, model in sections.items()
        for name, field in model.model_fields.items()
        if re.match(r"For \w+|Smoothing constant of rmsprop", field.description or "")
    }
    assert said == {option for option in _EFFECTIVE if option.rpartition(".")[0] in sections} - {
        "optim.weight_decay_on"
    }
