"""Weights under other names than the network's: what is found, what is left out, what stays an error."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision.models
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from raycls.errors import ModelError
from raycls.models.networks.tiny import tiny_cnn
from raycls.models.weights.loading import Loaded, load_into

State = dict[str, Tensor]
_HEAD = ("classifier.weight", "classifier.bias")


def numbered(model: nn.Module) -> nn.Module:
    """`model` with values that no initialisation gives."""
    with torch.no_grad():
        for value in model.state_dict().values():
            value.copy_(torch.arange(value.numel()).reshape(value.shape) % 7 + 1)
    return model


def net() -> nn.Module:
    return tiny_cnn(3, width=4)


@pytest.fixture
def state() -> State:
    return dict(numbered(net()).state_dict())


def under(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


def bare(state: State) -> State:
    return {name: value for name, value in state.items() if name not in _HEAD}


def shifted(state: State) -> State:
    return {name: value + 1 for name, value in state.items()}


def load(folder: Path, content: Any, model: nn.Module | None = None) -> tuple[Loaded, State]:
    torch.save(content, folder / "net.pth")
    model = model or net()
    return load_into(model, folder / "net.pth", 3, ("a", "b", "c")), dict(model.state_dict())


def same(loaded: State, expected: State, but: tuple[str, ...] = ()) -> None:
    for name, value in loaded.items():
        if name not in but:
            assert torch.equal(value, expected[name]), name


_WHOLE: dict[str, Callable[[State], Any]] = {
    "model": lambda state: under("model.", state),
    "two parts": lambda state: under("net.body.", state),
    "no word": lambda state: under("x1_.7.", state),
    "ddp": lambda state: under("module.", state),
    "ddp in a module": lambda state: under("net.module.", state),
    "ddp inside": lambda state: {name.replace("features.", "features.module."): v for name, v in state.items()},
    "compiled inside": lambda state: {name.replace("features.", "features._orig_mod."): v for name, v in state.items()},
    "average": lambda state: {**under("module.", state), "n_averaged": torch.tensor(3)},
    "lightning": lambda state: {
        "state_dict": {**under("model.", state), "loss.weight": torch.ones(3)},
        "hyper_parameters": {"lr": 0.1},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}}],
        "callbacks": {},
        "epoch": 3,
    },
    "model_state_dict": lambda state: {"model_state_dict": state, "optimizer": {"state": {}}},
    "net": lambda state: {"net": state, "acc": 93.5, "epoch": 4},
    "deep": lambda state: {"a": {"b": under("x.y.z.", state)}},
    "tuple": lambda state: (state, {"epoch": 1}),
    "options": lambda state: {"model": state, "args": argparse.Namespace(lr=0.1, output=Path("/x"))},
    "numpy": lambda state: {
        "model": state,
        "best": np.float64(0.5),
        "step": np.int64(4),
        "confusion": np.eye(3, dtype=np.uint8),
        "names": np.array(["a", None], dtype=object),
    },
    "when": lambda state: {"model": state, "time": datetime(2026, 1, 2), "torch": torch.__version__, "seen": {1, 2}},
    "scheduler": lambda state: {
        "model": state,
        "optimizer": torch.optim.Adam([nn.Parameter(torch.ones(2))]).state_dict(),
        "lr_scheduler": torch.optim.lr_scheduler.MultiStepLR(
            torch.optim.SGD([nn.Parameter(torch.ones(2))], 0.1), [3, 3]
        ).state_dict(),
    },
    "copies": lambda state: {"model": state, "best": copy.deepcopy(state)},
    "two parts of a file": lambda state: {**under("encoder.", state), **under("decoder.", {"weight": torch.ones(2)})},
}


@pytest.mark.parametrize("wrap", _WHOLE.values(), ids=_WHOLE)
@pytest.mark.parametrize("headless", [False, True])
def test_any_one_prefix(wrap: Callable[[State], Any], headless: bool, state: State, tmp_path: Path) -> None:
    told, loaded = load(tmp_path, wrap(bare(state) if headless else state))
    same(loaded, state, _HEAD if headless else ())
    head = next(note for note in told.notes if "head" in note)
    assert ("starts anew" in head) == headless
    if headless:
        assert "classifier" in head


def test_what_is_left_out_is_told(state: State, tmp_path: Path) -> None:
    told, _ = load(tmp_path, _WHOLE["lightning"](state))
    assert told.notes[0] == "net.pth, names under state_dict.model; left out: state_dict.loss, optimizer_states"
    told, _ = load(tmp_path, under("backbone.", bare(state)))
    assert told.notes[0] == "net.pth, names under backbone"
    told, loaded = load(tmp_path, {**bare(state), "fc.weight": torch.ones(9, 16), "fc.bias": torch.ones(9)})
    assert told.notes[0] == "net.pth; left out: fc"
    same(loaded, state, _HEAD)
    told, loaded = load(
        tmp_path, {**bare(state), "classifier.0.weight": torch.ones(9, 16), "classifier.2.bias": torch.ones(9)}
    )
    assert "classifier.0.weight, classifier.2.bias" in told.notes[0]
    same(loaded, state, _HEAD)


class Wrapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Module()
        self.net.backbone = tiny_cnn(3, width=4).features
        self.head = nn.Linear(16, 3)


@pytest.mark.parametrize("prefix", ["", "encoder.", "backbone.", "module.net.backbone.", "net."])
def test_a_network_whose_own_names_have_a_prefix(prefix: str, state: State, tmp_path: Path) -> None:
    body = {name.removeprefix("features."): value for name, value in bare(state).items()}
    told, loaded = load(tmp_path, under(prefix, body), Wrapped())
    same(loaded, under("net.backbone.", body), ("head.weight", "head.bias"))
    assert any("(head)" in note for note in told.notes)


@pytest.mark.parametrize(
    ("plain", "average"), [("model", "model_ema"), ("state_dict", "state_dict_ema"), ("net", "ema")]
)
def test_the_average_is_taken_and_told(plain: str, average: str, state: State, tmp_path: Path) -> None:
    told, loaded = load(tmp_path, {plain: state, average: shifted(state), "epoch": 3})
    same(loaded, shifted(state))
    assert average in told.notes[0]
    assert plain in told.notes[0]


def test_an_average_of_torch_beside_the_network(state: State, tmp_path: Path) -> None:
    averaged = AveragedModel(numbered(net()))
    content = {"model": shifted(state), "ema": averaged.state_dict()}
    same(load(tmp_path, content)[1], state)


@pytest.mark.parametrize("keys", [("student.", "teacher."), ("a.model.", "b.model.")])
def test_two_networks_that_fit_are_an_error_that_names_both(
    keys: tuple[str, str], state: State, tmp_path: Path
) -> None:
    with pytest.raises(ModelError) as caught:
        load(tmp_path, {**under(keys[0], state), **under(keys[1], shifted(state))})
    assert all(key.rstrip(".") in (caught.value.found or "") for key in keys)


_REFUSED: dict[str, tuple[Callable[[State], Any], str]] = {
    "a quarter": (lambda state: {k: v for k, v in state.items() if k.startswith("features.0")}, "and 14 more"),
    "head alone": (lambda state: {k: state[k] for k in _HEAD}, "features.0.weight"),
    "half a head": (lambda state: {**bare(state), _HEAD[0]: state[_HEAD[0]]}, "missing in the file: classifier.bias"),
    "no buffers": (
        lambda state: {k: v for k, v in state.items() if "running_mean" not in k},
        "features.1.running_mean",
    ),
    "other names": (lambda state: {"blocks.0.attn.qkv.weight": torch.ones(2, 2)}, "blocks.0.attn.qkv.weight"),
    "a deeper one": (lambda state: {**state, "features.12.weight": torch.ones(3)}, "features.12.weight"),
    "integers": (lambda state: {k: v.to(torch.int8) for k, v in state.items()}, "int8 in the file"),
    "complex": (lambda state: {k: v.to(torch.complex64) for k, v in state.items()}, "complex64 in the file"),
    "a whole network": (lambda state: numbered(net()), "TinyCnn"),
}


@pytest.mark.parametrize(("make", "words"), _REFUSED.values(), ids=_REFUSED)
@pytest.mark.parametrize("prefix", ["", "model."])
def test_what_is_more_than_the_head_is_an_error(
    make: Callable[[State], Any], words: str, prefix: str, state: State, tmp_path: Path
) -> None:
    content = make(state)
    with pytest.raises(ModelError) as caught:
        load(tmp_path, under(prefix, content) if isinstance(content, dict) else content)
    assert words in (caught.value.found or "")
    assert caught.value.where == str(tmp_path / "net.pth")


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_taken_and_told(kind: torch.dtype, state: State, tmp_path: Path) -> None:
    told, loaded = load(tmp_path, {name: value.to(kind) for name, value in state.items()})
    same(loaded, state)  # integers up to 7 are exact in each
    assert all(value.dtype == state[name].dtype for name, value in loaded.items())
    assert told.notes[0] == f"net.pth; {str(kind).removeprefix('torch.')} values, taken as float32"


@pytest.mark.parametrize(
    ("name", "prefix", "missing"),
    [
        ("squeezenet1_1", "classifier.", "classifier"),
        ("mobilenet_v3_small", "classifier.", "classifier"),
        ("mobilenet_v3_small", "classifier.3.", "classifier.3"),
        ("shufflenet_v2_x0_5", "fc.", "fc"),
    ],
)
def test_heads_of_torchvision(name: str, prefix: str, missing: str, tmp_path: Path) -> None:
    """Users take off the last layer, or all that stands under its name."""
    model = torchvision.models.get_model(name, num_classes=3)
    body = {key: value for key, value in model.state_dict().items() if not key.startswith(prefix)}
    told, loaded = load(tmp_path, body, torchvision.models.get_model(name, num_classes=3))
    assert told.notes[1] == f"its head ({missing}) is not in the file and starts anew"
    same(loaded, body, tuple(key for key in loaded if key.startswith(prefix)))
    del body[next(iter(body))]
    with pytest.raises(ModelError, match="missing in the file"):
        load(tmp_path, body, torchvision.models.get_model(name, num_classes=3))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.second.weight = self.first.weight


def test_tied_weights_that_stand_in_the_file_once(tmp_path: Path) -> None:
    model, target = numbered(Tied()), Tied()
    safetensors.torch.save_model(model, str(tmp_path / "net.safetensors"))
    assert len(safetensors.torch.load_file(tmp_path / "net.safetensors")) == 5  # of six names
    load_into(target, tmp_path / "net.safetensors", 3, ("a", "b", "c"))
    same(dict(target.state_dict()), dict(model.state_dict()))
    assert target.second.weight is target.first.weight
