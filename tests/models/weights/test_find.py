"""Weights from files and from torchvision's cache: what fits, what is left out, what is refused."""

from __future__ import annotations

import hashlib
import os
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision.models
from harness.errors import raised
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from raycls.config.sections.model import ModelConfig
from raycls.errors import ConfigError, ModelError
from raycls.models.networks.tiny import tiny_cnn
from raycls.models.weights import find
from raycls.models.weights.loading import load_into
from raycls.models.zoo import build, check
from raycls.progress import Progress, listening


def trained(num_classes: int = 10) -> nn.Module:
    """A `tiny_cnn` whose every weight and buffer differs from a fresh one."""
    model = tiny_cnn(num_classes, width=4)
    with torch.no_grad():
        for value in model.state_dict().values():
            value.copy_(torch.arange(value.numel()).reshape(value.shape) % 7 + 1)
    return model


def load(path: Path, num_classes: int = 10, **fields: Any) -> nn.Module:
    config = ModelConfig(name="tiny_cnn", args={"width": 4}, weights=str(path), **fields)
    check(config)
    return build(config, num_classes, seed=0)


def assert_same(model: nn.Module, expected: dict[str, Tensor], but: tuple[str, ...] = ()) -> None:
    for name, value in model.state_dict().items():
        assert torch.equal(value, expected[name]) == (name not in but), name


@pytest.mark.parametrize(
    "wrap",
    [
        lambda model: model.state_dict(),
        lambda model: dict(model.state_dict()),
        lambda model: {"state_dict": model.state_dict(), "epoch": 3},
        lambda model: {"model": model.state_dict(), "optimizer": {"lr": 0.1}},
        lambda model: nn.DataParallel(model).state_dict(),
        lambda model: OrderedDict((f"module._orig_mod.{k}", v) for k, v in model.state_dict().items()),
        lambda model: {"model": AveragedModel(model).state_dict()},
    ],
    ids=["state_dict", "plain", "state_dict_key", "model_key", "parallel", "compiled", "averaged"],
)
@pytest.mark.parametrize("init", ["default", "kaiming"])
def test_files_of_torch(tmp_path: Path, wrap: Any, init: str) -> None:
    model = trained()
    torch.save(wrap(model), tmp_path / "net.pth")
    assert_same(load(tmp_path / "net.pth", init=init), model.state_dict())


def test_safetensors_in_half_precision(tmp_path: Path) -> None:
    model = trained()
    small = {k: v.to(torch.bfloat16) if v.is_floating_point() else v for k, v in model.state_dict().items()}
    safetensors.torch.save_file(small, tmp_path / "net.safetensors")
    loaded = load(tmp_path / "net.safetensors")
    assert_same(loaded, model.state_dict())  # small integers are exact in bfloat16
    assert next(loaded.parameters()).dtype == torch.float32


def test_a_head_for_other_classes_starts_anew(tmp_path: Path) -> None:
    model = trained(1000)
    torch.save(model.state_dict(), tmp_path / "net.pth")
    loaded = load(tmp_path / "net.pth", num_classes=10)
    head = ("classifier.weight", "classifier.bias")
    fresh = build(ModelConfig(name="tiny_cnn", args={"width": 4}), 10, seed=0).state_dict()
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, fresh[name] if name in head else model.state_dict()[name])
    notes = load_into(tiny_cnn(10, width=4), tmp_path / "net.pth", 10).notes
    assert any("1000" in note and "10:" in note for note in notes)


def test_without_loading_the_network_is_the_fresh_one(tmp_path: Path) -> None:
    torch.save(trained().state_dict(), tmp_path / "net.pth")
    config = ModelConfig(name="tiny_cnn", args={"width": 4}, weights=str(tmp_path / "net.pth"))
    fresh = build(config.model_copy(update={"weights": None}), 10, seed=0)
    (tmp_path / "net.pth").unlink()  # an evaluation, later, need not have it
    assert_same(build(config, 10, seed=0, load=False), fresh.state_dict())
    with pytest.raises(ModelError, match="not there"):
        build(config, 10, seed=0)


def test_differences_are_listed(tmp_path: Path) -> None:
    state = trained().state_dict()
    del state["features.0.weight"]
    state["other.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "net.pth")
    both = re.compile(r"missing.*: features\.0\.weight; .*model: other\.weight")
    with raised(ModelError, where=str(tmp_path / "net.pth"), found=both):
        load(tmp_path / "net.pth")
    torch.save(tiny_cnn(10, width=8).state_dict(), tmp_path / "wide.pth")
    with raised(ModelError, found=re.compile(r"features\.0\.weight: \[4, 3, 3, 3\].*, \[2, 3, 3, 3\].*and \d+ more")):
        load(tmp_path / "wide.pth")
    # a head with other inputs is another architecture, not other classes
    state = trained().state_dict()
    state["classifier.weight"] = torch.zeros(1000, 99)
    torch.save(state, tmp_path / "head.pth")
    with pytest.raises(ModelError, match=r"classifier\.weight: \[1000, 99\]"):
        load(tmp_path / "head.pth")
    state = trained().state_dict()
    del state["classifier.weight"]
    torch.save(state, tmp_path / "headless.pth")
    with pytest.raises(ModelError, match=r"missing.*: classifier\.weight"):
        load(tmp_path / "headless.pth")


def test_counters_of_batch_norm_may_be_missing(tmp_path: Path) -> None:
    state = {k: v for k, v in trained().state_dict().items() if not k.endswith("num_batches_tracked")}
    safetensors.torch.save_file(state, tmp_path / "net.safetensors")
    loaded = load(tmp_path / "net.safetensors").state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in state.items())
    assert loaded["features.1.num_batches_tracked"] == 0


class Trap:
    """Unpickling it would make a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("legacy", [False, True])
def test_nothing_is_unpickled(tmp_path: Path, legacy: bool) -> None:
    content = {"state_dict": trained().state_dict(), "more": Trap(tmp_path / "sprung")}
    torch.save(content, tmp_path / "net.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ModelError, match="runs code"):
        load(tmp_path / "net.pth")
    content["more"] = np.array([Trap(tmp_path / "sprung")], dtype=object)
    torch.save(content, tmp_path / "net.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ModelError, match="runs code"):
        load(tmp_path / "net.pth")
    assert not (tmp_path / "sprung").exists()


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    torch.save(trained().state_dict(), tmp_path / "net.pth")
    safetensors.torch.save_file(trained().state_dict(), tmp_path / "net.safetensors")
    for name in ("net.pth", "net.safetensors"):
        content = (tmp_path / name).read_bytes()
        for size in (0, 5, len(content) // 2):
            (tmp_path / name).write_bytes(content[:size])
            with pytest.raises(ModelError, match=name):
                load(tmp_path / name)
    (tmp_path / "page.pth").write_text("<html>not found</html>")
    with pytest.raises(ModelError, match=r"page\.pth"):
        load(tmp_path / "page.pth")


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {}, torch.zeros(3), {"a": torch.zeros(1), 3: 4}])
def test_files_without_a_state_dict_are_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "net.pth")
    with pytest.raises(ModelError, match=r"net\.pth"):
        load(tmp_path / "net.pth")


@pytest.mark.parametrize("name", ["weights/none.pth", "none.safetensors", "./none"])
def test_a_file_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="not there"):
        check(ModelConfig(name="resnet18", weights=name))


def test_a_worker_finds_what_the_command_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray starts workers in folders of their own; they are told where the command was typed."""
    (tmp_path / "typed").mkdir()
    torch.save(trained().state_dict(), tmp_path / "typed" / "net.pth")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="not there"):
        find.locate("net.pth", None)
    monkeypatch.setenv("RAYCLS_WORKDIR", str(tmp_path / "typed"))
    for name in ("net.pth", "./net.pth", str(tmp_path / "typed" / "net.pth")):
        assert os.path.samefile(Path(str(find.locate(name, None))), tmp_path / "typed" / "net.pth")


def test_home_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.pth").touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find.locate("~/net.pth", None) == tmp_path / "net.pth"
    with pytest.raises(ConfigError, match="no home folder"):
        find.locate("~no-such-user/net.pth", None)


def test_a_folder_of_weights_is_refused_with_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my nets").mkdir()
    (tmp_path / "my nets" / "readme.txt").touch()
    with pytest.raises(ModelError, match=r"the folder of a run"):
        find.locate("my nets", None)
    for name in ("b.pth", "a.ckpt"):
        (tmp_path / "my nets" / name).touch()
    with pytest.raises(ModelError) as caught:
        find.locate("my nets/", None)
    assert caught.value.fix == "model.weights='my nets/a.ckpt', or another of a.ckpt, b.pth"


def test_the_name_of_a_run_is_answered_with_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/cc/model").mkdir(parents=True)
    (tmp_path / "runs/cc/model/model.safetensors").touch()
    for name, fix in (("cc", "model.weights=runs/cc"), ("dd", None)):
        with pytest.raises(ConfigError) as caught:
            find.locate(name, None)
        assert caught.value.fix == fix


def test_the_folder_of_a_run_is_its_kept_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "runs/cc/model/model.safetensors"
    file.parent.mkdir(parents=True)
    file.touch()
    assert find.locate("runs/cc", None) == find.locate("runs/cc/", None) == file
    with pytest.raises(ModelError) as caught:
        find.locate("runs/cc/model", None)
    assert caught.value.fix == "model.weights=runs/cc/model/model.safetensors"


def test_names_of_weights() -> None:
    offered = torchvision.models.ResNet50_Weights
    assert find.locate("IMAGENET1K_V1", offered) is offered.IMAGENET1K_V1
    assert find.locate("DEFAULT", offered) is offered.IMAGENET1K_V2
    assert find.locate("ResNet50_Weights.IMAGENET1K_V1", offered) is offered.IMAGENET1K_V1
    with pytest.raises(ConfigError, match="IMAGENET1K_V"):
        find.locate("IMAGENET_V1", offered)
    with pytest.raises(ConfigError, match=r"valid: .*\.safetensors"):
        find.locate("IMAGENET1K_V1", None)


def publish(folder: Path, state: dict[str, Tensor], name: str) -> str:
    """The address of `state` as torchvision publishes it: with eight digits of its sha256 in the name."""
    torch.save(state, folder / "file")
    digest = hashlib.sha256((folder / "file").read_bytes()).hexdigest()
    return (folder / "file").rename(folder / f"{name}-{digest[:8]}.pth").as_uri()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints"


def test_googlenet_drops_its_auxiliary_heads(tmp_path: Path, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = torchvision.models.GoogLeNet(aux_logits=True, init_weights=False, transform_input=True)
    value = torchvision.models.GoogLeNet_Weights.IMAGENET1K_V1.value
    monkeypatch.setattr(value, "url", publish(tmp_path, full.state_dict(), "googlenet"))
    config = ModelConfig(name="googlenet", weights="DEFAULT")
    model = build(config, 1000, seed=0)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(images), full.eval()(images))
    assert len(list(hub.iterdir())) == 1
    smaller = build(config, 7, seed=0)
    assert smaller.get_parameter("fc.weight").shape == (7, 1024)
    assert torch.equal(smaller.get_parameter("conv1.conv.weight"), full.get_parameter("conv1.conv.weight"))
    # the input transform belongs to the architecture, so it is there without loading too
    assert build(config, 7, seed=0, load=False).transform_input
    assert not build(ModelConfig(name="googlenet"), 7, seed=0).transform_input


def test_old_names_of_densenet(tmp_path: Path) -> None:
    state = torchvision.models.densenet121().state_dict()
    old: OrderedDict[str, Tensor] = OrderedDict()
    for name, value in state.items():
        for word in ("norm", "conv"):
            if "denselayer" in name:
                name = name.replace(f".{word}1.", f".{word}.1.").replace(f".{word}2.", f".{word}.2.")
        if not name.endswith("num_batches_tracked"):
            old[name] = value
    assert set(old) - set(state)
    torch.save(old, tmp_path / "densenet.pth")
    model = build(ModelConfig(name="densenet121", weights=str(tmp_path / "densenet.pth")), 1000, seed=1)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_old_names_of_vision_transformers_come_with_their_version(tmp_path: Path) -> None:
    def net() -> nn.Module:
        return torchvision.models.VisionTransformer(32, 16, num_layers=1, num_heads=1, hidden_dim=8, mlp_dim=8)

    source, target = net(), net()
    new = source.state_dict()
    old = OrderedDict(
        (k.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."), v) for k, v in new.items()
    )
    assert set(old) - set(new)
    versions = {name: {"version": 1} for name in new._metadata}  # type: ignore[attr-defined]
    old._metadata = versions  # type: ignore[attr-defined]
    torch.save(old, tmp_path / "vit.pth")
    load_into(target, tmp_path / "vit.pth", 1000)
    assert all(torch.equal(value, new[name]) for name, value in target.state_dict().items())


def test_a_file_without_versions_loads_where_the_network_asks_for_one(tmp_path: Path) -> None:
    state = torchvision.models.mnasnet0_5(num_classes=3).state_dict()
    safetensors.torch.save_file(dict(state), tmp_path / "mnasnet.safetensors")
    config = ModelConfig(name="mnasnet0_5", weights=str(tmp_path / "mnasnet.safetensors"))
    model = build(config, 3, seed=1)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_weights_bring_their_image_size() -> None:
    config = ModelConfig(name="vit_b_16", weights="IMAGENET1K_SWAG_E2E_V1")
    with torch.device("meta"):
        assert build(config, 7, seed=0, load=False).image_size == 384


def test_without_a_network_the_message_says_what_to_do(hub: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        find.fetch((tmp_path / "nowhere" / "net-01234567.pth").as_uri())
    assert "net-01234567.pth" in caught.value.what
    assert all(part in (caught.value.fix or "") for part in (str(hub), "model.weights=FILE"))
    assert list(hub.iterdir()) == []  # nothing half-written


def test_damaged_content_is_refused(hub: Path, tmp_path: Path) -> None:
    (tmp_path / "net-01234567.pth").write_bytes(b"not these weights")
    url = (tmp_path / "net-01234567.pth").as_uri()
    digest = hashlib.sha256(b"not these weights").hexdigest()[:16]
    with pytest.raises(ModelError, match=f"downloaded\n(.*\n)*.*{digest}"):
        find.fetch(url)
    assert list(hub.iterdir()) == []
    (hub / "net-01234567.pth").write_bytes(b"not these weights")
    with pytest.raises(ModelError, match=f"damaged\n(.*\n)*.*{digest}"):
        find.fetch(url)


def test_the_cache_is_used(hub: Path, tmp_path: Path) -> None:
    url = publish(tmp_path, {"a": torch.zeros(1)}, "net")
    path = find.fetch(url)
    assert path.parent == hub
    next(tmp_path.glob("net-*.pth")).unlink()
    assert find.fetch(url) == path


def test_a_download_says_how_far_it_is(hub: Path, tmp_path: Path) -> None:
    url = publish(tmp_path, {"a": torch.zeros(700_000)}, "net")
    size = next(tmp_path.glob("net-*.pth")).stat().st_size
    heard: list[Progress] = []
    with listening(heard.append):
        name = find.fetch(url).name
    # a message before the first MiB and after each; 2.8 MB are three of them
    assert [(one.done, one.total) for one in heard] == [(0, size), (1 << 20, size), (2 << 20, size), (size, size)]
    assert {(one.phase, one.unit) for one in heard} == {(f"downloading {name}", "bytes")}
