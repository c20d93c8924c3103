"""Random values: ranges, frequencies (with a fixed seed), purity, and what happens when a space runs out."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from raycls.config.sections.search import SearchConfig
from raycls.config.space.space import Condition, Parameter, Space
from raycls.errors import ConfigError
from raycls.search.random import MOST_TRIES, Random, draw_value, identity

_MODEL = Parameter("model.name", "choice", ("small", "large"))
_WIDTH = Parameter("model.args.width", "randint", low=8, high=10, when=(Condition("model.name", ("large",)),))
_RATE = Parameter("optim.lr", "loguniform", low=1e-4, high=1.0)
_DEEP = Parameter("optim.eps", "uniform", low=0, high=1, when=(Condition("model.args.width", (8, 9)),))
_CONDITIONAL = Space((_MODEL, _WIDTH, _RATE, _DEEP))


def _values(parameter: Parameter, count: int = 4000) -> list[Any]:
    generator = np.random.default_rng(0)
    return [draw_value(parameter, generator) for _ in range(count)]


def _distance(values: Sequence[float]) -> float:
    """Kolmogorov's: how far the values, mapped to [0, 1], are from uniform."""
    ordered = np.sort(values)
    steps = np.arange(len(values) + 1) / len(values)
    return float(max(np.max(ordered - steps[:-1]), np.max(steps[1:] - ordered)))


_LIMIT = 1.63 / math.sqrt(4000)
"""Kolmogorov's distance of 4,000 uniform values is below this in 99 of 100 cases."""


def test_uniform_is_uniform() -> None:
    values = _values(Parameter("p", "uniform", low=-2, high=6))
    assert all(type(value) is float and -2 <= value <= 6 for value in values)
    assert _distance([(value + 2) / 8 for value in values]) < _LIMIT


def test_loguniform_is_uniform_in_the_logarithm() -> None:
    values = _values(_RATE)
    assert all(type(value) is float and 1e-4 <= value <= 1 for value in values)
    assert _distance([math.log10(value) / 4 + 1 for value in values]) < _LIMIT
    assert _distance(values) > 0.5  # the measure tells them apart


def test_randint_has_both_ends_and_all_alike() -> None:
    found = Counter(_values(Parameter("p", "randint", low=-1, high=3)))
    assert sorted(found) == [-1, 0, 1, 2, 3]
    assert all(type(value) is int for value in found)
    assert all(count == pytest.approx(800, abs=100) for count in found.values())


def test_lograndint_has_both_ends_and_its_share_of_each() -> None:
    found = Counter(_values(Parameter("p", "lograndint", low=1, high=8)))
    assert sorted(found) == list(range(1, 9))
    assert all(type(value) is int for value in found)
    whole = math.log(8.5 / 0.5)
    for value, count in found.items():
        share = math.log((value + 0.5) / (value - 0.5)) / whole
        assert count / 4000 == pytest.approx(share, abs=0.025), value


def test_quniform_has_its_steps() -> None:
    found = Counter(_values(Parameter("p", "quniform", low=0.1, high=0.45, step=0.1)))
    assert sorted(found) == [0.1, 0.2, 0.3, 0.4]
    assert all(count == pytest.approx(1000, abs=120) for count in found.values())


def test_choices_are_given_as_they_are() -> None:
    values = ({"width": 8}, [1, 2], None, True, "x")
    found = _values(Parameter("p", "choice", values), 200)
    assert all(any(value is one for one in values) for value in found)
    assert {identity({"p": value}) for value in found} == {identity({"p": value}) for value in values}


@pytest.mark.parametrize("kind", ["uniform", "loguniform", "randint", "lograndint", "quniform"])
def test_a_range_of_one_value(kind: Any) -> None:
    assert set(_values(Parameter("p", kind, low=3, high=3, step=1), 20)) == {3}


def test_conditional_paths_are_there_where_their_conditions_hold() -> None:
    random = Random(_CONDITIONAL, SearchConfig())
    found = [random.suggest(number) for number in range(1, 200)]
    kinds = Counter()
    for chosen in found:
        assert chosen is not None
        assert ("model.args.width" in chosen) == (chosen["model.name"] == "large")
        assert ("optim.eps" in chosen) == (chosen.get("model.args.width") in (8, 9))
        kinds[len(chosen)] += 1
    assert sorted(kinds) == [2, 3, 4]


def test_the_same_arguments_give_the_same_suggestion() -> None:
    one, other = Random(_CONDITIONAL, SearchConfig(seed=3)), Random(_CONDITIONAL, SearchConfig(seed=3))
    expected = [one.suggest(number) for number in range(1, 20)]
    assert [other.suggest(number) for number in range(1, 20)] == expected
    assert [one.suggest(number) for number in range(1, 20)] == expected  # asked again
    assert Random(_CONDITIONAL, SearchConfig(seed=3)).suggest(12) == expected[11]
    different = Random(_CONDITIONAL, SearchConfig(seed=4))
    assert [different.suggest(number) for number in range(1, 20)] != expected


def test_another_process_suggests_the_same() -> None:
    code = (
        "from raycls.config.sections.search import SearchConfig\n"
        "from raycls.config.space.space import Condition, Parameter, Space\n"
        "from raycls.search.random import Random\n"
        f"random = Random({_CONDITIONAL!r}, SearchConfig(seed=3))\n"
        "print([random.suggest(number) for number in range(1, 20)])\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "77"},
    )
    here = Random(_CONDITIONAL, SearchConfig(seed=3))
    assert found.stdout.strip() == repr([here.suggest(number) for number in range(1, 20)])


_FINITE = Space((Parameter("a", "choice", ("x", "y")), Parameter("b", "randint", low=1, high=3)))


def test_a_finite_space_has_no_duplicates_and_ends() -> None:
    random = Random(_FINITE, SearchConfig())
    found = [random.suggest(number) for number in range(1, 8)]
    assert found[6] is None
    assert {identity(chosen) for chosen in found[:6] if chosen} == {identity(one) for one in _FINITE.combinations()}


def test_the_last_of_many_is_found() -> None:
    """By draws alone, the last of 20,000 would be missed in 95 of 100 cases."""
    space = Space((Parameter("a", "randint", low=1, high=20_000),))
    random = Random(space, SearchConfig())
    for number in range(1, 20_000):
        random.adopt(number, {"a": number if number < 777 else number + 1})
    assert random.suggest(20_000) == {"a": 777}
    assert random.suggest(20_001) is None


def test_what_an_earlier_start_chose_is_not_chosen_again() -> None:
    first = Random(_FINITE, SearchConfig())
    known = [first.suggest(number) for number in range(1, 4)]
    again = Random(_FINITE, SearchConfig())
    for number, chosen in enumerate(known, start=1):
        assert chosen is not None
        if number == 1:
            again.tell(number, chosen, 0.5)
        else:
            again.adopt(number, chosen)
    assert [again.suggest(number) for number in range(1, 7)] == [first.suggest(number) for number in range(1, 7)]


def test_a_suggestion_is_a_copy() -> None:
    random = Random(_FINITE, SearchConfig())
    first = random.suggest(1)
    assert first is not None
    expected = dict(first)
    first["a"] = "other"
    assert random.suggest(1) == expected


def test_an_empty_space_has_one_combination() -> None:
    random = Random(Space(()), SearchConfig())
    assert random.suggest(1) == {}
    assert random.suggest(2) is None


def test_what_does_not_fit_is_never_suggested_and_asked_about_once() -> None:
    asked: list[str] = []

    def fits(chosen: dict[str, Any]) -> bool:
        asked.append(identity(chosen))
        return chosen["b"] != 2

    random = Random(_FINITE, SearchConfig(), fits=fits)
    found = [random.suggest(number) for number in range(1, 6)]
    assert found[4] is None
    assert sorted((chosen["a"], chosen["b"]) for chosen in found[:4] if chosen) == [
        ("x", 1),
        ("x", 3),
        ("y", 1),
        ("y", 3),
    ]
    assert len(asked) == len(set(asked)) == 6


def test_a_budget_that_nothing_fits() -> None:
    search = SearchConfig(max_parameters=1000, max_flops=50)
    with pytest.raises(ConfigError) as caught:
        Random(_CONDITIONAL, search, fits=lambda chosen: False).suggest(1)
    assert caught.value.where == "search.max_parameters and search.max_flops"
    assert caught.value.found == f"{MOST_TRIES} different combinations, and none of them fits"
    assert caught.value.valid == "search.max_parameters up to 1000, search.max_flops up to 50"
    with pytest.raises(ConfigError) as caught:
        Random(_FINITE, SearchConfig(max_flops=50), fits=lambda chosen: False).suggest(1)
    assert caught.value.where == "search.max_flops"
    assert caught.value.found == "6 different combinations, and none of them fits"


def test_identity_is_that_of_what_a_ledger_gives_back() -> None:
    assert identity({"b": (1, 2.0), "a": {1: None}}) == identity({"a": {"1": None}, "b": [1, 2.0]})
    names = [identity({"a": value}) for value in (1, 1.0, True, "1", None, "true", [1])]
    assert len(set(names)) == len(names)
