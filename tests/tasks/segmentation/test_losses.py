"""Losses of masks, by the formulas in float64 and in parts."""

from __future__ import annotations

import pytest
import torch

from raycls.tasks.segmentation.losses import LOSSES

_ARGS = {"alpha": 0.2, "beta": 0.6, "gamma": 1.5, "background": 0.0}


def _by_hand(name: str, logits: torch.Tensor, codes: torch.Tensor) -> float:
    """Of one sample `[C, N]`, pixel by pixel."""
    probabilities = logits.double().softmax(0)
    known = [at for at in range(codes.numel()) if codes[at] > 0]
    right = torch.stack([probabilities[codes[at] - 1, at] for at in known])
    power = {"focal": 1.5}.get(name, 0.0)
    entropy = float((-((1 - right) ** power) * right.log()).mean())
    below, above = (0.2, 0.6) if name == "tversky" else (0.5, 0.5)
    parts: list[float] = []
    for label in range(1, len(logits)):
        both = sum(float(probabilities[label, at]) for at in known if codes[at] == label + 1)
        wrong = sum(float(probabilities[label, at]) for at in known) - both
        missed = sum(1 for at in known if codes[at] == label + 1) - both
        parts.append(1 - (both + 0.5) / (both + below * wrong + above * missed + 0.5))
    overlap = sum(parts) / len(parts)
    return {"ce_dice": entropy + overlap, "dice": overlap, "tversky": overlap}.get(name, entropy)


@pytest.mark.parametrize("name", list(LOSSES))
def test_a_loss_whole_and_in_parts(name: str) -> None:
    drawn = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 3, 4, 5, 6, generator=drawn)
    codes = torch.randint(0, 4, (2, 4, 5, 6), generator=drawn)
    codes[1, 0] = 0
    whole = LOSSES[name](logits, codes, _ARGS)
    expected = [_by_hand(name, one.flatten(1), code.flatten()) for one, code in zip(logits, codes, strict=True)]
    torch.testing.assert_close(whole.double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-5, atol=1e-6)
    assert torch.equal(LOSSES[name].in_parts(logits, codes, _ARGS, 120), whole)
    for most in (119, 37, 1):
        torch.testing.assert_close(LOSSES[name].in_parts(logits, codes, _ARGS, most), whole, rtol=1e-5, atol=1e-6)
