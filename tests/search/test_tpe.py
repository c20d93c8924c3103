"""Suggestions of Optuna: the same after a crash, within the space, and better than random ones."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from raycls.config.sections.search import SearchConfig
from raycls.config.space.space import Condition, Parameter, Space
from raycls.errors import ConfigError
from raycls.search.random import Random, any_fits, identity
from raycls.search.samplers import Sampler
from raycls.search.tpe import Tpe

_MODEL = Parameter("model.name", "choice", ("small", "large", {"other": [1]}))
_WIDTH = Parameter("model.args.width", "lograndint", low=8, high=64, when=(Condition("model.name", ("large",)),))
_SPACE = Space(
    (
        _MODEL,
        _WIDTH,
        Parameter("optim.lr", "loguniform", low=1e-4, high=1),
        Parameter("optim.momentum", "uniform", low=0, high=0.99),
        Parameter("loss.label_smoothing", "quniform", low=0.0, high=0.3, step=0.1),
        Parameter("train.batch_size", "randint", low=1, high=64),
    )
)


def _tpe(space: Space = _SPACE, mode: Literal["max", "min"] = "max", seed: int = 0) -> Tpe:
    return Tpe(space, SearchConfig(algorithm="optuna", seed=seed), mode=mode)


def _score(chosen: dict[str, Any]) -> float:
    return -((math.log10(chosen["optim.lr"]) + 2) ** 2) - (chosen["optim.momentum"] - 0.9) ** 2


def _searched(sampler: Tpe, count: int, lag: int = 3) -> list[dict[str, Any]]:
    """`count` trials of which each ends when `lag` more were started; every fifth one fails."""
    found: list[dict[str, Any]] = []
    for number in range(1, count + 1):
        chosen = sampler.suggest(number)
        assert chosen is not None
        found.append(chosen)
        if number > lag:
            ended = number - lag
            sampler.tell(ended, found[ended - 1], None if ended % 5 == 0 else _score(found[ended - 1]))
    return found


def test_values_are_of_the_space() -> None:
    for chosen in _searched(_tpe(), 40):
        for parameter in _SPACE.parameters:
            assert (parameter.path in chosen) == parameter.active(chosen)
            assert parameter.path not in chosen or parameter.has(chosen[parameter.path])
        assert type(chosen["train.batch_size"]) is int
        assert type(chosen["optim.lr"]) is float
        assert type(chosen.get("model.args.width", 8)) is int


def test_a_replay_of_the_ledger_gives_the_same_suggestions() -> None:
    """A second sampler is told what an earlier one chose, in the ledger's order, and goes on as that one does."""
    whole = _tpe(seed=7)
    found = _searched(whole, 30)
    again = _tpe(seed=7)
    for number in range(1, 26):
        again.adopt(number, found[number - 1])
        if number > 3:
            ended = number - 3
            again.tell(ended, found[ended - 1], None if ended % 5 == 0 else _score(found[ended - 1]))
    for number in range(26, 31):
        assert again.suggest(number) == found[number - 1]
        again.tell(number - 3, found[number - 4], None if (number - 3) % 5 == 0 else _score(found[number - 4]))


def test_another_process_suggests_the_same() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_tpe import _searched, _tpe\n"
        "print(_searched(_tpe(seed=2), 20))\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "77"},
    )
    assert found.stdout.strip() == repr(_searched(_tpe(seed=2), 20))
    assert repr(_searched(_tpe(seed=3), 20)) != found.stdout.strip()


_LINE = Space((Parameter("optim.lr", "uniform", low=0, high=1),))


def _taught(fits: Callable[[dict[str, Any]], bool] = any_fits) -> Tpe:
    """A sampler that was told of 20 trials of a line, of which those about 0.4 are the best."""
    sampler = Tpe(_LINE, SearchConfig(algorithm="optuna"), mode="max", fits=fits)
    for number in range(1, 21):
        sampler.tell(number, {"optim.lr": number / 20}, -abs(number / 20 - 0.4))
    return sampler


def test_how_a_trial_began_makes_no_difference_after_its_end() -> None:
    one, other = _taught(), _taught()
    one.adopt(21, {"optim.lr": 0.41})
    for sampler in (one, other):
        sampler.tell(21, {"optim.lr": 0.41}, -0.01)
    assert one.suggest(22) == other.suggest(22)


def test_running_trials_make_a_difference() -> None:
    one, other = _taught(), _taught()
    for number in range(21, 31):
        one.adopt(number, {"optim.lr": 0.4 + number / 10_000})
    found = [[sampler.suggest(number) for number in range(31, 36)] for sampler in (one, other)]
    assert found[0] != found[1]


def test_what_does_not_fit_is_replaced_by_the_next_best() -> None:
    asked: list[float] = []

    def fits(chosen: dict[str, Any]) -> bool:
        asked.append(chosen["optim.lr"])
        return len(asked) == 6

    assert _taught(fits).suggest(21) == {"optim.lr": asked[-1]}
    assert len(set(asked)) == 6
    assert all(abs(value - 0.4) < 0.2 for value in asked)  # draws at random would be there in 4 of 1000 cases


def test_asked_again_it_suggests_the_same() -> None:
    sampler = _tpe()
    first = sampler.suggest(1)
    assert first is not None
    assert sampler.suggest(1) == first
    sampler.tell(1, first, 0.5)
    assert sampler.suggest(1) == first


@pytest.mark.parametrize("mode", ["max", "min"])
def test_it_learns(mode: Literal["max", "min"]) -> None:
    """The later trials are nearer to the optimum than random ones are, in both modes."""
    space = Space(
        (Parameter("optim.lr", "loguniform", low=1e-4, high=1), Parameter("optim.momentum", "uniform", high=1))
    )
    sign = 1 if mode == "max" else -1

    def late(sampler: Sampler) -> float:
        scores: list[float] = []
        for number in range(1, 41):
            chosen = sampler.suggest(number)
            assert chosen is not None
            scores.append(_score(chosen))
            sampler.tell(number, chosen, sign * scores[-1])
        return sum(scores[20:]) / 20

    ours = sum(late(_tpe(space, mode, seed)) for seed in range(3))
    assert ours > 0.7 * sum(late(Random(space, SearchConfig(seed=seed))) for seed in range(3))  # scores are negative


def test_it_avoids_where_trials_fail() -> None:
    sampler = _tpe(_LINE)
    found: list[float] = []
    for number in range(1, 41):
        chosen = sampler.suggest(number)
        assert chosen is not None
        found.append(chosen["optim.lr"])
        sampler.tell(number, chosen, None if chosen["optim.lr"] > 0.3 else math.nan if number % 7 == 0 else 0.5)
    assert sum(value > 0.3 for value in found[20:]) < 8  # 14 if it made no difference


def test_a_finite_space_has_no_duplicates_and_ends() -> None:
    space = Space((Parameter("a", "choice", ("x", [1, 2])), Parameter("b", "quniform", low=0.1, high=0.3, step=0.1)))
    sampler, found = _tpe(space), list[dict[str, Any]]()
    while (chosen := sampler.suggest(len(found) + 1)) is not None:
        found.append(chosen)
        sampler.tell(len(found), chosen, 1.0)
    assert sorted(map(identity, found)) == sorted(map(identity, space.combinations()))


def test_values_of_another_space_are_no_obstacle() -> None:
    sampler = _tpe()
    sampler.adopt(1, {"optim.lr": 5.0, "model.name": "gone", "other": 1})
    sampler.tell(2, {"optim.lr": 0.1, "model.name": {"other": [1]}}, 0.5)
    assert sampler.suggest(3) is not None
    assert sampler.suggest(1) == {"optim.lr": 5.0, "model.name": "gone", "other": 1}


def test_it_is_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    _searched(_tpe(), 15)
    assert capfd.readouterr() == ("", "")


def test_without_optuna(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError) as caught:
        _tpe()
    assert caught.value.fix == "pip install 'raycls[search]'"
    assert caught.value.where == "search.algorithm"
