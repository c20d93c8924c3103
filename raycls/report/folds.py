"""The folds of a cross-validation: which are trained, and what they say together.

A mean has its interval by Student's t. The training sets of two folds share most of their images, so the folds are no
independent trials and the interval is too narrow by an unknown factor: no estimate of the variance of k folds is
without bias (Bengio and Grandvalet 2004, No Unbiased Estimator of the Variance of K-Fold Cross-Validation, JMLR 5,
theorem 2). It says how much the folds differ.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from raycls.config.load import difference, load_text
from raycls.config.write import override, word
from raycls.errors import ConfigError, RayclsError
from raycls.report.page.render import render
from raycls.report.runs import Told, tell
from raycls.run.folder import RunFolder
from raycls.run.storage.lock import user_of
from raycls.run.storage.store import Store
from raycls.search.confirm import summarise

__all__ = ["Fold", "Folds", "beside", "folds_of", "page"]

_OWN = ("data.fold.index", "run.name", "run.storage")
_NO_METRIC = frozenset(("step", "epoch", "count", "value"))


@dataclass(frozen=True)
class Fold:
    """One fold, whether a run has it or not."""

    index: int
    state: str
    """`done`, `running`, `stopped` or `missing`."""
    run: str = ""
    """The name of its run; empty where there is none."""
    note: str = ""
    """What else is known of a run that is not done, such as the process that trains it."""
    step: int = 0
    steps: int = 0
    """How far its run is, and of how many steps; 0 where that is not known."""
    images: int = 0
    """Of its val split; 0 until it is done."""
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    """Of the weights that stand in `model/`, on the val split; empty until it is done."""
    command: str = ""
    """What trains or resumes it, as it is typed; empty where nothing has to be done."""


@dataclass(frozen=True)
class Folds:
    """All folds of one config, by their index."""

    metric: str
    folds: tuple[Fold, ...]

    @property
    def done(self) -> tuple[Fold, ...]:
        return tuple(fold for fold in self.folds if fold.state == "done")

    @property
    def complete(self) -> bool:
        return len(self.done) == len(self.folds)

    def facts(self) -> dict[str, Any]:
        """All of it as plain JSON. The interval of one fold alone is null."""
        return {
            "metric": self.metric,
            "complete": self.complete,
            "folds": [vars(fold) | {"metrics": dict(fold.metrics)} for fold in self.folds],
            "metrics": {name: self._together(name) for name in self._names()},
        }

    def _names(self) -> list[str]:
        """The metrics that all folds have which are done, `evaluate.metric` first."""
        shared = [name for name in (self.done[0].metrics if self.done else ()) if self._measured(name)]
        return sorted(shared, key=lambda name: name != self.metric)

    def _measured(self, name: str) -> bool:
        return all(name in fold.metrics for fold in self.done)

    def _together(self, name: str) -> dict[str, Any]:
        values = [fold.metrics[name] for fold in self.done]
        found = summarise(values)
        if found is None or found.n < 2:
            return {"n": len(values), "mean": values[0], "std": None, "low": None, "high": None}
        std = math.sqrt(math.fsum((value - found.mean) ** 2 for value in values) / (found.n - 1))
        return {"n": found.n, "mean": found.mean, "std": std, "low": found.low, "high": found.high}


def beside(config: Any, given: Sequence[Told]) -> list[Told]:
    """The runs `given`, and those that lie beside them, or in `run.storage`, and are other folds of the same `config`.

    ConfigError where two of these are of one fold that none of `given` has.
    """
    have = {told.config.data.fold.index for told in given}
    places = dict.fromkeys(told.folder.store.place[0] for told in given) or [config.run.storage]
    found: dict[int, Told] = {}
    for place in places:
        store = Store(place)
        for name in store.list():
            told = _fold_in(store, name, config)
            index = None if told is None else told.config.data.fold.index
            if told is None or index is None or index in have:
                continue
            if index in found:
                raise ConfigError(
                    "two runs are of the same fold",
                    where=store.describe(),
                    found=f"fold {index}: {found[index].name} and {told.name}",
                    fix="name the runs that belong together, such as "
                    f"raycls folds {' '.join(word(each.name) for each in [*given, told])}",
                )
            found[index] = told
    return [*given, *found.values()]


def folds_of(config: Any, source: str, runs: Sequence[Told]) -> Folds:
    """The folds of `config` together, of which `runs` are some or all.

    `source` is what `raycls train` takes to train `config`, as it is typed. ConfigError where `config` has no folds, or
    a run is none of them, or another run's.
    """
    of = config.data.fold.of
    if of == "off":
        raise ConfigError(
            "there are no folds of a cross-validation",
            where="data.fold.of",
            found="off",
            valid="the number of folds, such as data.fold={index: 0, of: 5}",
        )
    by_index: dict[int, Told] = {}
    classes: Any = None
    for told in runs:
        _refuse_other(config, told)
        index = told.config.data.fold.index
        if index in by_index:
            raise ConfigError(
                "two runs are of the same fold",
                where="data.fold.index",
                found=f"{by_index[index].name}: {index}, {told.name}: {index}",
                valid=f"one run for each of 0 to {of - 1}",
            )
        by_index[index] = told
        own = (told.environment.get("data") or {}).get("classes")
        if classes is not None and own is not None and own != classes:
            raise _wrong("a fold has other classes", told, ", ".join(told.classes))
        classes = classes if own is None else own
    name, at = (runs[0].name, runs[0].config.data.fold.index) if runs else (config.run.name, config.data.fold.index)
    return Folds(
        config.evaluate.metric,
        tuple(
            _fold(by_index[index])
            if index in by_index
            else Fold(index, "missing", command=_training(source, _renamed(name, at, index), index))
            for index in range(of)
        ),
    )


def page(folds: Folds, about: str) -> bytes:
    """One HTML file that loads nothing."""
    facts = folds.facts()
    title, made = f"Cross-validation of {len(folds.folds)} folds", "Written by raycls folds"
    return render("folds.html", title=title, about=about, made=made, names=[*facts["metrics"]], **facts)


def _fold_in(store: Store, name: str, config: Any) -> Told | None:
    """The run in the folder `name` of `store`, where it is a fold of `config`."""
    data = store.find_bytes(f"{name}/{RunFolder.CONFIG}") if store.is_folder(name) else None
    if data is None:
        return None
    try:
        run = load_text(data.decode(), name).run
    except (RayclsError, UnicodeDecodeError):  # whatever else lies there
        return None
    if run.run.name != name or _differences(config, run):  # one that --new set aside has another name
        return None
    return tell(RunFolder(store.sub(name).uri))


def _differences(config: Any, run: Any) -> list[Any]:
    return [each for each in difference(config, run) if not (each.harmless or each.path in _OWN)]


def _refuse_other(config: Any, told: Told) -> None:
    if told.config.data.fold.of == "off":
        raise _wrong("a run is no fold of a cross-validation", told, "data.fold.of: off")
    if other := _differences(config, told.config):
        raise _wrong("the runs differ in more than their fold", told, "; ".join(map(str, other[:3])))


def _fold(told: Told) -> Fold:
    index, steps = told.config.data.fold.index, int(told.plan.get("total_steps") or 0)
    step = max((record["step"] for record in told.records if isinstance(record.get("step"), int)), default=0)
    if (told.result or {}).get("state") in ("done", "early"):
        found = _evaluated(told)
        metrics = {
            name: float(value)
            for name, value in found.items()
            if name not in _NO_METRIC and isinstance(value, int | float) and not isinstance(value, bool)
        }
        return Fold(index, "done", told.name, "", step, steps, int(found["count"]), metrics)
    user = user_of(told.folder)
    if user:
        return Fold(index, "running", told.name, user, step, steps)
    config = told.folder.store.address(RunFolder.CONFIG)
    return Fold(index, "stopped", told.name, told.state, step, steps, command=f"raycls train {word(config)}")


def _training(source: str, name: str, index: int) -> str:
    return f"raycls train {source} {override('data.fold.index', index)} {override('run.name', name)}"


def _renamed(name: str, index: int, other: int) -> str:
    """The name of a run of the fold `index` for the fold `other`: `cv-0` becomes `cv-2`, and `cv` too."""
    stem = re.sub(rf"(?<!\d){index}$", "", name)
    return f"{stem}{other}" if stem not in ("", name) else f"{name}-{other}"


def _evaluated(told: Told) -> dict[str, Any]:
    """The evaluation of the weights that stand in `model/`."""
    result = told.result or {}
    found = result.get("best" if (result.get("kept") or {}).get("name") == "best" else "final") or result.get("final")
    if not found or found.get("split") != "val" or told.config.evaluate.metric not in found:
        raise _wrong("a fold was not evaluated on its val split", told, str((found or {}).get("split")))
    return found


def _wrong(what: str, told: Told, found: str) -> ConfigError:
    return ConfigError(what, where=told.folder.store.describe(), found=found)
