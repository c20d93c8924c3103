from __future__ import annotations

import pytest

from raycls.config.sections.search import SearchConfig
from raycls.config.space.space import Condition, Parameter, Space
from raycls.errors import ConfigError
from raycls.search.random import Random
from raycls.search.samplers import Grid, make_sampler
from raycls.search.tpe import Tpe

_SPACE = Space(
    (
        Parameter("a", "choice", ("x", "y")),
        Parameter("b", "randint", low=1, high=3, when=(Condition("a", ("y",)),)),
        Parameter("c", "choice", (True, False)),
    )
)


@pytest.mark.parametrize(("algorithm", "kind"), [("grid", Grid), ("random", Random), ("optuna", Tpe)])
def test_each_algorithm_has_its_sampler(algorithm: str, kind: type) -> None:
    search = SearchConfig.model_validate({"algorithm": algorithm})
    assert type(make_sampler(_SPACE, search, mode="max")) is kind


@pytest.mark.parametrize("algorithm", ["grid", "random", "optuna"])
def test_the_budget_reaches_every_sampler(algorithm: str) -> None:
    search = SearchConfig.model_validate({"algorithm": algorithm})
    sampler = make_sampler(_SPACE, search, mode="max", fits=lambda chosen: chosen["a"] == "y" and chosen["c"])
    found = [sampler.suggest(number) for number in range(1, 5)]
    assert found[3] is None
    assert sorted(chosen["b"] for chosen in found[:3] if chosen) == [1, 2, 3]


def test_grid_is_in_the_order_written() -> None:
    grid = Grid(_SPACE, SearchConfig(algorithm="grid"))
    found = [grid.suggest(number) for number in range(1, 10)]
    assert found == [
        {"a": "x", "c": True},
        {"a": "x", "c": False},
        {"a": "y", "b": 1, "c": True},
        {"a": "y", "b": 1, "c": False},
        {"a": "y", "b": 2, "c": True},
        {"a": "y", "b": 2, "c": False},
        {"a": "y", "b": 3, "c": True},
        {"a": "y", "b": 3, "c": False},
        None,
    ]


def test_grid_goes_by_the_number_alone() -> None:
    grid = Grid(_SPACE, SearchConfig(algorithm="grid"), fits=lambda chosen: chosen["c"])
    grid.adopt(1, {"a": "x", "c": True})
    grid.tell(1, {"a": "x", "c": True}, 0.5)
    assert grid.suggest(3) == {"a": "y", "b": 2, "c": True}
    assert grid.suggest(1) == {"a": "x", "c": True}
    assert grid.suggest(5) is None


def test_grid_that_nothing_fits() -> None:
    with pytest.raises(ConfigError) as caught:
        Grid(_SPACE, SearchConfig(max_parameters=7), fits=lambda chosen: False).suggest(1)
    assert caught.value.where == "search.max_parameters"
    assert caught.value.found == "8 different combinations, and none of them fits"
