"""The names that raycls brings itself, and where each is defined: looked up without importing any of it."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = [
    "BATCH_OPERATIONS",
    "LOSSES",
    "MASK_OPERATIONS",
    "MODELS",
    "MOVING",
    "NESTED",
    "OPERATIONS",
    "OPTIMIZERS",
    "SCHEDULES",
    "SOURCES",
    "TASKS",
    "VOLUME_OPERATIONS",
    "VOLUME_TASKS",
]

SOURCES: Mapping[str, str] = {
    "folder": "raycls.data.sources.folder:folder",
    "manifest": "raycls.data.sources.listing.manifest:manifest",
    "hf_folder": "raycls.data.sources.listing.hf_folder:hf_folder",
    "cifar": "raycls.data.sources.cifar:cifar",
    "arrays": "raycls.data.sources.arrays:arrays",
    "digits": "raycls.data.sources.digits:digits",
    "packed": "raycls.data.sources.packed.packed:packed",
    "parquet": "raycls.data.sources.packed.parquet:parquet",
    "webdataset": "raycls.data.sources.packed.webdataset:webdataset",
    "dicom": "raycls.data.sources.volumes.dicom:dicom",
    "nifti": "raycls.data.sources.volumes.nifti:nifti",
    "masks": "raycls.data.sources.masks:masks",
}
"""Sources, each called with `data.source.path` and `data.source.args`."""

OPERATIONS: Mapping[str, str] = {
    "resize": "raycls.data.images.geometry:resize",
    "center_crop": "raycls.data.images.operations:center_crop",
    "random_crop": "raycls.data.images.operations:random_crop",
    "random_resized_crop": "raycls.data.images.operations:random_resized_crop",
    "horizontal_flip": "raycls.data.images.operations:horizontal_flip",
    "vertical_flip": "raycls.data.images.operations:vertical_flip",
    "rotation": "raycls.data.images.operations:rotation",
    "color_jitter": "raycls.data.images.operations:color_jitter",
    **{name: f"raycls.data.images.geometry:{name}" for name in ("perspective", "affine")},
    **{
        name: f"raycls.data.images.colours:{name}"
        for name in ("hsv", "gaussian_blur", "grayscale", "solarize", "posterize", "equalize", "sharpness")
    },
    **{
        name: f"raycls.data.images.policies:{name}"
        for name in ("auto_augment", "rand_augment", "trivial_augment_wide", "aug_mix")
    },
    **{name: f"raycls.data.images.drawn:{name}" for name in ("random_choice", "random_order", "random_apply")},
}
"""Operations on images, each called with `data.image_size` and the arguments of the config."""

MOVING = (
    *("resize", "center_crop", "random_crop", "random_resized_crop", "horizontal_flip", "vertical_flip"),
    *("rotation", "perspective", "affine"),
)
"""Operations on images that move pixels: masks follow them, and they take images of any depth."""

MASK_OPERATIONS: Mapping[str, str] = {
    name: OPERATIONS[name]
    for name in (
        *MOVING,
        *("color_jitter", "hsv", "gaussian_blur", "grayscale", "solarize", "posterize", "equalize", "sharpness"),
    )
}
"""Operations on images that the task `segmentation` has: those that masks follow, and those of colours."""

VOLUME_OPERATIONS: Mapping[str, str] = {
    **{name: f"raycls.data.volumes.shapes:{name}" for name in ("resize", "center_crop", "random_crop", "pad")},
    **{name: f"raycls.data.volumes.changes:{name}" for name in ("flip", "rotate90", "intensity", "noise")},
}
"""Operations on volumes, each called with `data.image_size` and the arguments of the config. One that is called as an
operation on images takes no argument that this does not."""

VOLUME_TASKS = frozenset(("volume_classification", "volume_segmentation"))
"""Built-in tasks whose samples are volumes."""

NESTED = frozenset(("random_choice", "random_order", "random_apply"))
"""Those with a list of operations as the argument `operations`."""

BATCH_OPERATIONS: Mapping[str, str] = {
    name: f"raycls.tasks.mix.{name}:{name}" for name in ("mixup", "cutmix", "mixup_cutmix", "random_erasing")
}
"""Operations on a batch of training, each called with `num_classes` and the arguments of the config."""

MODELS: Mapping[str, str] = {
    "cnn": "raycls.models.networks.cnn:cnn",
    "fast_cnn": "raycls.models.networks.fast:fast_cnn",
    "resnet18_cifar": "raycls.models.networks.resnet_cifar:resnet18_cifar",
    "tiny_cnn": "raycls.models.networks.tiny:tiny_cnn",
    "unet": "raycls.models.volumes.unet:unet",
    "resnet3d": "raycls.models.volumes.resnet3d:resnet3d",
}
"""Networks beside those of torchvision, each called with `num_classes` and `model.args`."""

TASKS: Mapping[str, str] = {
    "classification": "raycls.tasks.classification:Classification",
    "multilabel": "raycls.tasks.multilabel:MultiLabel",
    "distillation": "raycls.tasks.distillation:Distillation",
    "simclr": "raycls.tasks.contrastive.simclr:SimCLR",
    "moco": "raycls.tasks.contrastive.moco:MoCo",
    "volume_classification": "raycls.tasks.volumes:VolumeClassification",
    "segmentation": "raycls.tasks.segmentation.task:Segmentation",
    "volume_segmentation": "raycls.tasks.segmentation.volumes:VolumeSegmentation",
}
"""Tasks, each called with what the run knows of itself and `task.args`."""

LOSSES: Mapping[str, str] = {
    "cross_entropy": "raycls.tasks.losses.cross_entropy:cross_entropy",
    "bce": "raycls.tasks.losses.bce:bce",
    "focal": "raycls.tasks.losses.focal:focal",
    "poly": "raycls.tasks.losses.poly:poly",
    "symmetric_cross_entropy": "raycls.tasks.losses.symmetric:symmetric_cross_entropy",
}
"""Losses, each called with `loss.args`."""

OPTIMIZERS: Mapping[str, str] = {
    **{
        name: f"raycls.train.optimizers.library:{name}"
        for name in ("sgd", "adam", "adamw", "nadam", "adafactor", "rmsprop")
    },
    **{name: f"raycls.train.optimizers.{name}:{name}" for name in ("lion", "lamb", "lars", "muon")},
}
"""Optimizers, each called with the parameters, `optim.lr` and `optim.args`."""

SCHEDULES: Mapping[str, str] = {
    **{
        name: f"raycls.train.schedules:{name}"
        for name in ("constant", "step", "multistep", "exponential", "cosine", "cosine_restarts", "plateau")
    },
    **{name: f"raycls.train.rates.shapes:{name}" for name in ("polynomial", "one_cycle", "wsd", "range_test")},
}
"""Schedules, each called with the length of the run in steps and `schedule.args`."""
