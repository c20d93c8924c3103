"""Clipping, by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from raycls.config.sections.optim import OptimConfig
from raycls.train.optimizers.clipping import build_clip


def _model() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    values = {
        "0.weight": ([[3.0, 4.0], [0.0, 0.0]], [[0.6, 0.8], [3.0, 4.0]]),
        "0.bias": ([0.0, 2.0], [0.0, -0.1]),
        "1.weight": ([[1.0, 0.0]], [[-7.0, 2.0]]),
        "1.bias": ([1.0], [0.5]),
    }
    for name, parameter in model.named_parameters():
        parameter.data, parameter.grad = (torch.tensor(value) for value in values[name])
    return model


_NORM = (0.6**2 + 0.8**2 + 25 + 0.1**2 + 49 + 4 + 0.25) ** 0.5
_WHOLE = {"0.weight": [[0.6, 0.8], [3.0, 4.0]], "0.bias": [0.0, -0.1], "1.weight": [[-7.0, 2.0]], "1.bias": [0.5]}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, _WHOLE),
        ({"clip_norm": 100.0}, _WHOLE),
        (
            {"clip_norm": _NORM / 2},
            {"0.weight": [[0.3, 0.4], [1.5, 2.0]], "0.bias": [0.0, -0.05], "1.weight": [[-3.5, 1.0]], "1.bias": [0.25]},
        ),
        (
            {"clip_value": 0.7},
            {"0.weight": [[0.6, 0.7], [0.7, 0.7]], "0.bias": [0.0, -0.1], "1.weight": [[-0.7, 0.7]], "1.bias": [0.5]},
        ),
        # rows: |w| 5, |g| 1 -> 0.5; |w| 0 counts as 0.001, |g| 5 -> 0.0001; the bias: |w| 2, |g| 0.1; not the head
        ({"agc": 0.1}, {**_WHOLE, "0.weight": [[0.3, 0.4], [0.00006, 0.00008]]}),
        ({"agc": 0.01}, {**_WHOLE, "0.weight": [[0.03, 0.04], [6e-6, 8e-6]], "0.bias": [0.0, -0.02]}),
    ],
    ids=["off", "norm-long", "norm", "value", "agc", "agc-bias"],
)
def test_what_each_leaves_of_a_gradient(fields: dict[str, float], expected: dict[str, list[float]]) -> None:
    model = _model()
    assert build_clip(OptimConfig.model_validate(fields), model)() == pytest.approx(_NORM)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, torch.tensor(expected[name]), rtol=1e-5, atol=1e-9)


def test_two_ways_at_once_are_refused() -> None:
    with pytest.raises(ValueError, match="clip_norm and agc both clip the gradient"):
        OptimConfig(clip_norm=1.0, agc=0.01)


@pytest.mark.parametrize(
    ("rule", "batch", "expected"),
    [("none", 1024, 0.1), ("linear", 1024, 0.4), ("linear", 64, 0.025), ("sqrt", 1024, 0.2), ("sqrt", 256, 0.1)],
)
def test_the_rate_for_a_batch_size(rule: str, batch: int, expected: float) -> None:
    assert OptimConfig.model_validate({"lr_rule": rule}).scaled(batch).lr == expected
