"""What `raycls eval` is about: the config that it may change, the weights, and the samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from raycls.config import load as config
from raycls.config.sections.run import Run
from raycls.data.source import Dataset
from raycls.errors import ConfigError
from raycls.progress import progress
from raycls.quantities import first_names
from raycls.run import kept
from raycls.run.folder import RunFolder
from raycls.run.kept import Weights
from raycls.run.model_file import sha256_of
from raycls.session.data.scored import LEFT_OUT, Scored, score
from raycls.session.plan_file import required_plan
from raycls.session.scoring.cases import refuse_masks
from raycls.session.scoring.options import FIT, FITTED_ON, Scoring
from raycls.session.scoring.other import with_source
from raycls.session.scoring.several import refuse
from raycls.session.trained.predictions import file_of
from raycls.session.trained.refined import fit_crf
from raycls.session.trained.temperature import fitted_temperature
from raycls.session.trained.trained import open_trained
from raycls.tasks.build import check_labels, gives_masks, reading_of
from raycls.tasks.scores.threshold import RULES, read_rule
from raycls.train.plan import Plan

__all__ = ["Asked", "Evaluation", "opened", "overridden"]

_OPTIONS = (
    "scale.",
    "data.executor",
    "data.processes",
    "data.prefetch",
    "data.source.",
    "data.formats",
    "data.max_pixels",
    "data.on_bad_image",
    "data.max_bad_fraction",
    "track.",
    "train.stall_timeout",
)
"""What an evaluation may change: who computes, where the data is, which images are decoded, and when to give up."""


@dataclass(frozen=True)
class Asked:
    """What the command line says, see `trainer.evaluate`."""

    name: str
    """What the user calls the run."""
    split: str | None
    data: str | None
    extra_classes: str
    weights: str | None
    overrides: tuple[str, ...]
    scoring: Scoring | None


@dataclass(frozen=True)
class Evaluation:
    """What is evaluated, and as which run."""

    run: Run
    plan: Plan
    weights: Weights
    dataset: Dataset
    """With `options.FIT` among its splits where something is fitted before."""
    split: str
    told: str
    facts: dict[str, Any]
    """As in `Scored`."""
    scoring: Scoring | None


def opened(folder: RunFolder, asked: Asked, *, check: Callable[[Run], None], say: Callable[[str], None]) -> Evaluation:
    """Look at the run and at the data; `check` is asked about the config before any data is looked at."""
    weights = kept.choose(folder, asked.weights)
    text, where = folder.store.read_bytes(RunFolder.CONFIG).decode(), folder.store.describe(RunFolder.CONFIG)
    run, moved = overridden(text, where, asked.overrides, asked.data)
    check(run)
    plan = required_plan(folder)
    progress("opening the data")
    scored = score(
        folder,
        run,
        split=asked.split,
        moved=moved,
        whole=asked.data is not None,
        extra_classes=asked.extra_classes,
        name=asked.name,
        say=say,
        about=() if asked.scoring is None else asked.scoring.by,
    )
    dataset, scoring = scored.dataset, asked.scoring
    check_labels(run.task, dataset.splits[scored.split])
    if scoring is not None:
        if gives_masks(run.task):
            refuse_masks(scoring)
        several = reading_of(run.task).several
        refuse(scoring) if several else _refuse(folder, scoring, weights, scored)
        _refuse_fitted(scoring, scored, asked)
        sha256 = "" if weights.checkpoint else sha256_of(folder)
        provenance = kept.provenance_of(folder.store.describe(), weights, sha256)
        file = file_of(
            scored.split,
            weights.name,
            data=None if asked.data is None else run.data.source,
            tta=scoring.tta,
            calibrated=scoring.applies_temperature,
        )
        file = file.replace(".parquet", "-crf.parquet") if scoring.crf else file
        scoring = replace(scoring, data=asked.data, file=file, provenance=tuple(provenance.items()))
        if scoring.crf:
            _refuse_crf(folder, asked, weights, run, scored)
            fit, trained = _fitted_on(folder, asked, text, where, say), open_trained(folder.uri, masks=True)
            progress("fitting the CRF")
            joined = fit_crf(trained, fit.dataset.splits[fit.split], say)
            scoring = replace(scoring, joined=tuple(joined.items()))
        if scoring.fits:
            fitted = _fitted_on(folder, asked, text, where, say)
            dataset = replace(dataset, splits={**dataset.splits, FIT: fitted.dataset.splits[fitted.split]})
    return Evaluation(run, plan, weights, dataset, scored.split, scored.told, scored.facts, scoring)


def _refuse_crf(folder: RunFolder, asked: Asked, weights: Weights, run: Run, scored: Scored) -> None:
    if not gives_masks(run.task):
        raise ConfigError("a CRF is joined to masks", where="--crf", found=run.task.name, fix="leave --crf out")
    if weights.checkpoint:
        raise ConfigError(
            "the parameters of a CRF are kept beside the weights in model/, and these are others",
            where=folder.store.describe(RunFolder.CHECKPOINTS),
            found=weights.name,
            fix="leave out --weights, or --crf",
        )
    if asked.data is None and scored.split == FITTED_ON:
        raise ConfigError(
            "the CRF would be fitted on what is evaluated",
            where="--crf",
            found=f"--split {scored.split}",
            valid="another split, or other data with --data",
            fix="name a split that is not fitted on, such as --split test",
        )


def _refuse_fitted(scoring: Scoring, scored: Scored, asked: Asked) -> None:
    if scoring.fits_threshold and asked.data is None and scored.split == FITTED_ON:
        raise ConfigError(
            "the threshold would be fitted on what is evaluated",
            where=f"--threshold {scoring.threshold}",
            found=f"--split {scored.split}",
            valid="another split, or other data with --data",
            fix="name a split that is not fitted on, such as --split test",
        )


def _refuse(folder: RunFolder, scoring: Scoring, weights: Weights, scored: Scored) -> None:
    """ConfigError for what cannot be measured, before anything is."""
    classes = scored.dataset.classes
    if scoring.threshold and len(classes) != 2:
        raise ConfigError(
            "a threshold is for two classes",
            where=f"--threshold {scoring.threshold}",
            found=f"{len(classes)} classes: {first_names(classes)}",
            fix="leave it out",
        )
    if scoring.threshold:
        try:
            read_rule(scoring.threshold)
        except ValueError:
            raise ConfigError(
                "this is no threshold", where="--threshold", found=scoring.threshold, valid=RULES
            ) from None
    if scoring.positive and scoring.positive not in classes:
        raise ConfigError(
            "there is no such class", where="--positive", found=scoring.positive, valid=", ".join(classes)
        )
    if scoring.positive and not scoring.threshold:
        raise ConfigError("--positive says what a threshold is for", where="--positive", fix="add --threshold max-f1")
    if scoring.calibrate and weights.checkpoint:
        raise ConfigError(
            "a temperature is kept beside the weights in model/, and these are others",
            where=folder.store.describe(RunFolder.CHECKPOINTS),
            found=weights.name,
            fix="leave out --weights, or --calibrate",
        )
    if scoring.applies_temperature and scoring.tta != "off":
        raise ConfigError(
            "a temperature is that of the images as they are",
            where=f"--tta {scoring.tta}",
            fix="leave out --tta, or what is said of the temperature",
        )
    if scoring.calibrated and not scoring.calibrate:
        fitted_temperature(folder, weights)


def _fitted_on(folder: RunFolder, asked: Asked, text: str, where: str, say: Callable[[str], None]) -> Scored:
    """The validation split of the run, wherever the data that is evaluated is."""
    own = asked.overrides
    if asked.data is not None:  # what is said of the source is said of the other data
        own = tuple(override for override in own if not override.startswith("data.source."))
    run, moved = overridden(text, where, own, None)
    return score(
        folder,
        run,
        split=FITTED_ON,
        moved=moved,
        whole=False,
        extra_classes=asked.extra_classes,
        name=asked.name,
        say=lambda line: say(f"to fit on: {line}"),
    )


def overridden(text: str, where: str, overrides: Sequence[str], data: str | None) -> tuple[Run, bool]:
    """The config of a run with the options that an evaluation may change, and whether it names another source.

    With `data` that is the source; the arguments of it may be given by `overrides`.
    """
    before = config.load_text(text, where).run
    if data is not None:
        before = with_source(before, data)
        text = config.to_yaml(before)
    run = config.load_text(text, where, overrides).run
    refused = [item for item in config.difference(before, run) if not item.path.startswith(_OPTIONS)]
    if refused:
        raise ConfigError(
            "an evaluation cannot change these options: they belong to the training",
            found="\n         ".join(str(item) for item in refused),
            valid=", ".join(f"{path}*" if path.endswith(".") else path for path in _OPTIONS),
            fix="leave them out; --split chooses the split",
        )
    changed = {item.path for item in config.difference(before, run)} - set(LEFT_OUT)
    return run, any(path.startswith("data.source.") for path in changed)
