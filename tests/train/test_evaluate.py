"""Evaluation counts every row once: exact on any number of ranks, and what scikit-learn and torch say."""

from __future__ import annotations

import random
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from harness.errors import raised
from harness.ranks import run_ranks
from harness.tasks import classification
from torch import nn

from raycls.config.names.metrics import Metric
from raycls.data.slices import Position, Slice
from raycls.errors import DataError, TrainError
from raycls.tasks.classification import Classification
from raycls.train.evaluation.evaluate import evaluate
from raycls.train.ranks import ABORTED, Ranks

_CLASSES = tuple("abcdefghij")


def _data(count: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.RandomState(2)
    return draw.randint(0, 256, (count, 4, 4, 3), dtype=np.uint8), draw.randint(0, 8, count)  # i, j: no rows


def _model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Flatten(), nn.Dropout(0.5), nn.Linear(24, 10))


def _task() -> Classification:
    # the smoothing is of the training alone
    return classification(mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), label_smoothing=0.1, classes=_CLASSES)


def _evaluate(model: nn.Module, slices: list[Slice], ranks: Ranks, batches: int) -> dict[str, Any]:
    return evaluate(model, slices, _task(), ranks, batches=batches, seed=0, precision=nullcontext())


def _slices(count: int, batch: int, rank: int, world: int) -> list[Slice]:
    """One per round: batches beyond the end are empty."""
    pixels, labels = _data(count)
    batches = -(-count // batch)
    made = []
    for index in range(rank, -(-batches // world) * world, world):
        ids = np.arange(min(index * batch, count), min((index + 1) * batch, count))
        made.append(Slice(Position("evaluate", 0, 0, index, rank), ids, {"image": pixels[ids], "label": labels[ids]}))
    return made


def of_rank(rank: int, world: int, count: int, batch: int) -> dict[str, Any]:
    """What one rank of `world` finds."""
    torch.set_num_threads(1)
    ranks = Ranks(rank, world)
    slices = _slices(count, batch, rank, world)
    return _evaluate(_model(), slices, ranks, -(-count // batch))


@pytest.mark.parametrize(("count", "batch"), [(1003, 64), (5, 4)])
def test_three_ranks_give_every_digit_of_one(count: int, batch: int) -> None:
    alone = run_ranks(1, of_rank, count, batch)[0]
    assert alone["count"] == count
    assert run_ranks(3, of_rank, count, batch) == [alone] * 3


class _Draws(nn.Module):
    """Leaves out pixels in evaluation too, as `F.dropout` does where nobody tells it the mode, and adds noise."""

    def __init__(self) -> None:
        super().__init__()
        self.body = _model()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.body(F.dropout(images)) + float(np.random.random()) + torch.rand(10) * random.random()


def of_rank_that_draws(rank: int, world: int, count: int, batch: int) -> dict[str, Any]:
    torch.manual_seed(rank)
    slices = _slices(count, batch, rank, world)
    return _evaluate(_Draws(), slices, Ranks(rank, world), -(-count // batch))


def test_a_model_that_draws_in_evaluation_draws_the_same_on_any_number_of_ranks() -> None:
    alone = run_ranks(1, of_rank_that_draws, 40, 4)[0]
    assert run_ranks(3, of_rank_that_draws, 40, 4) == [alone] * 3


def test_oracles() -> None:
    # imported here: the ranks of the other tests, which import this file, start faster without it
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support, top_k_accuracy_score

    found = of_rank(0, 1, 1003, 64)
    pixels, labels = _data(1003)
    mean, std = np.array([0.4, 0.5, 0.6]), np.array([0.2, 0.3, 0.4])
    images = torch.from_numpy((pixels / 255 - mean) / std).permute(0, 3, 1, 2).double()
    with torch.no_grad():
        logits = _model().double().eval()(images)
    predicted, everyone = logits.argmax(1).numpy(), list(range(10))
    assert found["loss"] == pytest.approx(F.cross_entropy(logits, torch.from_numpy(labels)).item(), rel=1e-6)
    assert found["confusion"] == confusion_matrix(labels, predicted, labels=everyone).tolist()
    assert found["top1"] == pytest.approx(float((predicted == labels).mean()), rel=1e-12)
    expected = top_k_accuracy_score(labels, logits.numpy(), k=5, labels=everyone)
    assert found["top5"] == pytest.approx(expected, rel=1e-12)
    for average in ("macro", "weighted"):
        scores = precision_recall_fscore_support(labels, predicted, average=average, zero_division=0)
        for name, score in zip(("precision", "recall", "f1"), scores, strict=False):
            assert found[name][average] == pytest.approx(float(score), rel=1e-12)
    per_class = precision_recall_fscore_support(labels, predicted, labels=everyone, zero_division=0)
    for name, scores in zip(("precision", "recall", "f1"), per_class, strict=False):
        assert list(found[name]["per_class"].values()) == pytest.approx(scores.tolist(), rel=1e-12)


def test_the_model_is_left_as_it_was() -> None:
    model = _model().train()
    model[1].eval()  # frozen by its owner
    before = {name: value.clone() for name, value in model.state_dict().items()}
    _evaluate(model, _slices(20, 8, 0, 1), Ranks(), 3)
    assert [module.training for module in model] == [True, False, True, True, True]
    assert model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(parameter.grad is None for parameter in model.parameters())


def test_fewer_classes_than_five() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    pixels, labels = _data(12)
    slices = [Slice(Position("evaluate", 0, 0, 0, 0), np.arange(12), {"image": pixels, "label": labels % 3})]
    task = classification(classes=("x", "y", "z"))
    found = evaluate(model, slices, task, Ranks(), batches=1, seed=0, precision=nullcontext())
    assert (found["count"], found["top5"]) == (12, 1.0)


def with_error(rank: int, world: int) -> tuple[str, str]:
    """Rank 1 cannot read a sample; the batches after it still arrive."""
    slices = _slices(40, 8, rank, world)
    if rank == 1:
        slices[0] = Slice(slices[0].position, np.zeros(0, np.int64), {}, DataError("a broken picture"))
    try:
        _evaluate(_model(), slices, Ranks(rank, world), 5)
    except (DataError, TrainError) as error:
        return type(error).__name__, error.what
    return "", ""


def test_an_unreadable_sample_ends_every_rank() -> None:
    assert run_ranks(2, with_error) == [("TrainError", ABORTED), ("DataError", "a broken picture")]


def test_a_loss_that_is_not_finite_is_told() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 10))
    with torch.no_grad():
        model[1].bias[0] = float("nan")
    found = _evaluate(model, _slices(8, 8, 0, 1), Ranks(), 1)
    assert np.isnan(found["loss"])
    assert found["count"] == 8


class _Forgets(Classification):
    metrics = {"top1": Metric("max"), "error": Metric("min"), "count": Metric("max")}

    def scalars(self, summary: Mapping[str, Any]) -> dict[str, Any]:
        return {**super().scalars(summary), "count": np.float64(3)}


def test_a_summary_without_a_metric_of_the_task_is_refused() -> None:
    task = _Forgets(_task().setting)
    with raised(TrainError, where="task.name", found="error: none, count: float64"):
        evaluate(_model(), _slices(8, 8, 0, 1), task, Ranks(), batches=1, seed=0, precision=nullcontext())


class _Counts(Classification):
    def counts(self, model: nn.Module, batch: Any) -> dict[str, Any]:
        return {**super().counts(model, batch), "top5": 3}


def test_counts_that_are_no_tensors_are_refused() -> None:
    task = _Counts(_task().setting)
    with raised(TrainError, where="task.name", found="top5: int", valid="tensors of integers or floats"):
        evaluate(_model(), _slices(8, 8, 0, 1), task, Ranks(), batches=1, seed=0, precision=nullcontext())
