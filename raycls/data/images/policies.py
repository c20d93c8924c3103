"""Learned and random policies: a few operations on each image, drawn from a fixed set.

They are torchvision's (`torchvision.transforms.v2`) on Pillow images. On tensors the same seed gives other pixels there
(RandAugment up to 57 levels apart, TrivialAugment 165): raycls trains, and shows, Pillow's. AugMix alone works on
tensors inside, so its pixels are floats of torch, rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torchvision.transforms import AutoAugmentPolicy, v2

from raycls.data.images.checks import colour, interpolated, number, whole

__all__ = ["aug_mix", "auto_augment", "rand_augment", "trivial_augment_wide"]

_KNOWN = ("nearest", "bilinear", "bicubic")
_MANY = 1000


def auto_augment(
    image_size: int, *, policy: str = "imagenet", interpolation: str = "nearest", fill: int | Sequence[int] = 0
) -> Callable[[Any], Any]:
    """One of 25 pairs of operations that were learned for `imagenet`, `cifar10` or `svhn`.

    Cubuk and others: AutoAugment: Learning Augmentation Policies from Data, CVPR 2019, tables 7 to 9.
    """
    if policy not in (known := tuple(each.value for each in AutoAugmentPolicy)):
        raise ValueError(f"policy is one of {', '.join(known)}")
    return v2.AutoAugment(AutoAugmentPolicy(policy), interpolated(interpolation, _KNOWN), fill=colour(fill))


def rand_augment(
    image_size: int,
    *,
    num_ops: int = 2,
    magnitude: int = 9,
    num_magnitude_bins: int = 31,
    interpolation: str = "nearest",
    fill: int | Sequence[int] = 0,
) -> Callable[[Any], Any]:
    """`num_ops` of 14 operations, each at `magnitude` of 0 to `num_magnitude_bins - 1`.

    Cubuk and others: RandAugment: Practical Automated Data Augmentation, 2019, section 3.
    """
    bins = whole("num_magnitude_bins", num_magnitude_bins, 2, _MANY)
    return v2.RandAugment(
        whole("num_ops", num_ops, 1, _MANY),
        whole("magnitude", magnitude, 0, bins - 1),
        bins,
        interpolated(interpolation, _KNOWN),
        fill=colour(fill),
    )


def trivial_augment_wide(
    image_size: int, *, num_magnitude_bins: int = 31, interpolation: str = "nearest", fill: int | Sequence[int] = 0
) -> Callable[[Any], Any]:
    """One of 14 operations at a random strength. Mueller and Hutter: TrivialAugment, ICCV 2021, section 3."""
    bins = whole("num_magnitude_bins", num_magnitude_bins, 2, _MANY)
    return v2.TrivialAugmentWide(bins, interpolated(interpolation, _KNOWN), fill=colour(fill))


def aug_mix(
    image_size: int,
    *,
    severity: int = 3,
    mixture_width: int = 3,
    chain_depth: int = -1,
    alpha: float = 1.0,
    all_ops: bool = True,
    interpolation: str = "bilinear",
    fill: int | Sequence[int] | None = None,
) -> Callable[[Any], Any]:
    """The image mixed with `mixture_width` chains of `chain_depth` operations (-1: 1 to 3) of strength 1 to `severity`.

    Hendrycks and others: AugMix, ICLR 2020, section 3; without its consistency loss.
    `fill` null is black too, but what was turned has soft edges there, as in torchvision by default.
    """
    if type(all_ops) is not bool:
        raise ValueError("all_ops is true or false")
    if chain_depth != -1:
        whole("chain_depth", chain_depth, 1, _MANY)
    if number("alpha", alpha, 0.0, float(_MANY)) == 0.0:
        raise ValueError("alpha must be greater than 0")
    return v2.AugMix(
        whole("severity", severity, 1, 10),
        whole("mixture_width", mixture_width, 1, _MANY),
        chain_depth,
        float(alpha),
        all_ops,
        interpolated(interpolation, _KNOWN),
        fill=None if fill is None else colour(fill),
    )
