"""Mean field against a plain dense implementation, and against all labelings of tiny grids."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from raycls.tasks.crf import dense
from raycls.tasks.crf.dense import Crf, refined

_WHOLE = Crf(smoothness=0.3, appearance=0.6, width=2.0, contrast=0.3, reach=100.0)


def _case(sides: tuple[int, ...], seed: int, classes: int = 3, channels: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(classes, *sides, generator=generator, dtype=torch.float64)
    return logits.softmax(0), torch.rand(channels, *sides, generator=generator, dtype=torch.float64)


def _kernel(image: np.ndarray, crf: Crf, spacing: tuple[float, ...]) -> np.ndarray:
    """`[N, N]`, as the formula says."""
    sides = image.shape[1:]
    places = np.stack(np.meshgrid(*map(np.arange, sides), indexing="ij"), -1).reshape(-1, len(sides)) * spacing
    values = image.reshape(len(image), -1).T
    far = ((places[:, None] - places) ** 2).sum(-1)
    other = ((values[:, None] - values) ** 2).sum(-1)
    kernel = crf.smoothness * np.exp(-far / 2 / crf.smooth_width**2)
    kernel += crf.appearance * np.exp(-far / 2 / crf.width**2 - other / 2 / crf.contrast**2)
    return kernel * (far > 0) * (far <= crf.reach**2)


def _plain(probabilities: np.ndarray, kernel: np.ndarray, steps: int) -> np.ndarray:
    unary = np.log(probabilities.reshape(len(probabilities), -1))
    beliefs = np.exp(unary)
    for _ in range(steps):
        beliefs = np.exp(unary + beliefs @ kernel)
        beliefs /= beliefs.sum(0)
    return beliefs.reshape(probabilities.shape)


@pytest.mark.parametrize("reach", [100.0, 2.5])
@pytest.mark.parametrize("sides", [(4, 6), (1, 5), (3, 4, 3), (3, 1, 4)])
def test_it_is_what_a_dense_implementation_computes(
    sides: tuple[int, ...], reach: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    spacing = (2.5, 1.0, 0.7)[: len(sides)]
    probabilities, image = _case(sides, len(sides))
    crf = replace(_WHOLE, reach=reach)
    wanted = _plain(probabilities.numpy(), _kernel(image.numpy(), crf, spacing), crf.steps)
    found = refined(probabilities, image, crf, spacing=spacing)
    np.testing.assert_allclose(found.numpy(), wanted, atol=2e-5)
    assert np.abs(wanted - probabilities.numpy()).max() > 0.05  # it changes something
    monkeypatch.setattr(dense, "BLOCK", 1)  # a row at a time
    torch.testing.assert_close(refined(probabilities, image, crf, spacing=spacing), found, rtol=0, atol=1e-6)


def _exact(probabilities: np.ndarray, kernel: np.ndarray) -> tuple[np.ndarray, float]:
    """The marginals of every voxel `[C, N]` and the log of the sum over all labelings."""
    classes = len(probabilities)
    unary = np.log(probabilities.reshape(classes, -1))
    count = unary.shape[1]
    labelings = np.array(list(product(range(classes), repeat=count)))
    energy = -unary[labelings, np.arange(count)].sum(1)
    different = labelings[:, :, None] != labelings[:, None]
    energy += (different * np.triu(kernel, 1)).sum((1, 2))
    weights = np.exp(-energy)
    marginals = np.stack([((labelings == label) * weights[:, None]).sum(0) for label in range(classes)])
    return marginals / weights.sum(), float(np.log(weights.sum()))


def _bound(beliefs: np.ndarray, probabilities: np.ndarray, kernel: np.ndarray) -> float:
    """The entropy of `beliefs` `[C, N]` minus their mean energy: at most the log of the sum over all labelings."""
    unary = np.log(probabilities.reshape(len(probabilities), -1))
    pairs = np.triu(kernel, 1) * (1 - beliefs.T @ beliefs)
    return float((beliefs * (unary - np.log(beliefs))).sum() - pairs.sum())


def test_voxels_without_neighbours_have_their_exact_marginals() -> None:
    probabilities, image = _case((2, 3), 0)
    for crf in (replace(_WHOLE, smoothness=0.0, appearance=0.0), replace(_WHOLE, reach=0.9)):
        exact, _ = _exact(probabilities.numpy(), _kernel(image.numpy(), crf, (1, 1)))
        np.testing.assert_allclose(refined(probabilities, image, crf).numpy().reshape(3, -1), exact, atol=1e-6)


def test_mean_field_is_exact_to_the_first_order_of_the_kernels() -> None:
    """It is an approximation: half the weights leave about a quarter of its difference to all 729 labelings."""
    probabilities, image = _case((2, 3), 1)
    wrong = []
    for weight in (0.2, 0.1):
        crf = replace(_WHOLE, smoothness=weight, appearance=weight, steps=20)
        exact, _ = _exact(probabilities.numpy(), _kernel(image.numpy(), crf, (1, 1)))
        wrong.append(np.abs(refined(probabilities, image, crf).numpy().reshape(3, -1) - exact).max())
    assert 1e-5 < wrong[1] < 0.02 and 3 < wrong[0] / wrong[1] < 5, wrong


@pytest.mark.parametrize("sides", [(2, 3), (2, 2, 2)])
def test_it_comes_nearer_to_the_sum_over_all_labelings_and_never_above(sides: tuple[int, ...]) -> None:
    for seed in range(2):
        probabilities, image = _case(sides, seed, classes=2)
        kernel = _kernel(image.numpy(), _WHOLE, (1,) * len(sides))
        _, most = _exact(probabilities.numpy(), kernel)
        bounds = []
        for steps in (0, 10):
            found = refined(probabilities, image, replace(_WHOLE, steps=steps)).double().numpy().reshape(2, -1)
            bounds.append(_bound(found, probabilities.numpy(), kernel))
        assert bounds[0] < bounds[1] < most


def test_threads_do_not_change_a_bit() -> None:
    probabilities, image = _case((8, 33, 35), 3)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(refined(probabilities, image, replace(_WHOLE, reach=2.0)))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)


@pytest.mark.parametrize(
    ("probabilities", "image", "spacing"),
    [
        (torch.ones(2, 4), torch.ones(1, 4), None),
        (torch.ones(2, 4, 4), torch.ones(1, 4, 5), None),
        (torch.ones(2, 4, 4), torch.ones(1, 4, 4), (1.0,)),
        (torch.ones(2, 4, 4), torch.ones(1, 4, 4), (1.0, 0.0)),
        (torch.full((2, 4, 4), torch.nan), torch.ones(1, 4, 4), None),
        (torch.ones(2, 4, 4), torch.full((1, 4, 4), torch.inf), None),
    ],
)
def test_what_does_not_fit_is_refused(
    probabilities: torch.Tensor, image: torch.Tensor, spacing: tuple[float, ...] | None
) -> None:
    with pytest.raises(ValueError, match=r"shapes|distances|finite"):
        refined(probabilities, image, Crf(), spacing=spacing)


@pytest.mark.parametrize("wrong", [{"contrast": 0.0}, {"appearance": -1.0}, {"steps": -1}, {"reach": float("nan")}])
def test_parameters_have_ranges(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"or more|greater than 0"):
        Crf(**wrong)  # type: ignore[arg-type]
