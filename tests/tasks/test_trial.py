"""A task of the user is tried before a run starts, and what is wrong with it is told by the name of the method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from harness.tasks import setting
from torch import Tensor, nn

from raycls.config.names.metrics import Metric
from raycls.config.sections.task import TaskConfig
from raycls.errors import ConfigError
from raycls.tasks.base import Task, tensor
from raycls.tasks.build import build
from raycls.tasks.trial import example_of, try_task

SAMPLE = {"image": np.ones(2, np.float32)}


class Sum(Task):
    """The network's output is to be 1; `gives` and `loss_is` stand for what a user may return instead."""

    metrics = {"error": Metric("min")}
    gives: Any = None
    loss_is: Any = None
    counts_are: Any = None

    def arrays(self, split: Any, index: int, key: Any, *, train: bool) -> dict[str, np.ndarray]:
        return SAMPLE

    def batch(self, arrays: Mapping[str, np.ndarray], *, train: bool) -> Tensor:
        return tensor(arrays["image"], None)

    def loss(self, model: nn.Module, batch: Tensor) -> Any:
        whole = (model(batch) - 1).square().sum()
        return {"loss": whole} if self.loss_is is None else self.loss_is(whole)

    def counts(self, model: nn.Module, batch: Tensor) -> Any:
        counts = {"count": torch.tensor(len(batch)), "error": (model(batch) - 1).abs().sum().double()}
        return counts if self.counts_are is None else self.counts_are(counts)

    def summary(self, counts: Mapping[str, np.ndarray]) -> Any:
        error = float(counts["error"]) / int(counts["count"])
        return {"error": error} if self.gives is None else self.gives(error)


def tried(**pieces: Any) -> ConfigError | None:
    """What is wrong with `Sum` where these are its attributes."""
    task = type("Own", (Sum,), {name: staticmethod(each) for name, each in pieces.items()})(setting())
    model = nn.Sequential(nn.Linear(2, 1), nn.Dropout())
    model[1].eval()
    before = [value.clone() for value in model.state_dict().values()]
    try:
        try_task("own:Own", task, model, SAMPLE, SAMPLE)
    except ConfigError as error:
        return error
    finally:
        assert all(map(torch.equal, model.state_dict().values(), before))
        assert (model.training, model[1].training) == (True, False)
    return None


def test_a_task_that_fits_is_left_alone() -> None:
    assert tried() is None


def test_an_evaluation_of_two_samples_may_be_too_small_for_a_summary() -> None:
    assert tried(gives=lambda error: 1 / 0) is None


@pytest.mark.parametrize(
    ("pieces", "method", "found", "valid"),
    [
        ({"loss_is": lambda whole: whole}, "loss", "Tensor", "a dict of tensors, of integers or floats"),
        ({"loss_is": lambda whole: {"lossy": whole}}, "loss", "lossy []", "scalars: loss"),
        ({"loss_is": lambda whole: {"loss": whole.expand(2)}}, "loss", "loss [2]", "scalars: loss"),
        ({"loss_is": lambda whole: {"loss": whole.detach()}}, "loss", "no gradient", "differentiable: loss"),
        ({"counts_are": lambda counts: None}, "counts", "NoneType", "a dict of tensors, of integers or floats"),
        ({"counts_are": lambda _: {"error": 2.0}}, "counts", "error float", "a dict of tensors, of integers or floats"),
        ({"gives": lambda error: [error]}, "summary", "list", "a dict of plain JSON"),
        ({"gives": lambda error: {}}, "summary", "error: NoneType", "a Python int or float for each of error"),
        (
            {"gives": lambda error: {"error": np.float32(error)}},
            "summary",
            "error: float32",
            "a Python int or float for each of error",
        ),
    ],
)
def test_what_a_method_must_not_return_is_told(pieces: dict[str, Any], method: str, found: str, valid: str) -> None:
    error = tried(**pieces)
    assert error is not None
    assert error.what == f"the method {method} of the task own:Own does not return what it must"
    assert (error.where, error.found, error.valid) == ("task.name", found, valid)


@pytest.mark.parametrize(("piece", "method"), [("loss_is", "loss"), ("counts_are", "counts")])
def test_a_method_that_fails_is_told(piece: str, method: str) -> None:
    error = tried(**{piece: lambda value: 1 / 0})
    assert error is not None
    assert error.what == f"the method {method} of the task own:Own fails"
    assert error.found == "ZeroDivisionError: division by zero"


def test_an_example_that_fails_is_told() -> None:
    with pytest.raises(ConfigError) as caught:
        example_of("own:Own", Sum(setting()), {})
    assert caught.value.what == "the method example of the task own:Own fails"
    assert caught.value.found == "KeyError: 'image'"


def test_numbers_of_an_evaluation_do_not_take_the_names_of_the_history() -> None:
    error = tried(gives=lambda value: {"error": value, "step": 7, "epoch": 1.0})
    assert error is not None
    assert (error.where, error.found) == ("task.name", "epoch, step")


@pytest.mark.parametrize(
    ("attributes", "found"),
    [
        ({"metrics": {"error": Metric("minimum")}}, "Metric(mode='minimum', low=0.0, high=inf, title='')"),  # type: ignore[arg-type]
        ({"metrics": {"error": "min"}}, "'min'"),
        ({"metrics": ["error"]}, None),
        ({"metrics": {}}, None),
        ({"metrics": {"step": Metric("min")}}, "step"),
        ({"measured": ("lr",)}, "lr"),
        ({"minimised": "loss"}, "minimised ['l', 'o', 's', 's'], measured []"),
        ({"measured": "top"}, "minimised ['loss'], measured ['t', 'o', 'p']"),
    ],
)
def test_names_and_metrics_of_a_task_are_checked_when_it_is_made(
    attributes: dict[str, Any], found: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = type("Own", (Sum,), attributes)
    monkeypatch.setattr("raycls.tasks.build.TASKS", {"own": own})
    with pytest.raises(ConfigError) as caught:
        build(TaskConfig(name="own"), setting())
    assert (caught.value.where, caught.value.found) == ("task.name", found)
