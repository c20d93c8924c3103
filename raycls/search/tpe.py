"""Values by the tree-structured Parzen estimator of Optuna, which the extra `search` installs.

Bergstra, Bardenet, Bengio, Kégl: Algorithms for Hyper-Parameter Optimization, NIPS 2011.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from raycls.config.sections.search import SearchConfig
from raycls.config.space.space import Parameter, Space, same
from raycls.errors import ConfigError
from raycls.search.random import Random, any_fits
from raycls.search.scheduler import goodness

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial, TrialState

__all__ = ["Tpe"]

_TRIES = 10
"""Suggestions of the estimator that are looked at before a random draw takes the place of one: it suggests again and
again what it thinks best."""
_FLOATS, _LOG = ("uniform", "loguniform"), ("loguniform", "lograndint")


class Tpe:
    """Suggests what is likely among the better trials and unlikely among the others.

    A study is made anew for each suggestion, from the trials that were told, in that order, and those that run:
    Optuna's own random state, which nothing could bring back after a crash, has no part in it. A trial that failed
    counts as the worst, so that its neighbourhood is left alone.
    """

    def __init__(
        self,
        space: Space,
        search: SearchConfig,
        *,
        mode: Literal["max", "min"],
        fits: Callable[[dict[str, Any]], bool] = any_fits,
    ) -> None:
        try:
            import optuna
        except ImportError:
            raise ConfigError(
                "search.algorithm: optuna needs Optuna, which is not installed",
                where="search.algorithm",
                valid="grid, random",
                fix="pip install 'raycls[search]'",
            ) from None
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # else a line for every study that is made
        self._optuna = optuna
        self._space, self._seed, self._mode = space, search.seed, mode
        self._random = Random(space, search, fits=fits)
        self._running: dict[int, FrozenTrial] = {}
        self._ended: dict[int, FrozenTrial] = {}

    def suggest(self, number: int) -> dict[str, Any] | None:
        """As Sampler says. What was suggested before, or does not fit the budget, is replaced by a random draw."""
        if number not in self._running and number not in self._ended:
            chosen = self._estimated(number)
            if chosen is None:
                chosen = self._random.suggest(number)
            if chosen is None:
                return None
            self.adopt(number, chosen)
        return self._random.suggest(number)

    def adopt(self, number: int, chosen: Mapping[str, Any]) -> None:
        """As Sampler says."""
        self._random.adopt(number, chosen)
        self._running[number] = self._frozen(chosen, self._optuna.trial.TrialState.RUNNING, None)

    def tell(self, number: int, chosen: Mapping[str, Any], value: float | None) -> None:
        """As Sampler says."""
        self._random.adopt(number, chosen)
        self._running.pop(number, None)
        worth = goodness(math.nan if value is None else value, self._mode)
        self._ended[number] = self._frozen(chosen, self._optuna.trial.TrialState.COMPLETE, worth)

    def _frozen(self, chosen: Mapping[str, Any], state: TrialState, worth: float | None) -> FrozenTrial:
        """A trial as Optuna knows it, without what is not in the space, which another config may have chosen."""
        given = [
            parameter
            for parameter in self._space.parameters
            if parameter.path in chosen and parameter.has(chosen[parameter.path])
        ]
        return self._optuna.trial.create_trial(
            state=state,
            value=worth,
            params={parameter.path: _inner(parameter, chosen[parameter.path]) for parameter in given},
            distributions={parameter.path: self._distribution(parameter) for parameter in given},
        )

    def _estimated(self, number: int) -> dict[str, Any] | None:
        """What the estimator suggests, if the random sampler admits it."""
        study = self._optuna.create_study(direction="maximize")
        study.add_trials([*self._ended.values(), *(self._running[other] for other in sorted(self._running))])
        for attempt in range(_TRIES):
            word = np.random.SeedSequence([self._seed, number, attempt]).generate_state(1)[0]
            study.sampler = self._optuna.samplers.TPESampler(seed=int(word))
            trial = study.ask()
            chosen: dict[str, Any] = {}
            for parameter in self._space.parameters:
                if parameter.active(chosen):
                    chosen[parameter.path] = _suggested(trial, parameter)
            if self._random.admits(chosen):
                return chosen
            study.tell(trial, state=self._optuna.trial.TrialState.FAIL)  # the estimator does not look at these
        return None

    def _distribution(self, parameter: Parameter) -> BaseDistribution:
        kinds = self._optuna.distributions
        if parameter.kind == "choice":
            return kinds.CategoricalDistribution(range(len(parameter.values)))
        log = parameter.kind in _LOG
        if parameter.kind in _FLOATS:
            return kinds.FloatDistribution(float(parameter.low), float(parameter.high), log=log)
        low, high = _whole(parameter)
        return kinds.IntDistribution(low, high, log=log)


# Optuna has the position of a value instead of the value in a choice, where it may be anything, and in a quniform.


def _suggested(trial: Trial, parameter: Parameter) -> Any:
    log = parameter.kind in _LOG
    if parameter.kind == "choice":
        return parameter.value(trial.suggest_categorical(parameter.path, range(len(parameter.values))))
    if parameter.kind in _FLOATS:
        return trial.suggest_float(parameter.path, float(parameter.low), float(parameter.high), log=log)
    low, high = _whole(parameter)
    found = trial.suggest_int(parameter.path, low, high, log=log)
    return parameter.value(found) if parameter.kind == "quniform" else found


def _inner(parameter: Parameter, value: Any) -> Any:
    """`value` as Optuna has it."""
    if parameter.kind == "choice":
        return next(index for index, one in enumerate(parameter.values) if same(one, value))
    if parameter.kind == "quniform":
        return round((value - parameter.low) / parameter.step)
    return value


def _whole(parameter: Parameter) -> tuple[int, int]:
    if parameter.kind == "quniform":
        return 0, (parameter.count or 1) - 1
    return int(parameter.low), int(parameter.high)
