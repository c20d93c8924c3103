from __future__ import annotations

from typing import Any

import pytest

from raycls.config.describe import options
from raycls.config.difference import difference
from raycls.config.load import ConfigProblemsError, from_dict
from raycls.config.names.metrics import CLASSIFICATION
from raycls.config.sections.search import SearchConfig, objective


def problem(values: dict[str, Any]) -> tuple[str, str]:
    with pytest.raises(ConfigProblemsError) as caught:
        from_dict(values)
    (only,) = caught.value.problems
    return only.path, only.what


def test_the_names_of_the_options() -> None:
    names = [path.removeprefix("search.") for path in options() if path.startswith("search.")]
    assert names == [
        *("space", "trials", "metric", "mode", "algorithm", "seed", "scheduler", "scheduler.name", "scheduler.grace"),
        *("scheduler.reduction", "scheduler.brackets", "scheduler.interval", "scheduler.quantile"),
        *("scheduler.resample", "max_concurrent", "max_parameters", "max_flops", "gpus_per_trial", "target", "budget"),
        *("max_failures", "confirm", "confirm.seeds"),
    ]


@pytest.mark.parametrize(
    ("search", "path"),
    [
        ({"trials": 0}, "search.trials"),
        ({"metric": "accuracy"}, "search.metric"),
        ({"scheduler": {"reduction": 1}}, "search.scheduler.reduction"),
        ({"scheduler": {"quantile": 0.6}}, "search.scheduler.quantile"),
        ({"scheduler": {"grace": "0ep"}}, "search.scheduler.grace"),
        ({"scheduler": {"interval": "0st"}}, "search.scheduler.interval"),
        ({"gpus_per_trial": 1.5}, "search.gpus_per_trial"),
        ({"confirm": {"seeds": 1}}, "search.confirm.seeds"),
        ({"budget": "3ep"}, "search.budget"),
        ({"budget": "0s"}, "search.budget"),
        ({"max_flops": 0}, "search.max_flops"),
        ({"target": float("nan")}, "search.target"),
    ],
)
def test_values_that_are_not_allowed(search: dict[str, Any], path: str) -> None:
    assert problem({"search": search})[0] == path


@pytest.mark.parametrize(
    ("values", "path", "words"),
    [
        (
            {"evaluate": {"every": "off"}, "search": {"space": {"optim.lr": [1]}}},
            "evaluate.every",
            "by their evaluations",
        ),
        ({"search": {"metric": "loss", "mode": "max"}}, "search.mode", "the worst loss"),
        ({"search": {"mode": "min"}}, "search.mode", "the worst top1"),
        ({"evaluate": {"metric": "loss"}, "search": {"mode": "max"}}, "search.mode", "the worst loss"),
        ({"search": {"target": 95}}, "search.target", "95 is never reached: top1"),
        ({"search": {"target": -0.1, "metric": "loss"}}, "search.target", "never reached: loss"),
        ({"search": {"algorithm": "grid", "scheduler": {"name": "pbt"}}}, "search.scheduler.name", "grid"),
        ({"scale": {"workers": 2}, "search": {"gpus_per_trial": 0.5}}, "search.gpus_per_trial", "one worker"),
    ],
)
def test_rules_over_several_options(values: dict[str, Any], path: str, words: str) -> None:
    found = problem(values)
    assert found[0] == path
    assert words in found[1]


def test_what_is_allowed() -> None:
    from_dict({"evaluate": {"every": "off"}})  # without a space there is no search
    from_dict({"search": {"metric": "loss", "mode": "min", "budget": "2h", "target": 0.1, "gpus_per_trial": 0.5}})


@pytest.mark.parametrize(
    ("metric", "evaluated", "expected"),
    [
        ("auto", "top1", ("top1", "max")),
        ("auto", "loss", ("loss", "min")),
        ("loss", "top1", ("loss", "min")),
        ("f1_macro", "loss", ("f1_macro", "max")),
    ],
)
def test_what_trials_are_compared_by(metric: Any, evaluated: str, expected: tuple[str, str]) -> None:
    assert objective(SearchConfig(metric=metric), evaluated, CLASSIFICATION) == expected


def test_a_search_does_not_make_it_another_run() -> None:
    new = from_dict({"search": {"space": {"optim.lr": [1, 2]}, "trials": 3, "scheduler": {"name": "none"}}})
    found = difference(from_dict({}), new)
    assert {each.path for each in found} == {"search.space.optim.lr", "search.trials", "search.scheduler.name"}
    assert all(each.harmless for each in found)
