"""Losses against PyTorch, timm's formulas written out in numpy, and figures by hand; mixed labels and weights too."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from raycls.config.load import load
from raycls.config.sections.task import LossConfig
from raycls.errors import ConfigError
from raycls.tasks.losses.balance import class_weights, log_priors
from raycls.tasks.losses.build import balanced_loss, build_loss, check_loss

LABELS = torch.tensor([0, 2, 1, 2])
LOGITS = torch.tensor([[2.0, 0.5, -1.0], [0.1, 0.2, 0.3], [-3.0, 4.0, 1.0], [1.5, -0.5, 0.0]])
MIXED = torch.tensor([[0.7, 0.3, 0.0], [0.0, 0.25, 0.75], [0.0, 1.0, 0.0], [0.5, 0.0, 0.5]])
WEIGHTS = torch.tensor([0.5, 2.0, 1.5])
NAMES: dict[str, dict[str, Any]] = {
    "cross_entropy": {"label_smoothing": 0.1},
    "bce": {"label_smoothing": 0.1},
    "focal": {"gamma": 1.5},
    "poly": {"epsilon": 2.0, "label_smoothing": 0.1},
    "symmetric_cross_entropy": {"alpha": 0.3, "beta": 0.7, "log_zero": -6.0},
}


def _loss(name: str, **args: Any) -> Any:
    return build_loss(LossConfig(name=name, args=args))


def _binary(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    chances = 1 / (1 + np.exp(-logits))
    return -(targets * np.log(chances) + (1 - targets) * np.log(1 - chances))


def _by_hand(name: str, logits: np.ndarray, label: int) -> float:
    """What one sample costs with the arguments of `NAMES`, from the equations of the papers, in float64."""
    chances = np.exp(logits) / np.exp(logits).sum()
    smooth = np.full(3, 0.1 / 3)
    smooth[label] += 0.9
    p = chances[label]
    return float({
        "cross_entropy": -(smooth * np.log(chances)).sum(),
        "bce": _binary(logits, smooth).mean(),
        "focal": -((1 - p) ** 1.5) * np.log(p),
        "poly": -(smooth * np.log(chances)).sum() + 2 * (1 - (smooth * chances).sum()),
        "symmetric_cross_entropy": 0.3 * -np.log(p) + 0.7 * 6 * (1 - p),
    }[name])  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_is_the_sum_of_its_equation(name: str) -> None:
    loss, logits = _loss(name, **NAMES[name]), LOGITS.double().numpy()
    costs = [_by_hand(name, logits[row], int(LABELS[row])) for row in range(4)]
    assert loss(LOGITS, LABELS).item() == pytest.approx(sum(costs), rel=1e-5)
    assert loss(LOGITS, F.one_hot(LABELS, 3).float()).item() == pytest.approx(sum(costs), rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_mixed_sample_costs_the_mean_over_its_classes_each_by_its_weight(name: str) -> None:
    loss, logits = _loss(name, **NAMES[name]), LOGITS.double().numpy()
    each = np.array([[_by_hand(name, logits[row], label) for label in range(3)] for row in range(4)])
    assert loss(LOGITS, MIXED).item() == pytest.approx(float((MIXED.numpy() * each).sum()), rel=1e-5)
    if name in ("focal", "symmetric_cross_entropy"):  # the others smooth labels: there weights are those of classes
        weighted = (WEIGHTS * MIXED).numpy() * each
        assert loss(LOGITS, MIXED, WEIGHTS).item() == pytest.approx(float(weighted.sum()), rel=1e-5)
        hard = [float(WEIGHTS[label]) * each[row, label] for row, label in enumerate(LABELS.tolist())]
        assert loss(LOGITS, LABELS, WEIGHTS).item() == pytest.approx(sum(hard), rel=1e-5)
    else:
        plain = _loss(name, over_classes="mean") if name == "bce" else _loss(name)
        alone = [[plain(LOGITS[row : row + 1], torch.tensor([c])).item() for c in range(3)] for row in range(4)]
        weighted = (WEIGHTS * MIXED).numpy() * np.array(alone)
        assert plain(LOGITS, MIXED, WEIGHTS).item() == pytest.approx(float(weighted.sum()), rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_hard_labels_in_both_forms_have_one_gradient_and_it_is_finite(name: str) -> None:
    loss, grads = _loss(name), []
    for targets in (LABELS, F.one_hot(LABELS, 3).float()):
        logits = (LOGITS * 60).requires_grad_()  # sure to the last bit of float32
        loss(logits, targets, WEIGHTS).backward()
        grads.append(logits.grad)
    assert isinstance(grads[0], Tensor) and torch.isfinite(grads[0]).all()
    assert torch.allclose(grads[0], grads[1], rtol=1e-5, atol=1e-6)


def test_special_cases_are_those_of_pytorch() -> None:
    plain = F.cross_entropy(LOGITS, LABELS, reduction="sum")
    assert _loss("focal", gamma=0)(LOGITS, LABELS).item() == pytest.approx(plain.item(), rel=1e-6)
    assert _loss("poly", epsilon=0)(LOGITS, LABELS).item() == pytest.approx(plain.item(), rel=1e-6)
    assert torch.equal(_loss("cross_entropy")(LOGITS, LABELS), plain)
    weighted = F.cross_entropy(LOGITS, LABELS, WEIGHTS, reduction="sum")
    assert torch.equal(_loss("cross_entropy")(LOGITS, LABELS, WEIGHTS), weighted)
    binary = F.binary_cross_entropy_with_logits(LOGITS, MIXED, reduction="none")
    assert _loss("bce")(LOGITS, MIXED).item() == pytest.approx(binary.mean(1).sum().item(), rel=1e-6)
    assert _loss("bce", over_classes="sum")(LOGITS, MIXED).item() == pytest.approx(binary.sum().item(), rel=1e-6)
    there = (MIXED > 0.4).float()
    binary = F.binary_cross_entropy_with_logits(LOGITS, there, reduction="none").mean(1)
    assert _loss("bce", threshold=0.4)(LOGITS, MIXED).item() == pytest.approx(binary.sum().item(), rel=1e-6)
    weights = (MIXED * WEIGHTS).sum(1)
    found = _loss("bce", threshold=0.4)(LOGITS, MIXED, WEIGHTS).item()
    assert found == pytest.approx((weights * binary).sum().item(), rel=1e-6)


def test_focal_with_a_gamma_below_one_has_a_gradient_where_the_network_is_sure() -> None:
    logits = torch.tensor([[200.0, 0.0, 0.0]], requires_grad=True)
    _loss("focal", gamma=0.5)(logits, torch.tensor([0])).backward()
    assert logits.grad is not None and torch.isfinite(logits.grad).all()


def test_weights_by_hand() -> None:
    """60, 30 and 10 samples: 100 / (3 n) each, so that 60 * 5/9 + 30 * 10/9 + 10 * 10/3 = 100."""
    counts = (60, 30, 10)
    assert class_weights(counts, None).tolist() == pytest.approx([5 / 9, 10 / 9, 10 / 3])
    beta = 0.9
    raw = np.array([(1 - beta) / (1 - beta**n) for n in counts])
    wanted = raw * 100 / (raw * counts).sum()
    assert class_weights(counts, beta).tolist() == pytest.approx(wanted.tolist(), rel=1e-6)
    near = class_weights(counts, 0.9999999)
    assert near.tolist() == pytest.approx([5 / 9, 10 / 9, 10 / 3], rel=1e-4)
    assert class_weights((3, 0, 1), None).tolist() == pytest.approx([2 / 3, 1, 2])
    assert log_priors(counts).tolist() == pytest.approx([math.log(0.6), math.log(0.3), math.log(0.1)])
    assert log_priors((3, 0, 1)).tolist() == pytest.approx([math.log(3 / 5), math.log(1 / 5), math.log(1 / 5)])


def test_a_weighted_batch_is_divided_by_its_samples_and_not_by_its_weights() -> None:
    """Two samples, logits of 0: each costs log 2. Weights 3/4 and 3/2 of counts (2, 1): (3/4 + 3/2) log 2 / 2, whatever
    parts it is computed in; PyTorch's mean is log 2, and that of its parts depends on the parts."""
    loss = balanced_loss(LossConfig(balance="weights"), (2, 1), None)
    logits, labels = torch.zeros(2, 2), torch.tensor([0, 1])
    parts = loss(logits[:1], labels[:1]) + loss(logits[1:], labels[1:])
    assert parts.item() / 2 == pytest.approx(9 / 8 * math.log(2))
    assert loss(logits, labels).item() / 2 == pytest.approx(9 / 8 * math.log(2))
    theirs = F.cross_entropy(logits, labels, torch.tensor([0.75, 1.5]))
    assert theirs.item() == pytest.approx(math.log(2))
    over_epoch = loss(torch.zeros(3, 2), torch.tensor([0, 0, 1])).item() / 3
    assert over_epoch == pytest.approx(math.log(2))  # the mean weight of the training samples is 1


@pytest.mark.parametrize("name", ["cross_entropy", "focal", "poly", "symmetric_cross_entropy"])
def test_logit_adjustment_is_that_of_the_paper(name: str) -> None:
    counts, tau = (60, 30, 10), 1.5
    loss = balanced_loss(LossConfig(name=name, balance="logit_adjust", balance_tau=tau), counts, None)
    moved = LOGITS + tau * torch.log(torch.tensor(counts) / 100)
    assert loss(LOGITS, MIXED).item() == pytest.approx(_loss(name)(moved, MIXED).item(), rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("balance", ["none", "weights", "effective_number", "sampler", "logit_adjust"])
def test_every_loss_takes_every_balance_and_mixed_labels(name: str, balance: Any) -> None:
    if (name, balance) != ("bce", "logit_adjust"):
        check_loss(LossConfig(name=name, args=NAMES[name], balance=balance), (5, 3, 2, 9), mixed=True)


@pytest.mark.parametrize(
    ("overrides", "path", "words"),
    [
        (("loss.name=bce", "loss.balance=logit_adjust"), "loss", "weights or sampler"),
        (("loss.balance_beta=0.9",), "loss.balance_beta", "effective_number"),
        (("loss.balance=weights", "loss.balance_tau=2.0"), "loss.balance_tau", "logit_adjust"),
        (("loss.balance=balanced",), "loss.balance", "effective_number"),
        (("loss.balance=effective_number", "loss.balance_beta=1.0"), "loss.balance_beta", "less than 1"),
        (("loss={name: focal, args: {gama: 1}}",), "loss.args", "did you mean loss.args.gamma?"),
        (("loss={name: focal, args: {gamma: -1}}",), "loss.args.gamma", "0"),
        (("loss={name: bce, args: {over_classes: all}}",), "loss.args.over_classes", "mean"),
    ],
)
def test_what_does_not_fit_is_told_at_its_place(
    overrides: tuple[str, ...], path: str, words: str, tmp_path: Path
) -> None:
    (tmp_path / "run.yaml").write_text("")
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "run.yaml", overrides)
    assert path in str(caught.value) and words in str(caught.value)
