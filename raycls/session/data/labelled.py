"""What a plan knows of the order of the samples, and of their classes where `loss.balance` asks for them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from raycls.config.sections.run import Run
from raycls.data.orders.balanced import Labels
from raycls.data.source import Split
from raycls.errors import ConfigError
from raycls.train.plan import Plan

__all__ = ["with_labels"]


def with_labels(run: Run, plan: Plan, split: Split) -> Plan:
    """`plan` with the classes of the training samples, those of `split` and those that are left out of it, where
    `loss.balance` asks for them: they stay what they were at the first start, whatever is left out since."""
    plan = _shuffled(run, plan)
    if run.loss.balance == "none":
        return plan
    if split.sets is not None:
        raise ConfigError(
            "only samples of one class each can be balanced",
            where="loss.balance",
            found=f"{run.loss.balance}, and any number of classes for each sample",
            fix="set loss.balance to none",
        )
    labels = np.empty(plan.samples, np.int64)
    labels[np.arange(len(split)) if split.ids is None else split.ids] = split.labels
    labels[np.array(plan.left_out, np.int64)] = plan.left_out_labels
    return replace(plan, labels=Labels(labels))


def _shuffled(run: Run, plan: Plan) -> Plan:
    """`plan` with what `data.shuffle` says. ConfigError beside another order."""
    shuffle, chunk = run.data.shuffle, run.data.shuffle_chunk
    if shuffle != "full" and (run.loss.balance == "sampler" or run.data.repeats > 1):
        other = "loss.balance: sampler" if run.loss.balance == "sampler" else f"data.repeats: {run.data.repeats}"
        raise ConfigError(
            "a run has one order of its samples",
            where="data.shuffle",
            found=f"{shuffle}, and {other}",
            valid="data.shuffle: full beside them",
            fix="set data.shuffle=full or leave the other out",
        )
    if shuffle != "window":
        return replace(plan, shuffle=shuffle)
    return replace(plan, shuffle=shuffle, shuffle_chunk=chunk, shuffle_window=chunk * run.data.shuffle_window)
