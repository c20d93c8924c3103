"""A head whose classes have names is put in the data's order; the oracle is the network that was saved."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision.models
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from raycls.errors import ModelError
from raycls.models.heads import listed, rows_by_name
from raycls.models.weights.loading import Loaded, load_into
from raycls.models.zoo import check_head
from raycls.run.folder import RunFolder
from raycls.run.model_file import write_model

_IMAGES = torch.arange(2 * 3 * 8 * 8).reshape(2, 3, 8, 8).float().sin()
_FILE = ("0", "1", "10", "11", "2")
_DATA = ("0", "1", "2", "10", "11")


def net(outputs: int = 5) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, outputs))


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(_IMAGES)


def agree(model: nn.Module, source: nn.Module, order: Sequence[int]) -> None:
    """The logits of `model` are those of `source` in another order, up to how a matrix product adds."""
    torch.testing.assert_close(logits(model), logits(source)[:, list(order)], rtol=1e-6, atol=1e-6)


_ORDER = [_FILE.index(name) for name in _DATA]


def load(path: Path, model: nn.Module, classes: Sequence[str] = _DATA) -> Loaded:
    return load_into(model, path, len(classes), classes)


_NAMED: dict[str, dict[str, Any]] = {
    "classes": {"classes": list(_FILE)},
    "tuple": {"class_names": _FILE},
    "integers": {"classes": [0, 1, 10, 11, 2]},
    "class_to_idx": {"class_to_idx": {name: number for number, name in enumerate(_FILE)}},
    "unsorted": {"class_to_idx": {"2": 4, "10": 2, "0": 0, "11": 3, "1": 1}},
    "idx_to_class": {"idx_to_class": dict(enumerate(_FILE))},
    "id2label": {"id2label": {str(number): name for number, name in enumerate(_FILE)}},
    "misnamed": {"class_to_idx": dict(enumerate(_FILE))},
    "lightning": {"hyper_parameters": {"lr": 0.1, "class_names": list(_FILE)}},
    "args": {"args": {"class_to_idx": {name: number for number, name in enumerate(_FILE)}}},
    "meta": {"meta": {"categories": list(_FILE)}, "classes": 5},
    "numpy array": {"classes": np.array(_FILE)},
    "numpy objects": {"classes": np.array(_FILE, dtype=object)},
    "numpy numbers": {"class_to_idx": {name: np.int64(number) for number, name in enumerate(_FILE)}},
    "tensors": {"class_to_idx": {name: torch.tensor(number) for number, name in enumerate(_FILE)}},
    "from 1": {"class_to_idx": {name: number for number, name in enumerate(_FILE, 1)}},
    "label_map": {"label_map": dict(enumerate(_FILE))},
    "idx_to_label": {"idx_to_label": dict(enumerate(_FILE))},
    "target_names": {"target_names": list(_FILE)},
    "vocab": {"vocab": list(_FILE)},
    "COCO": {"categories": [{"id": 7 + 3 * number, "name": name} for number, name in enumerate(_FILE)][::-1]},
    "counts": {"class_counts": [0, 1, 2, 10, 11], "class_list": list(_FILE)},
    "beside as many": {"labels": [8, 1, 12, 3, 9], "meta": {"classes": list(_FILE)}},
    "beside others": {"labels": [3, 1, 2], "meta": {"classes": list(_FILE)}},
}


@pytest.mark.parametrize("named", _NAMED.values(), ids=_NAMED)
def test_rows_follow_their_names(named: dict[str, Any], tmp_path: Path) -> None:
    source, target = net(), net()
    torch.save({"state_dict": source.state_dict(), **named}, tmp_path / "net.pth")
    told = load(tmp_path / "net.pth", target)
    agree(target, source, _ORDER)
    assert "5 of 5 classes are found by name" in told.notes[1]


def test_a_subset_and_new_classes(tmp_path: Path) -> None:
    source, target = net(5), net(3)
    before = logits(target)
    torch.save(
        {"model": source.state_dict(), "classes": ["cow", "cafe\u0301", "dog", "ant", "bee"]}, tmp_path / "n.pth"
    )
    with torch.no_grad():
        target[0].load_state_dict(source[0].state_dict())  # so that what a fresh row gives can be compared
        before = logits(target)
    told = load(tmp_path / "n.pth", target, ("bee", "caf\u00e9", "yak"))
    expected = torch.stack([logits(source)[:, 4], logits(source)[:, 1], before[:, 2]], dim=1)
    torch.testing.assert_close(logits(target), expected, rtol=1e-6, atol=1e-6)  # up to how a product of 3 rows adds
    assert "starting anew: yak" in told.notes[1]
    assert "left out: cow, dog, ant" in told.notes[1]


def test_without_names_the_order_is_said(tmp_path: Path) -> None:
    source, target = net(), net()
    torch.save(source.state_dict(), tmp_path / "net.pth")
    told = load(tmp_path / "net.pth", target)
    agree(target, source, range(5))
    assert told.notes[1] == "head taken as it is: its outputs are taken for the classes in this order: 0, 1, 2, 10, 11"


def test_the_rule_where_no_name_is_common() -> None:
    wnids, words = [f"n{number:08}" for number in range(1000)], [f"word {number}" for number in range(1000)]
    published = rows_by_name(1000, words, 1000, wnids, published=True)
    assert published.of == tuple(range(1000))  # ImageNet, whose folders are named by number
    assert "n00000000, n00000001, n00000002, n00000003 ... n00000999 (1000)" in published.note
    assert "word 0" in published.note
    for outputs, classes, of_torchvision in ((1000, ["cat", "dog"], True), (1000, wnids, False)):
        other = rows_by_name(outputs, words, len(classes), classes, published=of_torchvision)
        assert other.of is None
        assert "starts anew" in other.note


def test_a_file_with_names_of_other_classes_gives_no_head(tmp_path: Path) -> None:
    source, target = net(), net()
    fresh = target[3].state_dict()["weight"].clone()
    torch.save({"model": source.state_dict(), "classes": ["cat", "dog", "fox", "hen", "owl"]}, tmp_path / "net.pth")
    told = load(tmp_path / "net.pth", target)
    assert torch.equal(target[3].state_dict()["weight"], fresh)
    assert torch.equal(target[0].state_dict()["weight"], source[0].state_dict()["weight"])
    assert "none of its class names (cat, dog, fox, hen, owl) is one of the data's: it starts anew" in told.notes[1]


def test_a_name_that_stands_twice_means_nothing() -> None:
    rows = rows_by_name(3, ["crane", "crane", "gull"], 2, ["crane", "gull"])  # the bird and the machine
    assert rows.of == (None, 2)
    assert "starting anew: crane" in rows.note


def test_names_that_differ_in_case_and_marks_alone() -> None:
    rows = rows_by_name(3, ["Great white shark", "Hen", "sea-lion"], 3, ["hen", "great_white_shark", "sea lion"])
    assert rows.of == (1, 0, 2)
    letters = rows_by_name(4, ["B", "b", "A", "a"], 2, ["a", "b"])  # these are letters of their own
    assert letters.of == (3, 1)
    assert rows_by_name(2, ["B", "A"], 4, ["a", "A ", "b", "B "]).of is None  # which of them is not known


def test_names_that_are_not_one_per_output_are_not_used(tmp_path: Path) -> None:
    source, target = net(), net()
    torch.save({"model": source.state_dict(), "classes": ["a", "b"]}, tmp_path / "net.pth")
    told = load(tmp_path / "net.pth", target)
    agree(target, source, range(5))
    assert "names 2 classes" in told.notes[1]


def test_a_model_of_raycls_and_one_that_was_renamed(tmp_path: Path) -> None:
    source = net()
    folder = RunFolder(str(tmp_path / "run"))
    facts: dict[str, Any] = {"image_size": 8, "eval": None, "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}
    write_model(folder, source.state_dict(), classes=_FILE, preprocessing=facts, config={}, weights={})
    path = tmp_path / "run" / "model" / "model.safetensors"
    target = net()
    told = load(path, target)
    agree(target, source, _ORDER)
    assert told.preprocessing == facts
    # other weights under this name: the classes beside them are not theirs
    safetensors.torch.save_file(net().state_dict(), path)
    told = load(path, target)
    assert "taken as it is" in told.notes[1]
    assert told.preprocessing is None


def test_classes_in_the_metadata_of_a_file(tmp_path: Path) -> None:
    source, target = net(), net()
    path = tmp_path / "net.safetensors"
    for text in (json.dumps(_FILE), ", ".join(_FILE)):
        safetensors.torch.save_file(source.state_dict(), path, metadata={"classes": text, "format": "pt"})
        load(path, target)
        agree(target, source, _ORDER)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_classes_in_the_config_of_a_hub(name: str, tmp_path: Path) -> None:
    source, target = net(), net()
    save = safetensors.torch.save_file if name.endswith(".safetensors") else torch.save
    save(source.state_dict(), tmp_path / name)
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "net", "label_names": _FILE}))
    load(tmp_path / name, target)
    agree(target, source, _ORDER)


def test_a_checkpoint_of_a_run_that_has_not_ended(tmp_path: Path) -> None:
    source, target = net(), net()
    path = tmp_path / "run" / "checkpoints" / "step-00000004" / "model.safetensors"
    path.parent.mkdir(parents=True)
    safetensors.torch.save_file(source.state_dict(), path)
    (tmp_path / "run" / "env.json").write_text(json.dumps({"data": {"classes": list(_FILE)}}))
    load(path, target)
    agree(target, source, _ORDER)


class Auxiliary(nn.Module):
    def __init__(self, outputs: int = 5) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3)
        self.aux1 = nn.Sequential(nn.Linear(4, outputs), nn.Linear(outputs, outputs))
        self.fc = nn.Linear(4, outputs)
        self.aux_head = nn.Linear(4, outputs)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.body(images).mean((2, 3)))


def normed() -> nn.Sequential:
    model = net()
    weight_norm(model[3])
    return model


class Plain(nn.Module):
    """A head that is no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3)
        self.prototypes = nn.Parameter(torch.randn(5, 4))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.body(images).mean((2, 3)) @ self.prototypes.T


def test_auxiliary_heads_are_moved_too_and_what_is_inside_of_them_is_not(tmp_path: Path) -> None:
    source, target = Auxiliary(), Auxiliary()
    torch.save({"model": source.state_dict(), "classes": _FILE}, tmp_path / "net.pth")
    load(tmp_path / "net.pth", target)
    agree(target, source, _ORDER)
    assert torch.equal(target.aux_head.weight, source.aux_head.weight[_ORDER])
    features = torch.randn(2, 4)
    torch.testing.assert_close(target.aux1(features), source.aux1(features)[:, _ORDER])


def test_every_tensor_with_a_row_per_class_is_moved(tmp_path: Path) -> None:
    source, target = normed(), normed()
    torch.save({"model": source.state_dict(), "classes": _FILE}, tmp_path / "net.pth")
    load(tmp_path / "net.pth", target)
    agree(target, source, _ORDER)


def test_a_head_that_is_no_layer_cannot_be_reordered(tmp_path: Path) -> None:
    torch.save({"model": Plain().state_dict(), "classes": _FILE}, tmp_path / "net.pth")
    with pytest.raises(ModelError, match="no known head"):
        load(tmp_path / "net.pth", Plain())
    told = load(tmp_path / "net.pth", Plain(), _FILE)
    assert "by name" in told.notes[1]
    torch.save(Plain().state_dict(), tmp_path / "net.pth")
    assert "in this order: 0, 1, 2, 10, 11" in load(tmp_path / "net.pth", Plain()).notes[1]


class HeadFirst(nn.Module):
    """Its head is defined before a layer that has as many outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(5, 5)
        self.body = nn.Conv2d(3, 5, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(images).mean((2, 3)))


class Hidden(nn.Module):
    """As many hidden channels as classes, and a part that evaluation leaves out."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 5, 1), nn.Linear(5, 5)
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.pool(self.body(images)).flatten(1)).log_softmax(1)


def test_a_layer_that_is_not_the_head_is_told_before_its_rows_are_trained() -> None:
    with pytest.raises(ModelError) as caught:
        check_head(HeadFirst(), 5, (torch.zeros(1, 3, 8, 8),))
    assert all(word in (caught.value.found or "") for word in ("head", "body"))
    for model in (Hidden(), Auxiliary(), net(), normed(), Plain(), nn.Sequential(nn.Flatten(), nn.Linear(192, 5))):
        check_head(model, 5, (torch.zeros(1, 3, 8, 8),))
        assert not any(module._forward_hooks for module in model.modules())


def test_rows_that_were_moved_are_known(tmp_path: Path) -> None:
    for classes, moved in ((_FILE, True), (_DATA, False), (("x", "y"), False)):
        torch.save({"model": net().state_dict(), "classes": classes}, tmp_path / "net.pth")
        assert load(tmp_path / "net.pth", net()).moved == moved
    torch.save(net(7).state_dict(), tmp_path / "net.pth")
    assert not load(tmp_path / "net.pth", net()).moved


def test_published_weights_bring_their_categories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1
    source = torchvision.models.squeezenet1_1()
    torch.save(source.state_dict(), tmp_path / "net.pth")
    monkeypatch.setattr("raycls.models.weights.loading.fetch", lambda url: tmp_path / "net.pth")
    target = torchvision.models.squeezenet1_1(num_classes=2)
    told = load_into(target, weights, 2, ("tabby", "goldfish"))
    places = [weights.meta["categories"].index(name) for name in ("tabby", "goldfish")]
    assert places == [281, 1]
    for name in ("classifier.1.weight", "classifier.1.bias"):
        assert torch.equal(target.get_parameter(name), source.get_parameter(name)[places])
    assert told.notes[0] == "IMAGENET1K_V1"
    assert told.preprocessing is weights


@pytest.mark.parametrize(("count", "text"), [(1, "0"), (6, "0, 1, 2, 3, 4, 5"), (12, "0, 1, 2, 3 ... 11 (12)")])
def test_lists(count: int, text: str) -> None:
    assert listed([str(number) for number in range(count)]) == text
