"""Images smaller than a kernel: in bf16 on a CPU gradients are those of float32, and other layers are left alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from raycls.train.forward.narrow import narrow, widened

_CPU = torch.device("cpu")


def _gradients(model: nn.Module, images: Tensor, *, mixed: bool) -> list[Tensor]:
    unused = [torch.full((length,), 3e38) for length in (64, 256, 1024, 4096, 16384)]
    del unused  # what a kernel does not write is then far from any gradient
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        output = model(images)
    if mixed:
        assert output.dtype == torch.bfloat16
    factors = torch.linspace(-1, 1, output.numel()).view(output.shape)
    return list(torch.autograd.grad((output.float() * factors).sum(), list(model.parameters())))


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv3d(1, 16, 3, padding=1),
        nn.Conv3d(16, 16, 3, padding=1, bias=False),
        nn.Conv3d(16, 16, (5, 1, 1), padding="same"),
    )


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_gradients_of_a_flat_volume(layout: torch.memory_format) -> None:
    model = _network().to(memory_format=layout)
    images = torch.randn(4, 1, 2, 3, 3, generator=torch.Generator().manual_seed(1)).contiguous(memory_format=layout)
    exact = _gradients(model, images, mixed=False)
    with widened(model, _CPU):
        first, second = (_gradients(model, images, mixed=True) for _ in range(2))
    for right, one, other in zip(exact, first, second, strict=True):
        assert torch.equal(one, other)
        assert (one - right).abs().max() < 0.03 * right.abs().max()
    assert not any("forward" in vars(module) for module in model)


def test_all_else_is_computed_as_before() -> None:
    """Wider images, evaluations, float32 and a GPU's network: the same kernels, so the same bits."""
    model = _network()
    wide, flat = torch.randn(2, 1, 5, 5, 5), torch.randn(2, 1, 2, 3, 3)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        evaluated = model(flat)
    plain, mixed = _gradients(model, flat, mixed=False), _gradients(model, wide, mixed=True)
    with widened(model, _CPU):
        with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
            assert torch.equal(model(flat), evaluated)
        for before, after in zip(
            [*plain, *mixed], [*_gradients(model, flat, mixed=False), *_gradients(model, wide, mixed=True)], strict=True
        ):
            assert torch.equal(before, after)
    with widened(model, torch.device("cuda")):
        assert not any("forward" in vars(module) for module in model)


@pytest.mark.parametrize(
    ("module", "size", "found"),
    [
        (nn.Conv3d(1, 1, 3, padding=1), (2, 9, 9), True),
        (nn.Conv3d(1, 1, 3, padding=1), (3, 3, 3), False),
        (nn.Conv3d(1, 1, 3, padding=2, dilation=2), (4, 9, 9), True),
        (nn.Conv3d(1, 1, (1, 3, 3), padding=(0, 1, 1)), (1, 3, 3), False),
        (nn.ConvTranspose3d(1, 1, 2, stride=2), (1, 1, 1), False),  # two voxels come out
        (nn.ConvTranspose3d(1, 1, 3, stride=2, padding=1), (1, 4, 4), True),
        (nn.ConvTranspose3d(1, 1, 3, stride=2, padding=1, output_padding=1), (2, 4, 4), False),
        (nn.Conv2d(1, 1, 3, padding=1), (1, 1), False),  # right without a stride
        (nn.Conv2d(1, 1, 3, padding=1, stride=2), (1, 1), True),
        (nn.Conv2d(1, 1, 3, padding=1, stride=2), (3, 3), False),
    ],
)
def test_what_is_narrow(module: nn.Conv3d, size: tuple[int, ...], found: bool) -> None:
    assert narrow(module, size) is found
