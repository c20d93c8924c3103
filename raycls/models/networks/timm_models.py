"""Networks of timm (PyTorch Image Models), an optional package: `timm:NAME`. Nothing is ever downloaded."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from torch import nn

from raycls.config.names.networks.timm_models import PREFIX, check_name
from raycls.errors import ConfigError

__all__ = ["PREFIX", "Preprocessing", "builder", "no_download", "preprocessing_of"]

_LOADING = ("pretrained", "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")
"""Arguments of `timm.create_model` about weights, which are `model.weights` here."""


@dataclass(frozen=True)
class Preprocessing:
    """What timm's configuration of a model says of its images: `image_size` in pixels, mean and deviation in 0..1."""

    model: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    crop_pct: float
    crop_mode: str
    image_size: int

    def written(self, image_size: int) -> dict[str, Any]:
        """In the options of a config, for images of `image_size`; without `eval` where raycls has no such resize."""
        found: dict[str, Any] = {"mean": list(self.mean), "std": list(self.std), "image_size": self.image_size}
        if self.crop_mode in ("center", "squash") and self.interpolation in ("bilinear", "bicubic"):
            size = math.floor(image_size / self.crop_pct)
            resize: dict[str, Any] = {"size": size, "interpolation": self.interpolation}
            resize |= {"fit": "stretch"} if self.crop_mode == "squash" else {}
            found["eval"] = [{"resize": resize}, "center_crop"]
        return found

    def __str__(self) -> str:
        values = ", ".join(f"{name} {list(getattr(self, name))}" for name in ("mean", "std"))
        resized = f"{self.interpolation}, crop_pct {self.crop_pct} ({self.crop_mode})"
        return f"timm's configuration of {self.model}: {self.image_size} pixels, {resized}, {values}"


def builder(name: str, args: Mapping[str, Any]) -> Callable[..., nn.Module]:
    """What builds `timm:NAME`, called with `num_classes` and `args`.

    Raises ConfigError where timm is not installed, has no such model, or `args` ask for weights.
    """
    if find_spec("timm") is None:
        raise ConfigError(
            f"the model {name} needs the package timm",
            where="model.name",
            found="it is not installed",
            fix="pip install 'raycls[timm]'",
        )
    check_name(name)
    loading = [key for key in args if key in _LOADING]
    if loading:
        raise no_download(name, f"model.args.{loading[0]}", str(args[loading[0]]))
    if "in_chans" in args:
        raise ConfigError(
            "the channels of the images are no argument of the model: the data has as many",
            where="model.args.in_chans",
            found=str(args["in_chans"]),
            fix="leave it out, and set model.in_channels",
        )

    def timm_model(num_classes: int, **args: Any) -> nn.Module:
        import timm

        return timm.create_model(name.removeprefix(PREFIX), pretrained=False, num_classes=num_classes, **args)

    timm_model.__qualname__ = name  # for messages
    return timm_model


def no_download(name: str, where: str, found: str) -> ConfigError:
    """The error where weights are asked for that timm would download."""
    import timm

    told = timm.get_pretrained_cfg(name.removeprefix(PREFIX), allow_unregistered=True)
    home = f"the Hugging Face repository {told.hf_hub_id}" if told and told.hf_hub_id else "its author"
    return ConfigError(
        f"raycls downloads no weights of timm: {name} starts anew, or from a file",
        where=where,
        found=found,
        valid="model.weights: a run folder, or a file with weights of this model (.safetensors, .pth)",
        fix=f"download the weights from {home}, and set model.weights to the file"
        + ("" if where == "model.weights" else f" instead of {where}"),
    )


def preprocessing_of(name: str, model: nn.Module) -> Preprocessing | None:
    """What the model's own configuration says of images; None where they are not square or not in colour."""
    from timm.data.config import resolve_data_config

    told = resolve_data_config({}, model=model)
    channels, height, width = told["input_size"]
    if channels != 3 or height != width or len(told["mean"]) != 3 or len(told["std"]) != 3:
        return None
    kept = {key: told[key] for key in ("mean", "std", "interpolation", "crop_pct", "crop_mode")}
    return Preprocessing(name.removeprefix(PREFIX), image_size=height, **kept)
