"""A pruned run: what is cut, what is written, and that the other commands read it like any run."""

from __future__ import annotations

import io
import json
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from harness.object_store import S3
from harness.plugins import user_module
from safetensors.torch import load as load_tensors
from safetensors.torch import load_file

from raycls.cli.command import load_config
from raycls.config.load import load
from raycls.errors import ConfigError, ModelError
from raycls.export.pruning.folder import FACTS, place_of
from raycls.export.pruning.prune import Wanted, prune
from raycls.export.pruning.structured import Limits, check_extra
from raycls.launch import trainer
from raycls.models.pruned import MASK
from raycls.run.folder import RunFolder
from raycls.run.storage.store import Store
from raycls.screen.prune_text import pruned_lines
from raycls.screen.run import Display
from raycls.session.trained.trained import Network, open_trained

_WIDTHS = (4, 8, 16, 32)
"""Channels of the four convolutions of the run's network."""


def _silent() -> Display:
    return Display(io.StringIO())


def _prune(run: str, **wanted: Any) -> tuple[Path, dict[str, Any]]:
    trained = open_trained(run)
    place = place_of(trained, wanted.pop("out", None), "pruned")
    facts = prune(trained, place, Wanted(**{"ratio": 0.5, "seconds": 0.0, **wanted}))
    return Path(place.folder.uri), facts


@pytest.fixture(scope="module")
def home(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the working directory, whose run has been pruned both ways."""
    home = tmp_path_factory.mktemp("pruned")
    shutil.copytree(trained, home, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        _prune("runs/shapes", structured=True)
        _prune("runs/shapes", ratio=0.6, out="runs/sparse")
        yield home


def _parameters(widths: tuple[int, ...], classes: int = 3) -> int:
    pairs = zip((3, *widths[:-1]), widths, strict=True)
    return sum(9 * one * two + 2 * two for one, two in pairs) + (widths[-1] + 1) * classes


def _operations(widths: tuple[int, ...], sides: tuple[int, ...] = (24, 12, 6, 4), classes: int = 3) -> int:
    pairs = zip((3, *widths[:-1]), widths, sides, strict=True)
    return 2 * (sum(9 * one * two * side**2 for one, two, side in pairs) + widths[-1] * classes)


def test_half_of_the_channels_is_gone_and_what_is_measured_is_true(home: Path) -> None:
    run = home / "runs" / "shapes-pruned"
    facts = json.loads((run / FACTS["pruned"]).read_text())
    half = tuple(width // 2 for width in _WIDTHS)
    for name, widths in (("before", _WIDTHS), ("after", half)):
        assert facts[name]["parameters"] == _parameters(widths)
        assert facts[name]["flops"] == _operations(widths)
        assert all(facts[name]["seconds"][batch] > 0 for batch in ("1", "32"))
    first, pruned = (trainer.evaluate(f"runs/{name}", split="val", display=_silent()) for name in _NAMES)
    assert (facts["before"]["top1"], facts["after"]["top1"]) == (first["top1"], pruned["top1"])
    assert facts["images"] == first["count"] == 24
    assert pruned["weights"]["name"] == "pruned"


_NAMES = ("shapes", "shapes-pruned")
_ENDS = ("safetensors", "json")


def test_the_channels_that_stay_are_those_of_the_first_network(home: Path) -> None:
    first, pruned = (load_file(home / "runs" / name / "model" / "model.safetensors") for name in _NAMES)
    whole, cut = first["features.0.weight"], pruned["features.0.weight"]
    rows = [next(row for row in range(4) if torch.equal(whole[row], kept)) for kept in cut]
    assert rows == sorted(set(rows)) and len(rows) == 2
    assert torch.equal(first["features.1.running_var"][rows], pruned["features.1.running_var"])
    assert torch.equal(pruned["classifier.bias"], first["classifier.bias"])


def test_the_smallest_weights_are_zero_and_no_others(home: Path) -> None:
    first, sparse = (load_file(home / "runs" / name / "model" / "model.safetensors") for name in ("shapes", "sparse"))
    names = [f"features.{place}.weight" for place in (0, 3, 6, 9)] + ["classifier.weight"]
    assert sparse.keys() - first.keys() == {name + MASK for name in names}
    values = torch.cat([first[name].flatten() for name in names])
    gone = values.abs().argsort()[: round(0.6 * len(values))]
    expected = torch.ones(len(values), dtype=torch.bool)
    expected[gone] = False
    assert torch.equal(torch.cat([sparse[name + MASK].flatten() for name in names]), expected)
    assert torch.equal(torch.cat([sparse[name].flatten() for name in names]), values * expected)
    assert all(torch.equal(first[name], sparse[name]) for name in first if name not in names)
    facts = json.loads((home / "runs" / "sparse" / FACTS["pruned"]).read_text())
    assert facts["before"]["nonzero"] - facts["after"]["nonzero"] == len(gone)
    assert facts["after"]["parameters"] == facts["before"]["parameters"] == _parameters(_WIDTHS)


@pytest.mark.parametrize("name", ["shapes-pruned", "sparse"])
def test_it_is_fine_tuned_from_its_own_config_from_its_own_weights(home: Path, name: str) -> None:
    words = [f"run.name={name}-tuned", "optim.lr=1e-9", "train.duration=1ep"]
    run = load(home / "runs" / name / "config.yaml", words).run
    trainer.train(run, display=_silent())
    # the rate is next to nothing, so what was learned before is still there
    before, after = (load_file(home / "runs" / f"{name}{end}/model/model.safetensors") for end in ("", "-tuned"))
    assert before.keys() == after.keys()
    for key in ("features.3.weight", "classifier.weight"):
        torch.testing.assert_close(before[key], after[key], atol=1e-6, rtol=0)


def test_zeros_stay_zero_through_a_fine_tuning_and_a_resume(home: Path) -> None:
    file = home / "runs" / "sparse" / "config.yaml"
    changes = ["optim.ema=0.9", "optim.weight_decay=0.1", "data.batch_size=24", "train.micro_batches=2"]
    for name, duration in (("at-once", "4ep"), ("in-parts", "2ep"), ("in-parts", "4ep")):
        run = load(file, [*changes, f"run.name={name}", f"train.duration={duration}", "schedule.name=constant"]).run
        trainer.train(run, display=_silent())
    start, once, parts = (
        load_file(home / "runs" / name / "model" / "model.safetensors") for name in ("sparse", "at-once", "in-parts")
    )
    assert all(torch.equal(once[key], parts[key]) for key in once)
    for mask in (key for key in start if key.endswith(MASK)):
        weight = mask.removesuffix(MASK)
        assert torch.equal(once[mask], start[mask])
        assert (once[weight][~start[mask]] == 0).all()
        assert (once[weight] != start[weight]).any()


def test_a_pruned_run_is_pruned_again(home: Path) -> None:
    run, facts = _prune("runs/shapes-pruned", ratio=0.3, out="runs/both", images=3)
    assert facts["before"]["parameters"] == facts["after"]["parameters"]
    weights = sum(value.numel() for name, value in load_file(run / "model/model.safetensors").items() if MASK in name)
    assert facts["before"]["nonzero"] - facts["after"]["nonzero"] == round(0.3 * weights)
    assert facts["images"] == 3
    with pytest.raises(ConfigError) as error:
        _prune("runs/both", structured=True)
    assert "single weights were pruned" in str(error.value.found)
    again, facts = _prune("runs/sparse", ratio=0.8, out="runs/sparser", images=3)
    sparse, sparser = (load_file(each / "model/model.safetensors") for each in (home / "runs/sparse", again))
    assert all((sparser[key] <= sparse[key]).all() for key in sparse if key.endswith(MASK))


_FIXED = """
import torch
from torch import nn


class Fixed(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.head = nn.Linear(8, num_classes)

    def forward(self, images):
        features = self.conv(images).mean((2, 3))
        return self.head(features + torch.ones(8))


def net(num_classes):
    return Fixed(num_classes)
"""


def test_what_breaks_when_it_is_cut_is_refused_and_nothing_is_written(home: Path, tmp_path: Path) -> None:
    with user_module(home, "fixed_width", _FIXED) as module:
        words = [f"model.name={module}:net", "run.name=fixed", "train.duration=1ep"]
        trainer.train(load(home / "shapes.yaml", words).run, display=_silent())
        with pytest.raises(ModelError) as error:
            _prune("runs/fixed", structured=True)
    assert "nothing was written" in error.value.what
    assert "must match the size" in str(error.value.found)
    assert not (home / "runs" / "fixed-pruned").exists()


@pytest.mark.parametrize(
    ("limits", "found"),
    [
        (Limits(seconds=0.05), "not done after 0.05 s"),
        pytest.param(Limits(memory=2.0**20), "GiB of memory", marks=pytest.mark.nightly),
    ],
    ids=["time", "memory"],
)
def test_the_limits_end_it(home: Path, limits: Limits, found: str) -> None:
    with pytest.raises(ModelError) as error:
        _prune("runs/shapes", structured=True, limits=limits, out="runs/never")
    assert found in str(error.value.found)
    assert not (home / "runs" / "never").exists()


@pytest.mark.nightly
def test_a_ratio_that_leaves_no_layer_a_channel_is_told_as_that(home: Path) -> None:
    with pytest.raises(ModelError) as refused:
        _prune("runs/shapes", structured=True, ratio=0.99, out="runs/nothing")
    assert "would lose all its channels at --ratio 0.99" in str(refused.value.found)
    assert str(refused.value.fix).startswith("choose a smaller --ratio; or ")
    assert not (home / "runs" / "nothing").exists()


def test_a_folder_with_something_in_it_is_left_alone_and_one_that_was_not_finished_is_not(home: Path) -> None:
    with pytest.raises(ConfigError) as error:
        _prune("runs/shapes", out="photos")
    assert "circle" in str(error.value.found)
    before = (home / "runs" / "sparse" / FACTS["pruned"]).read_bytes()
    with pytest.raises(ConfigError):
        _prune("runs/shapes", out="runs/sparse")
    assert (home / "runs" / "sparse" / FACTS["pruned"]).read_bytes() == before
    half = shutil.copytree(home / "runs" / "sparse", home / "runs" / "half")
    (half / "result.json").unlink()
    (half / "model" / "model.safetensors").unlink()
    _prune("runs/shapes", out="runs/half", images=1)
    assert Network(open_trained(str(half)), torch.device("cpu")).trained.weights.name == "pruned"
    with pytest.raises(ConfigError) as named:
        _prune("runs/shapes", out="runs/-x")
    assert named.value.found == "-x"


def test_without_its_data_a_run_is_pruned_and_the_accuracy_left_out(home: Path, tmp_path: Path) -> None:
    run = shutil.copytree(home / "runs" / "shapes", tmp_path / "elsewhere")
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("path: photos", "path: gone"))
    told: list[str] = []
    trained = open_trained(str(run))
    facts = prune(trained, place_of(trained, None, "pruned"), Wanted(0.5, seconds=0.0), say=told.append)
    assert "top1" not in facts["before"]
    assert any("accuracy is not measured" in line for line in told)
    assert (tmp_path / "elsewhere-pruned" / "result.json").is_file()
    assert any("no data" in line for line in pruned_lines(facts, "x", "x/config.yaml", "x"))
    with pytest.raises(ConfigError):
        prune(
            trained,
            place_of(trained, str(tmp_path / "two"), "pruned"),
            Wanted(0.5, seconds=0.0, data=str(tmp_path / "no")),
        )


def test_a_run_on_an_object_store_is_pruned_there_and_fine_tuned_with_the_command_that_is_printed(
    home: Path, s3: S3
) -> None:
    uri = s3.uri("runs/shapes")
    store = Store(uri)
    for name in (
        "config.yaml",
        "plan.json",
        "env.json",
        "splits.parquet",
        "model/model.safetensors",
        "model/model.json",
    ):
        store.write_bytes(name, (home / "runs" / "shapes" / name).read_bytes())
    trained = open_trained(uri)
    place = place_of(trained, None, "pruned")
    facts = prune(trained, place, Wanted(0.5, seconds=0.0, images=4))
    assert place.folder.store.describe() == "s3://bucket/runs/shapes-pruned"
    config = place.folder.store.address("config.yaml")
    line = pruned_lines(facts, place.folder.store.describe(), config, place.name)[-1]
    words = shlex.split(line.removeprefix("fine-tune: raycls train "))
    run = load_config(words[0], [*words[1:], "train.duration=1ep", "optim.lr=1e-9"]).run
    trainer.train(run, display=_silent())
    before, after = (
        RunFolder(s3.uri(f"runs/shapes-pruned{end}")).store.read_bytes("model/model.safetensors")
        for end in ("", "-finetuned")
    )
    first, second = load_tensors(before), load_tensors(after)
    for key in ("features.3.weight", "classifier.weight"):
        torch.testing.assert_close(first[key], second[key], atol=1e-6, rtol=0)
        assert (second[key] == 0).sum() == (~first[key + MASK]).sum() > 0


def test_without_the_extra_the_line_that_installs_it_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch_pruning", None)
    with pytest.raises(ConfigError) as error:
        check_extra()
    assert error.value.fix == "pip install 'raycls[prune]'"
