from __future__ import annotations

import json
import math
from collections import OrderedDict
from typing import Any

import pytest
import torch

from raycls.errors import CheckpointError
from raycls.run.snapshot import join, snapshot, split


def through_json(tree: Any) -> Any:
    tensors, structure = split(tree)
    return join(tensors, json.loads(json.dumps(structure, allow_nan=False)))


def test_plain_values_keep_type_and_bits() -> None:
    tree = {"a": [1, 2.0, True, None, "x", (1, (2,), [])], 3: {"3": {}}, "f": [1e-310, -0.0, math.inf, -math.inf]}
    copy = through_json(snapshot(0, {"t": tree}).trees["t"])
    assert copy == tree and repr(copy) == repr(tree)
    assert math.isnan(through_json({"n": math.nan})["n"])
    assert through_json(2**70) == 2**70


def test_keys_that_look_alike_stay_apart() -> None:
    tree = {1: torch.tensor(1), "1": torch.tensor(2), "a/b": torch.tensor(3), "a": {"b": torch.tensor(4)}}
    copy = through_json(tree)
    assert [copy[1].item(), copy["1"].item(), copy["a/b"].item(), copy["a"]["b"].item()] == [1, 2, 3, 4]


def test_an_optimizer_comes_back() -> None:
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    model(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    copy = through_json(snapshot(1, {"o": optimizer.state_dict()}).trees["o"])
    fresh = torch.optim.AdamW(torch.nn.Linear(3, 2).parameters())
    fresh.load_state_dict(copy)
    for index, entry in optimizer.state_dict()["state"].items():
        for name, value in entry.items():
            assert torch.equal(fresh.state_dict()["state"][index][name], value)
    assert fresh.param_groups[0]["lr"] == 0.01 and fresh.param_groups[0]["betas"] == (0.9, 0.999)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(3, dtype=torch.int64),
        torch.zeros(0, 4, dtype=torch.bool),
        torch.arange(6, dtype=torch.float64).reshape(2, 3).T,
        torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        torch.full((3,), math.nan, dtype=torch.bfloat16),
        torch.ones(2, dtype=torch.complex64),
    ],
)
def test_tensors_keep_dtype_shape_and_values(tensor: torch.Tensor) -> None:
    copy = through_json(snapshot(0, {"t": [tensor]}).trees["t"])[0]
    assert copy.dtype == tensor.dtype and copy.shape == tensor.shape
    assert torch.equal(copy.nan_to_num(7), tensor.nan_to_num(7)) and copy.is_contiguous()


def test_a_snapshot_does_not_follow_the_training() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    inner = {"w": weight, "list": [1]}
    taken = snapshot(5, {"model": OrderedDict(inner)})
    with torch.no_grad():
        weight.add_(1)
    inner["list"].append(2)
    assert taken.step == 5
    assert taken.trees["model"]["w"].tolist() == [1, 1, 1] and taken.trees["model"]["list"] == [1]
    assert not taken.trees["model"]["w"].requires_grad


def test_tensors_that_share_memory_are_apart_afterwards() -> None:
    base = torch.zeros(4)
    taken = snapshot(0, {"t": {"all": base, "half": base[:2], "same": base}}).trees["t"]
    assert len({value.untyped_storage().data_ptr() for value in taken.values()}) == 3


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"a": [0, {1, 2}]}, "set"),
        ({"a": [0, object()]}, "object"),
        ({"a": [0, {(1, 2): 0}]}, "tuple"),
        ({"a": [0, {True: 0}]}, "bool"),
        ({"a": [0, torch.eye(2).to_sparse()]}, "sparse"),
        ({"a": [0, torch.empty(2, device="meta")]}, "meta"),
    ],
)
def test_what_no_checkpoint_can_hold_is_named(value: Any, said: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        snapshot(0, {"tree": value})
    assert caught.value.where == "tree/a/1" and said in str(caught.value.found)
