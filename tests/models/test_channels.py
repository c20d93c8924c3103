"""Networks for grey images and for more channels than three: the first convolution, without and with weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from raycls.config.sections.model import ModelConfig
from raycls.errors import ModelError
from raycls.models import zoo

FIRST = {
    "tiny_cnn": "features.0.weight",
    "cnn": "",
    "resnet18_cifar": "conv1.weight",
    "resnet18": "conv1.weight",
    "squeezenet1_1": "features.0.weight",
    "mobilenet_v3_small": "features.0.0.weight",
    "shufflenet_v2_x0_5": "conv1.0.weight",
}


def build(name: str = "tiny_cnn", channels: int = 3, **more: Any) -> nn.Module:
    return zoo.build(ModelConfig(name=name, in_channels=channels, **more), 5, seed=0)


@pytest.mark.parametrize("channels", [1, 2, 4])
@pytest.mark.parametrize("name", FIRST)
def test_a_network_takes_images_of_so_many_channels(name: str, channels: int) -> None:
    usual, changed = build(name), build(name, channels)
    before, after = usual.state_dict(), changed.state_dict()
    other = [key for key in before if before[key].shape != after[key].shape]
    assert len(other) == 1
    assert FIRST[name] in ("", other[0])
    assert after[other[0]].shape[1] == channels
    assert changed.eval()(torch.rand(2, channels, 32, 32)).shape == (2, 5)
    same = [key for key in before if key != other[0]]
    assert all(torch.equal(before[key], after[key]) for key in same)


def test_first_values_are_those_of_the_author_with_the_same_variance_behind() -> None:
    own = build("resnet18").get_parameter("conv1.weight")
    found = build("resnet18", 4).get_parameter("conv1.weight")
    assert torch.isin(found, own * 0.75**0.5).all()
    # the standard error of a standard deviation of 12,544 values is 0.7%
    assert float((found.std() / own.std()).detach()) == pytest.approx(0.75**0.5, rel=0.03)
    again = build("resnet18", 4).get_parameter("conv1.weight")
    assert torch.equal(found, again)


def test_init_is_of_the_new_shape() -> None:
    found = build("tiny_cnn", 12, init="xavier_uniform").get_parameter("features.0.weight")
    bound = (6 / (9 * 12 + 9 * len(found))) ** 0.5
    assert 0.95 * bound < found.abs().max() <= bound


@pytest.mark.parametrize("prefix", ["", "state_dict.net."])
@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_loaded_kernels_are_summed_or_repeated(channels: int, prefix: str, tmp_path: Path) -> None:
    usual = build().state_dict()
    torch.save({prefix + key: value for key, value in usual.items()}, tmp_path / "net.pth")
    config = ModelConfig(name="tiny_cnn", in_channels=channels, weights=str(tmp_path / "net.pth"))
    model = zoo.build(config, 5, seed=1, load=False)
    loaded = zoo.load(config, model, ("a", "b", "c", "d", "e"))
    red, green, blue = usual.pop("features.0.weight").unbind(1)
    kernels = {
        1: [red + green + blue],
        2: [red * 1.5, green * 1.5],
        4: [red * 0.75, green * 0.75, blue * 0.75, red * 0.75],
        7: [kernel * (3 / 7) for kernel in (red, green, blue, red, green, blue, red)],
    }[channels]
    found = model.state_dict()
    torch.testing.assert_close(found.pop("features.0.weight"), torch.stack(kernels, 1))
    assert found.keys() == usual.keys()
    assert all(torch.equal(found[key], usual[key]) for key in usual)
    assert f"features.0.weight for {channels} instead of 3 channels" in loaded.notes[0]


def test_an_image_of_equal_channels_gives_what_it_gave(tmp_path: Path) -> None:
    usual = build()
    torch.save(usual.state_dict(), tmp_path / "net.pth")
    image = torch.rand(2, 1, 16, 16)
    expected = usual.eval()(image.expand(-1, 3, -1, -1))
    for channels in (1, 6):
        model = build(channels=channels, weights=str(tmp_path / "net.pth"))
        torch.testing.assert_close(model.eval()(image.expand(-1, channels, -1, -1)), expected)


def test_the_average_is_taken_from_a_file_of_three_channels_too(tmp_path: Path) -> None:
    usual, average = build().state_dict(), build(init="kaiming").state_dict()
    torch.save({"model": usual, "model_ema": average}, tmp_path / "net.pth")
    found = build(channels=1, weights=str(tmp_path / "net.pth")).get_parameter("features.0.weight")
    torch.testing.assert_close(found.detach(), average["features.0.weight"].sum(1, keepdim=True))


def test_a_file_of_as_many_channels_is_taken_as_it_is(tmp_path: Path) -> None:
    usual: dict[str, Tensor] = build(channels=4).state_dict()
    torch.save(usual, tmp_path / "net.pth")
    found = zoo.build(ModelConfig(name="tiny_cnn", in_channels=4, weights=str(tmp_path / "net.pth")), 5, 9).state_dict()
    assert all(torch.equal(found[key], usual[key]) for key in usual)


def test_a_file_of_other_channels_does_not_fit(tmp_path: Path) -> None:
    torch.save(build(channels=4).state_dict(), tmp_path / "net.pth")
    with pytest.raises(ModelError, match=r"features\.0\.weight: \[\d+, 4, 3, 3\] in the file, \[\d+, 1, 3, 3\]"):
        build(channels=1, weights=str(tmp_path / "net.pth"))


def test_a_network_without_such_a_convolution_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("without_a_stem.py").write_text(
        "from torch import nn\n\n\ndef net(num_classes): return nn.Linear(3, num_classes)\n"
    )
    with pytest.raises(ModelError, match="no convolution for images") as refused:
        build("without_a_stem:net", 1)
    assert refused.value.where == "model.in_channels"


def test_a_network_that_treats_three_channels_by_itself_is_refused() -> None:
    with pytest.raises(ModelError, match="normalises three channels by itself") as refused:
        build("googlenet", 1, args={"transform_input": True})
    assert refused.value.where == "model.in_channels"
