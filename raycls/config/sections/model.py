"""Options of the network."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from raycls.config.sections.types import Section

__all__ = ["ModelConfig", "Pruned"]

Pruned = dict[str, int | list[int]] | list[int] | Literal["masked"]
"""New values of a layer's attributes, the new shape of a parameter, or a weight with a mask."""


class ModelConfig(Section):
    """The network. The number of classes comes from the data."""

    name: Annotated[str, Field(min_length=1)] = "resnet18"
    """A torchvision classification model, `timm:NAME` (with the extra `timm`), `tiny_cnn`, `fast_cnn`,
    `resnet18_cifar`, `cnn` (stages of `blocks` and `widths`, with or without `residual`), for volumes `resnet3d` and
    torchvision's `r3d_18`, `mc3_18`, `r2plus1d_18`, `swin3d_t`, an entry point, or
    `package.module:attribute` (called with `num_classes` and `args`, returns a `torch.nn.Module`)."""
    args: dict[str, Any] = {}
    """Further arguments of the model; as in `data.source.args`, `001` is a number and `"001"` text."""
    weights: str | None = None
    """Name of a torchvision weights enum value (`IMAGENET1K_V2`, `DEFAULT`), the folder of a run that has ended, or a
    file (`.safetensors`, or a state dict or checkpoint saved by torch); both may be at a URI: `s3://bucket/runs/pets`.
    Where a later layer names another model, `args` are left out, and so is a name that the new one has no weights of; a
    file stays. A file needs everything but the head, under any one prefix; an average (`ema`) in it is preferred. The
    head is matched by the class names that come with the weights (beside `model/model.safetensors` of a run, or in a
    checkpoint), and starts anew where none of them is the data's; without names one of the same size is taken as it is,
    and another starts anew. The header of a run says what was done, and where its preprocessing is not that of the
    weights."""
    in_channels: Annotated[int, Field(ge=1)] = 3
    """Channels of the images that the network takes: 3 is RGB; with 1 the task hands it the grey value of the decoded
    RGB (ITU-R 601-2 luma, to the level what Pillow's `convert("L")` gives), normalised with `augment.mean` and `std`
    weighted as the channels are; others where `data.channels` is the same, or a task of your own has them. The first
    convolution that takes 3 channels is made one for as many: of `weights` it gets the sum of the RGB kernels (1) or
    the kernels repeated, times 3 / `in_channels`, and takes kernels for as many as they are."""
    init: Literal["default", "xavier_uniform", "kaiming"] = "default"
    """How convolutions and linear layers start; not applied to loaded weights."""
    pruned: dict[str, Pruned] = {}
    """What `raycls prune` made of the network, by layer: the sizes that it has now (`conv1: {out_channels: 32}`, or the
    shape of a parameter that no layer owns), and the weights that are `masked`: where one was zero it stays zero. It
    belongs to `model.name` and is left out where a later layer names another model."""
