"""The names that raycls brings itself, and where each is defined: looked up without importing any of it."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["LOSSES", "MODELS", "OPERATIONS", "OPTIMIZERS", "SCHEDULES", "SOURCES", "TASKS"]

SOURCES: Mapping[str, str] = {
    "folder": "raycls.data.sources.folder:folder",
    "manifest": "raycls.data.sources.listing.manifest:manifest",
    "cifar": "raycls.data.sources.cifar:cifar",
    "arrays": "raycls.data.sources.arrays:arrays",
    "digits": "raycls.data.sources.digits:digits",
}
"""Sources, each called with `data.source.path` and `data.source.args`."""

OPERATIONS: Mapping[str, str] = {
    "resize": "raycls.data.images.operations:resize",
    "center_crop": "raycls.data.images.operations:center_crop",
    "random_crop": "raycls.data.images.operations:random_crop",
    "random_resized_crop": "raycls.data.images.operations:random_resized_crop",
    "horizontal_flip": "raycls.data.images.operations:horizontal_flip",
    "vertical_flip": "raycls.data.images.operations:vertical_flip",
    "rotation": "raycls.data.images.operations:rotation",
    "color_jitter": "raycls.data.images.operations:color_jitter",
}
"""Operations on images, each called with `data.image_size` and the arguments of the config."""

MODELS: Mapping[str, str] = {
    "resnet18_cifar": "raycls.models.resnet_cifar:resnet18_cifar",
    "tiny_cnn": "raycls.models.tiny:tiny_cnn",
}
"""Networks beside those of torchvision, each called with `num_classes` and `model.args`."""

TASKS: Mapping[str, str] = {"classification": "raycls.tasks.classification:Classification"}
"""Tasks, each called with what the run knows of itself and `task.args`."""

LOSSES: Mapping[str, str] = {"cross_entropy": "raycls.tasks.losses:cross_entropy"}
"""Losses, each called with `loss.args`."""

OPTIMIZERS: Mapping[str, str] = {
    name: f"raycls.train.optimizers:{name}" for name in ("sgd", "adam", "adamw", "rmsprop")
}
"""Optimizers, each called with the parameters, `optim.lr` and `optim.args`."""

SCHEDULES: Mapping[str, str] = {
    name: f"raycls.train.schedules:{name}"
    for name in ("constant", "step", "multistep", "exponential", "cosine", "cosine_restarts", "plateau")
}
"""Schedules, each called with the length of the run in steps and `schedule.args`."""
