from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open

from raycls.errors import CheckpointError
from raycls.run.folder import RunFolder
from raycls.run.model_file import read_model, write_model
from raycls.run.storage.store import Store

MORE = {
    "classes": ["ant", "bee"],
    "preprocessing": {"mean": [0.5, 0.25]},
    "config": {"name": "tiny_cnn"},
    "weights": {"name": "best", "step": 3},
}


def write(folder: RunFolder, tensors: dict[str, torch.Tensor]) -> str:
    return write_model(folder, tensors, **MORE)  # type: ignore[arg-type]


def test_what_is_written_is_read(store: Store) -> None:
    folder = RunFolder(store)
    tensors = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.tensor(7), "empty": torch.zeros(0, 3)}
    digest = write(folder, tensors)
    read, info = read_model(folder)
    assert set(read) == set(tensors) and all(torch.equal(read[name], tensors[name]) for name in tensors)
    assert {name: info[name] for name in MORE} == MORE
    assert info["sha256"] == digest and len(digest) == 64


def test_equal_weights_give_equal_bytes(folder: RunFolder) -> None:
    weight = torch.randn(4, 3, 2, 2)
    write(folder, {"w": weight, "x": torch.ones(3), "y": torch.zeros(2, dtype=torch.int64)})
    first = folder.store.read_bytes(folder.WEIGHTS), folder.store.read_bytes(folder.MODEL_INFO)
    shared = torch.ones(6)
    other = {
        "y": torch.zeros(4, dtype=torch.int64)[::2],
        "x": shared[3:],
        "w": weight.to(memory_format=torch.channels_last),
    }
    write(folder, other)
    assert (folder.store.read_bytes(folder.WEIGHTS), folder.store.read_bytes(folder.MODEL_INFO)) == first


def test_other_programs_can_read_it(folder: RunFolder) -> None:
    write(folder, {"w": torch.ones(2)})
    with safe_open(str(folder.path(folder.WEIGHTS)), "numpy") as file:
        assert file.get_tensor("w").tolist() == [1.0, 1.0] and file.metadata() == {"format": "pt"}


def test_tensors_that_share_memory(folder: RunFolder) -> None:
    base = torch.arange(4.0)
    write(folder, {"all": base, "tied": base, "tail": base[2:]})
    read, _ = read_model(folder)
    assert read["tied"].tolist() == [0, 1, 2, 3] and read["tail"].tolist() == [2, 3]


@pytest.mark.parametrize("name", [RunFolder.WEIGHTS, RunFolder.MODEL_INFO])
def test_damage_is_an_error(folder: RunFolder, name: str) -> None:
    write(folder, {"w": torch.ones(2)})
    data = folder.store.read_bytes(name)
    folder.store.write_bytes(name, data[: len(data) // 2])
    with pytest.raises(CheckpointError, match="damaged"):
        read_model(folder)
    folder.store.delete(name)
    with pytest.raises(CheckpointError, match="no finished model") as caught:
        read_model(folder)
    assert str(caught.value.where).endswith(name)


def test_weights_of_another_write_are_noticed(folder: RunFolder) -> None:
    write(folder, {"w": torch.ones(2)})
    info = folder.store.read_bytes(folder.MODEL_INFO)
    write(folder, {"w": torch.zeros(2)})
    folder.store.write_bytes(folder.MODEL_INFO, info)
    with pytest.raises(CheckpointError, match="damaged"):
        read_model(folder)
    assert json.loads(info)["classes"] == ["ant", "bee"]
