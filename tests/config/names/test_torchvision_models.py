"""What is read from torchvision's source is what torchvision itself says."""

from __future__ import annotations

import inspect

import pytest

from raycls.config.names.networks import torchvision_models
from raycls.models import library


def test_the_names_are_those_of_torchvision() -> None:
    assert list(torchvision_models.names()) == sorted(library.builtins())


def test_weights_and_arguments_are_those_of_torchvision() -> None:
    for name, builder in library.builtins().items():
        found = torchvision_models.find(name)
        assert found is not None
        offered = library.weights_of(builder)
        assert (found.enum, found.weights) == (offered.__name__, tuple(offered.__members__)), name
        assert found.signature is not None
        assert list(found.signature.parameters) == list(inspect.signature(library.declared(builder)).parameters), name


@pytest.mark.parametrize("name", ["resnet", "ResNet", "fcn_resnet50", "resnet50_fpn", "_resnet", "", "resnet18("])
def test_other_functions_are_no_models(name: str) -> None:
    assert torchvision_models.find(name) is None
