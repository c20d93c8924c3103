"""torchvision's classification models: their names, and the arguments that a config may give them.

A torchvision builder takes `**kwargs`, so a misspelt argument shows only when the network is built. The
arguments are read from the class behind the builder instead.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torchvision.models
from torch import nn
from torchvision.models import WeightsEnum

from raycls.config.names.networks.torchvision_models import VIDEO, arguments_of

__all__ = ["builtins", "construct", "declared", "settled", "weights_of"]

_WITH_TRANSFORM = ("GoogLeNet", "Inception3")


def builtins() -> dict[str, Callable[..., nn.Module]]:
    """Every classification model of the installed torchvision, and those of videos in `VIDEO`, by name."""
    names = [*torchvision.models.list_models(module=torchvision.models), *VIDEO]
    return {name: torchvision.models.get_model_builder(name) for name in names}


def weights_of(builder: Callable[..., nn.Module]) -> type[WeightsEnum]:
    """The enum of the weights that torchvision offers for the model."""
    return torchvision.models.get_model_weights(builder)


def declared(builder: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """A stand-in for `builder` whose signature names the arguments a config may give. It is never called."""
    cls = _class(builder)
    parameters = arguments_of(cls.__name__, inspect.signature(cls))

    def stand_in(**arguments: Any) -> nn.Module:
        return builder(**arguments)

    stand_in.__name__ = stand_in.__qualname__ = builder.__name__
    stand_in.__signature__ = parameters  # type: ignore[attr-defined]
    return stand_in


def construct(
    builder: Callable[..., nn.Module], num_classes: int, args: Mapping[str, Any], weights: WeightsEnum | None
) -> nn.Module:
    """The network with its own initial weights, made for `weights` but without reading them.

    GoogLeNet and Inception are built without auxiliary heads, so they return plain logits.
    """
    arguments = {"num_classes": num_classes, **settled(builder, args, weights)}
    if _class(builder).__name__ in _WITH_TRANSFORM:
        arguments["aux_logits"] = False
        arguments["init_weights"] = True  # the default, which warns where it is not said
    return builder(**arguments)


def settled(builder: Callable[..., nn.Module], args: Mapping[str, Any], weights: WeightsEnum | None) -> dict[str, Any]:
    """`args` with what `weights` decide of the network, its input size or input transform, unless `args` says it.

    With these the network is the same whatever weights it gets.
    """
    name, found = _class(builder).__name__, dict(args)
    if name in _WITH_TRANSFORM:
        found.setdefault("transform_input", weights is not None)
    if weights is not None and name == "VisionTransformer":
        found.setdefault("image_size", weights.meta["min_size"][0])
    return found


def _class(builder: Callable[..., nn.Module]) -> type[nn.Module]:
    """The class that a builder declares to return."""
    return inspect.signature(builder).return_annotation
