from __future__ import annotations

import re
from pathlib import Path

import pytest

from raycls.config.describe import allowed, options
from raycls.config.load import ConfigProblemsError, Problem, load, load_text, show, to_yaml
from raycls.config.sections.optim import OptimConfig
from raycls.config.sections.run import Run
from raycls.config.sections.search import SchedulerConfig
from raycls.config.sections.types import Section
from raycls.config.space.effective import EFFECTIVE
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
        ("optim: {weight_decay_on: weights}", "optim.weight_decay_on"),
        ("data: {processes: 4}", "data.processes"),
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
        "optim: {weight_decay: 1e-4, weight_decay_on: weights}",
        "data: {executor: processes, processes: 4, prefetch: 8}",
        "data: {executor: inline, prefetch: 8}",
        "train: {early_stop: {patience: 3, min_delta: 0.1}}",
    ],
)
def test_a_value_with_effect_is_none(tmp_path: Path, text: str) -> None:
    assert problems(tmp_path, text) == []


def test_the_message_names_the_other_choice_and_what_would_help(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, "data:\n  executor: inline\n  processes: 4\n")
    assert str(found) == (
        f"{tmp_path / 'mine.yaml'}:3  data.processes: it has no effect beside data.executor: inline\n"
        "  found: 4 (integer)\n"
        "  valid: beside data.executor: processes\n"
        "  fix:   leave it out, or change the other one"
    )


def test_all_of_them_are_told_beside_other_problems(tmp_path: Path) -> None:
    found = problems(tmp_path, "optim: {lr: -1, ema_warmup: off}\ndata: {processes: 2}\n")
    assert sorted(paths(found)) == ["data.processes", "optim.ema_warmup", "optim.lr"]


def test_nothing_is_said_that_hangs_on_a_value_which_is_wrong_itself(tmp_path: Path) -> None:
    text = "data: {executor: inlin, processes: 2}\nscale: {workers: 0, max_failures: -7}\n"
    assert paths(problems(tmp_path, text)) == ["data.executor", "scale.max_failures"]


def test_a_later_layer_may_choose_otherwise(tmp_path: Path) -> None:
    base = "search: {scheduler: {name: asha, reduction: 3}}\nscale: {max_failures: 9}\n"
    assert problems(tmp_path, "search: {scheduler: {name: median}}\n", "scale.workers=0", base=base) == []
    assert problems(tmp_path, "data: {executor: processes, processes: 3}\n", "data.executor=inline") == []


def test_what_the_later_layer_adds_must_have_an_effect(tmp_path: Path) -> None:
    found = problems(tmp_path, "data: {executor: inline}\n", "data.processes=3")
    assert [(item.where, item.path) for item in found] == [("command line", "data.processes")]
    found = problems(tmp_path, "", "data.executor=inline", "data.processes=3")
    assert paths(found) == ["data.processes"]
    found = problems(tmp_path, "data: {processes: 3}\n", base="data: {executor: inline}\n")
    assert [(item.place.line, item.path) for item in found] == [(2, "data.processes")]


def test_a_searched_choice_makes_what_hangs_on_it_allowed(tmp_path: Path) -> None:
    decay = "search: {space: {optim.weight_decay: 'loguniform(1e-5, 1e-2)'}}\n"
    assert problems(tmp_path, f"{decay}optim: {{weight_decay_on: weights}}\n") == []
    assert paths(problems(tmp_path, f"{decay}optim: {{ema_warmup: off}}\n")) == ["optim.ema_warmup"]


def test_a_searched_option_without_effect_is_a_problem_in_the_space(tmp_path: Path) -> None:
    text = "optim: {ema: off}\nsearch:\n  space:\n    optim:\n      ema_warmup: [ramp, off]\n"
    found = problems(tmp_path, text)
    assert [(item.place.line, item.path) for item in found] == [(5, "search.space.optim.ema_warmup")]
    assert problems(tmp_path, text.replace("ema: off", "ema: 0.9")) == []


def searching(space: str, rest: str = "") -> str:
    return f"{rest}search:\n  space:\n    optim.lr: [0.1, 0.2]\n{space}"


@pytest.mark.parametrize(
    ("space", "beside"),
    [
        ("    optim.name: [sgd, adamw]\n    optim.args.momentum: uniform(0.8, 0.99)\n", "optim.name: adamw"),
        ("    optim.args.momentum: [0.8, 0.9]\n    optim.name: [rmsprop, adam]\n", "optim.name: adam"),
        (
            "    optim.args.momentum: {when: {optim.lr: 0.1}, values: [0.8, 0.9]}\n    optim.name: [sgd, adamw]\n",
            "optim.name: adamw",
        ),
        (
            "    optim.name: [sgd, adam, adamw]\n"
            "    optim.args.momentum: {when: {optim.name: [sgd, adam]}, values: [0]}\n",
            "optim.name: adam",
        ),
        # without the condition's value, optim.name is the adamw of the rest
        (
            "    optim.args.momentum: [0.8, 0.9]\n    optim.name: {when: {optim.lr: 0.1}, values: [sgd, rmsprop]}\n",
            "optim.name: adamw",
        ),
    ],
)
def test_a_searched_option_that_some_trials_have_for_nothing_is_a_problem(
    tmp_path: Path, space: str, beside: str
) -> None:
    (found,) = problems(tmp_path, searching(space, "optim: {name: adamw}\n"))
    line = 5 + next(index for index, text in enumerate(space.splitlines()) if "optim.args.momentum" in text)
    assert (found.place.line, found.path) == (line, "search.space.optim.args.momentum")
    assert beside in found.what and "searched" in found.what
    assert found.fix is not None and "{when: {optim.name: " in found.fix


@pytest.mark.parametrize(
    "space",
    [
        "    optim.name: [sgd, adamw]\n    optim.args.momentum: {when: {optim.name: sgd}, values: [0.8, 0.9]}\n",
        "    optim.name: [sgd, rmsprop]\n    optim.args.momentum: [0.8, 0.9]\n",
        "    optim.weight_decay: uniform(0, 0.1)\n    optim.weight_decay_on: [all, weights]\n",
        # one thing decides about both
        "    optim.name: {when: {optim.lr: 0.1}, values: [sgd]}\n"
        "    optim.args.momentum: {when: {optim.lr: 0.1}, values: [0.8, 0.9]}\n",
    ],
)
def test_a_searched_option_with_effect_in_every_trial_is_none(tmp_path: Path, space: str) -> None:
    assert problems(tmp_path, searching(space, "optim: {name: adamw}\n")) == []


def test_what_is_searched_for_nothing_is_told_once_the_space_is_right(tmp_path: Path) -> None:
    space = "    optim.name: [sgd, adamw]\n    optim.args.momentum: [0.8, 1.9]\n"
    assert paths(problems(tmp_path, searching(space))) == ["search.space.optim.args.momentum[1]"]


def test_a_search_folder_of_an_earlier_version_is_read() -> None:
    text = searching("    optim.name: [sgd, adamw]\n    optim.args.momentum: [0.8, 0.9]\n")
    assert load_text(text).run.search.space["optim.args.momentum"] == [0.8, 0.9]


def test_what_raycls_printed_is_a_config_again(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("optim: {name: sgd, args: {momentum: 0.8}}\n")
    loaded = load(tmp_path / "mine.yaml", ("optim.name=adamw",))
    for text in (show(loaded), to_yaml(loaded.run)):
        file = tmp_path / "config.yaml"
        file.write_text(text)
        assert load(file, ("run.name=again",)).run.optim == loaded.run.optim
        assert load_text(text).run == loaded.run
        assert paths(problems(tmp_path, text, "optim.ema_warmup=off")) == ["optim.ema_warmup"]


def test_what_an_earlier_version_printed_is_a_config_again(tmp_path: Path) -> None:
    """It lacks the options that are new since: every fourth one, say."""
    printed = to_yaml(Run())
    for start in range(4):
        scalars = [line for line in printed.splitlines() if re.fullmatch(r"  \w+: [^{\[].*", line)]
        without = [line for line in printed.splitlines() if line not in scalars[start::4]]
        assert problems(tmp_path, "\n".join(without), "run.name=again") == []


def test_the_table_names_options_and_values_that_exist() -> None:
    values = {".".join(map(str, path)): value for path, value in leaves(to_dict(Run()))}
    for option, needs in EFFECTIVE.items():
        assert {option, needs.choice} <= set(options())
        _, choices = allowed(tuple(needs.choice.split(".")))
        number = isinstance(values[needs.choice], (int, float))
        free = needs.choice in ("data.source.name", "task.name", "track.mlflow.uri")
        assert number or free or set(needs.values) <= set(choices)


def test_every_option_that_says_it_is_for_some_choice_is_in_the_table() -> None:
    sections: dict[str, type[Section]] = {"optim": OptimConfig}
    sections["search.scheduler"] = SchedulerConfig
    said = {
        f"{section}.{name}"
        for section, model in sections.items()
        for name, field in model.model_fields.items()
        if re.match(r"For \w+", field.description or "")
    }
    assert said == {option for option in EFFECTIVE if option.rpartition(".")[0] in sections} - {"optim.weight_decay_on"}
