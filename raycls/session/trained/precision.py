"""What a trained network is computed in, whoever asks it: `eval`, `predict` and `serve` give the same answers."""

from __future__ import annotations

import torch

from raycls.train.precision import emulated

__all__ = ["answering", "in_float32"]


def answering(precision: str, device: torch.device, *, trained_on: str, chosen: str) -> str:
    """`bf16`, `fp16` or `off`, which is float32.

    That is `precision`, the one of the training and of its evaluations, wherever the device has it natively; else
    float32, as an answer must not wait for what is emulated. A CPU that was told to emulate it while it trained, by
    `train.amp` (`chosen`), does so again: an evaluation gives what the history says. `trained_on` is `cpu` or `cuda`.
    """
    told = device.type == trained_on == "cpu" and chosen == precision
    return precision if precision and (told or not emulated(precision, device)) else "off"


def in_float32(precision: str) -> str:
    """What to say where `answering` leaves `precision`."""
    return f"computed in float32: the run evaluated in {precision}, which this device does not have"
