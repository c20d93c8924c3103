"""The mean of weights: by hand, and of batch-norm statistics against torch's `update_bn`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from harness.jobs import make_job, train, write_arrays
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from raycls.data.order import permutation
from raycls.errors import ConfigError, DataError
from raycls.export import average as averaging
from raycls.export.average import Averaging, average, checkpoints_of, mean_of
from raycls.export.pruning.folder import FACTS, place_of
from raycls.run import kept
from raycls.session.trained.trained import Network, open_trained

_OPTIONS = (
    "train.duration=6st",
    "data.batch_size=8",
    "checkpoint.every=1st",
    "checkpoint.keep=4",
    "evaluate.every=off",
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("averaged")
    data = write_arrays(folder / "data.npz", train=30, val=8)
    train(make_job(folder / "one", data, *_OPTIONS))
    train(make_job(folder / "two", data, *_OPTIONS, "run.seed=7", "train.duration=2st"))
    train(make_job(folder / "wide", data, *_OPTIONS, "model.args={width: 16}", "train.duration=1st"))
    return folder


def test_a_mean_by_hand() -> None:
    first = {"w": torch.tensor([1.0, 2.0]), "n": torch.tensor(3), "half": torch.tensor([1.0], dtype=torch.float16)}
    second = {"w": torch.tensor([3.0, 6.0]), "n": torch.tensor(5), "half": torch.tensor([2.0], dtype=torch.float16)}
    third = {"w": torch.tensor([5.0, 1.0]), "n": torch.tensor(4), "half": torch.tensor([3.0], dtype=torch.float16)}
    found = mean_of([("a", first), ("b", second), ("c", third)])
    assert (found["w"].tolist(), found["n"].item(), found["half"].tolist()) == ([3.0, 3.0], 4, [2.0])
    assert found["half"].dtype == torch.float16


def test_checkpoints_of_a_run_become_a_run(runs: Path) -> None:
    run = open_trained(str(runs / "one"))
    sources = checkpoints_of(run, "last:3")
    assert [each.weights.name for each in sources] == ["step-4", "step-5", "step-6"]
    facts = average(sources, place_of(run, None, "averaged"), Averaging("average"))
    made = load_file(runs / "one-averaged" / "model" / "model.safetensors")
    each = [kept.load(source.folder, source.weights) for source in sources]
    for name, value in made.items():
        if value.is_floating_point():
            wanted = torch.stack([tensors[name].double() for tensors in each]).mean(0).float()
            torch.testing.assert_close(value, wanted, rtol=1e-6, atol=0)
    assert json.loads((runs / "one-averaged" / FACTS["averaged"]).read_text()) == facts
    opened = open_trained(str(runs / "one-averaged"))
    assert (opened.weights.name, opened.classes, opened.run.run.name) == ("averaged", run.classes, "one-averaged")


def test_statistics_are_those_of_the_mean_weights(runs: Path) -> None:
    sources = [open_trained(str(runs / name)) for name in ("one", "two")]
    facts = average(sources, place_of(sources[-1], str(runs / "soup"), "averaged"), Averaging("recompute"))
    assert (facts["images"], facts["batch_norm"]) == (30, "recompute")
    made = load_file(runs / "soup" / "model" / "model.safetensors")
    network = Network(open_trained(str(runs / "soup")), torch.device("cpu"))
    update_bn(_batches(network, runs / "data.npz", permutation(30, 0)[:24]), network.model)  # not the last six
    _assert_same_statistics(network, made)


def test_statistics_of_sorted_classes_are_those_of_mixed_batches(tmp_path: Path) -> None:
    labels = np.repeat(np.arange(2), 16)
    random = np.random.RandomState(0)
    images = (random.randint(0, 40, (32, 12, 12, 3)) + 200 * labels[:, None, None, None]).astype(np.uint8)
    np.savez(tmp_path / "data.npz", train_images=images, train_labels=labels, val_images=images, val_labels=labels)
    train(make_job(tmp_path / "run", tmp_path / "data.npz", *_OPTIONS))
    run = open_trained(str(tmp_path / "run"))
    average(checkpoints_of(run, "last:2"), place_of(run, None, "averaged"), Averaging())
    made = load_file(tmp_path / "run-averaged" / "model" / "model.safetensors")
    network = Network(open_trained(str(tmp_path / "run-averaged")), torch.device("cpu"))
    update_bn(_batches(network, tmp_path / "data.npz", permutation(32, 0)), network.model)
    _assert_same_statistics(network, made)
    first = next(name for name, module in network.model.named_modules() if isinstance(module, nn.BatchNorm2d))
    update_bn(_batches(network, tmp_path / "data.npz", np.arange(32), size=32), network.model)
    whole = network.model.state_dict()[f"{first}.running_var"]
    torch.testing.assert_close(made[f"{first}.running_var"], whole, rtol=0.2, atol=0)


def test_statistics_of_layers_that_are_frozen_at_the_end_are_kept(runs: Path, tmp_path: Path) -> None:
    frozen = ("finetune.freeze=['features.[0134]']", "finetune.unfreeze={3st: 'features.[34]'}")
    train(make_job(tmp_path / "run", runs / "data.npz", *_OPTIONS, *frozen))
    run = open_trained(str(tmp_path / "run"))
    average(checkpoints_of(run, "last:2"), place_of(run, None, "averaged"), Averaging())
    made = load_file(tmp_path / "run-averaged" / "model" / "model.safetensors")
    kept_layer = {name: made[f"features.1.{name}"].tolist() for name in ("running_mean", "running_var")}
    assert kept_layer == {"running_mean": [0.0] * 4, "running_var": [1.0] * 4}  # those of a new network
    assert made["features.1.num_batches_tracked"] == 0
    network = Network(open_trained(str(tmp_path / "run-averaged")), torch.device("cpu"))
    network.model.features[1] = _Constant(network.model.features[1])
    update_bn(_batches(network, runs / "data.npz", permutation(30, 0)[:24]), network.model)
    del made["features.1.running_mean"], made["features.1.running_var"]
    _assert_same_statistics(network, made)  # of features.4 too, which was frozen at first


def test_nothing_is_recomputed_where_all_statistics_are_frozen(runs: Path, tmp_path: Path) -> None:
    train(make_job(tmp_path / "run", runs / "data.npz", *_OPTIONS, "finetune.frozen_norm=all"))
    run = open_trained(str(tmp_path / "run"))
    facts = average(checkpoints_of(run, "last:2"), place_of(run, None, "averaged"), Averaging())
    assert (facts["batch_norm"], facts["images"]) == ("average", 0)
    made = load_file(tmp_path / "run-averaged" / "model" / "model.safetensors")
    assert {name: set(value.tolist()) for name, value in made.items() if name.endswith("running_var")} == {
        f"features.{index}.running_var": {1.0} for index in (1, 4, 7, 10)
    }


@pytest.mark.parametrize(
    ("fix", "told"),
    [
        (None, "average the statistics too: --batch-norm=average"),
        ("put it back", "put it back; or average the statistics too: --batch-norm=average"),
    ],
)
def test_where_the_images_cannot_be_read_the_way_without_them_is_told(
    fix: str | None, told: str, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pictures(*words: object, **more: object) -> None:
        raise DataError("there is no split train", fix=fix)

    monkeypatch.setattr(averaging, "pictures", pictures)
    run = open_trained(str(runs / "one"))
    with pytest.raises(DataError) as caught:
        average(checkpoints_of(run, "last:2"), place_of(run, str(runs / "unread"), "averaged"), Averaging())
    assert caught.value.fix == told
    assert not (runs / "unread").exists()


class _Constant(nn.Module):
    """A batch norm with its running statistics, whatever mode the network around it is in."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self._answer = norm.eval().forward

    def forward(self, values: Tensor) -> Tensor:
        return self._answer(values)


def _batches(network: Network, data: Path, rows: np.ndarray, size: int = 8) -> list[Tensor]:
    """The training images at `rows`, in batches as an evaluation makes them."""
    arrays = np.load(data)
    parts = [rows[at : at + size] for at in range(0, len(rows), size)]
    given = [{"image": arrays["train_images"][part], "label": arrays["train_labels"][part]} for part in parts]
    return [network.task.batch(each, train=False).images for each in given]


def _assert_same_statistics(network: Network, made: Mapping[str, Tensor]) -> None:
    statistics = [name for name in made if name.endswith(("running_mean", "running_var"))]
    assert statistics
    for name in statistics:
        torch.testing.assert_close(network.model.state_dict()[name], made[name])


def test_what_has_no_mean_is_refused_and_nothing_is_written(runs: Path) -> None:
    one, wide = (open_trained(str(runs / name)) for name in ("one", "wide"))
    with pytest.raises(ConfigError, match="different networks") as caught:
        average([wide, one], place_of(one, str(runs / "none"), "averaged"), Averaging())
    assert str(runs / "wide") in str(caught.value.found)
    assert not (runs / "none").exists()
    for wanted, fix in (("last:9", "checkpoint.keep"), ("last:1", None), ("best", None)):
        with pytest.raises(ConfigError) as refused:
            checkpoints_of(one, wanted)
        assert refused.value.where == "--checkpoints" and "step-6" in str(refused.value.found)
        assert fix is None or fix in str(refused.value.fix)
    with pytest.raises(ConfigError, match="something in the folder of the averaged run"):
        average([one, one], place_of(one, str(runs / "two"), "averaged"), Averaging())
