"""A probe from its config to a run that is evaluated: what is extracted, what is kept, and what is refused."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from harness.errors import raised
from harness.plugins import user_module
from pyarrow import parquet
from safetensors.torch import load_file

from raycls.config.load import load, load_text
from raycls.data.source import Split, open_dataset
from raycls.errors import CheckpointError, ConfigError, DataError, LaunchError, ModelError
from raycls.launch import trainer
from raycls.models import zoo
from raycls.run.folder import RunFolder
from raycls.run.model_file import read_model, write_model
from raycls.screen.run import Display
from raycls.screen.trained.probe_text import probe_lines
from raycls.session.predictions import predict as predictions
from raycls.session.predictions.compute import Part, Predictor, Work
from raycls.session.probing.features import head_of
from raycls.session.probing.probe import Grid, probe, probed
from raycls.session.trained.trained import Network, Trained, open_trained

_GRID = Grid((1e-2, 1e-4), 50)


@pytest.fixture
def here(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the working directory with the run `runs/shapes`; parts have 16 images, the size of a batch."""
    shutil.copytree(trained, tmp_path / "w")
    monkeypatch.chdir(tmp_path / "w")
    monkeypatch.setattr(predictions, "_PART_ROWS", 16)
    monkeypatch.setattr(predictions, "_FEW_PARTS", 100)
    return tmp_path / "w"


def _probe(
    *overrides: str, grid: Grid = _GRID, said: list[str] | None = None, of: str = "runs/shapes", **more: Any
) -> dict[str, Any]:
    home = RunFolder(of)
    run = load_text(home.read_config(), "config.yaml", ["run.name=probe", *overrides]).run
    options: dict[str, Any] = {"command": ["raycls"], "join": _nobody, "say": ([] if said is None else said).append}
    return probe(probed(run, home), grid, of=home, **{**options, **more})


def _nobody(*_: object, **more: object) -> Any:
    raise AssertionError("nobody asked for Ray")


class _Cluster:
    """Computes parts in this process, the last one first."""

    device = "cpu"

    def __init__(self, most: int = 1_000) -> None:
        self.computed: list[tuple[str, int]] = []
        self._most = most

    def compute(self, work: Work, numbers: Sequence[int]) -> Generator[Part, None, None]:
        with Predictor(work) as predictor:
            for number in reversed(numbers):
                if len(self.computed) == self._most:
                    raise LaunchError("all nodes are gone")
                self.computed.append((work.split.name, number))
                yield Part.from_bytes(predictor.part(number).to_bytes())

    @property
    def join(self) -> Callable[..., Any]:
        @contextmanager
        def joined(*_: object) -> Iterator[_Cluster]:
            yield self

        return joined


def test_features_and_head_by_hand(here: Path) -> None:
    facts = _probe()
    assert facts["splits"] == {"train": 72, "val": 24, "test": 24} and facts["cached"] == []
    network = Network(open_trained("runs/shapes"), torch.device("cpu"))
    tensors, first = load_file("runs/probe/model/model.safetensors"), load_file("runs/shapes/model/model.safetensors")
    assert {name for name in first if not torch.equal(first[name], tensors[name])} == {
        "classifier.weight",
        "classifier.bias",
    }
    found = np.concatenate(
        [Part.from_bytes(file.read_bytes()).features for file in sorted(Path("runs/probe/features/train").glob("p*"))]
    )
    assert found.shape == (72, facts["features"]) and found.dtype == np.float32
    # the head that was trained on the same features in the same network: its logits are those of the run
    seen: list[torch.Tensor] = []
    network.model.classifier.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))  # type: ignore[union-attr]
    trained = open_trained("runs/probe")
    dataset = _split(trained, "train")
    arrays = trained.arrays()
    network.rows_of([trained.sample(arrays, dataset, row) for row in range(16)])
    assert torch.equal(seen[0], torch.from_numpy(found[:16]))


def _split(trained: Trained, name: str) -> Split:
    return open_dataset(trained.run.data).splits[name]


def test_what_is_told_is_what_an_evaluation_finds(here: Path) -> None:
    facts = _probe()
    for split in ("val", "test"):
        summary = trainer.evaluate("runs/probe", split=split, display=Display(io.StringIO()))
        head = facts["scores"][split]["head"]
        assert (summary["top1"], summary["count"]) == (head["top1"], head["count"])
        assert head["interval"]["low"] < head["top1"] <= head["interval"]["high"]
    best = next(one for one in facts["grid"] if one["weight_decay"] == facts["weight_decay"])
    assert best["val_top1"] == facts["scores"]["val"]["head"]["top1"] == max(one["val_top1"] for one in facts["grid"])
    assert json.loads(Path("runs/probe/probe.json").read_text())["grid"] == facts["grid"]


def test_whoever_extracts_the_bits_are_the_same(here: Path) -> None:
    _probe()
    expected = Path("runs/probe/model/model.safetensors").read_bytes()
    cluster = _Cluster()
    _probe("run.name=other", "scale.workers=1", join=cluster.join)
    assert Path("runs/other/model/model.safetensors").read_bytes() == expected
    assert sorted(cluster.computed) == [
        *(("test", number) for number in range(2)),
        *(("train", number) for number in range(5)),
        *(("val", number) for number in range(2)),
    ]


def test_any_number_of_workers_may_extract(here: Path) -> None:
    """Micro-batches bound none: a batch of 16 images, 20 workers, and more at the second start than at the first."""
    _probe("scale.workers=0")
    one = json.loads(Path("runs/probe/plan.json").read_text())
    shutil.rmtree("runs/probe/features")
    cluster = _Cluster()
    _probe("scale.workers=20", "train.micro_batches=auto", join=cluster.join)
    assert json.loads(Path("runs/probe/plan.json").read_text()) == one and one["micro_batches"] == 1
    assert len(cluster.computed) == 9


def test_a_run_without_weights_yet_is_refused(here: Path) -> None:
    shutil.rmtree("runs/shapes/model")
    shutil.rmtree("runs/shapes/checkpoints")
    with raised(ConfigError, where=re.compile("runs/shapes/model"), fix=re.compile("let the (run|training) end")):
        _probe()


def test_an_extraction_that_was_ended_is_resumed(here: Path) -> None:
    _probe("run.name=whole")
    ended, said = _Cluster(most=3), list[str]()
    with pytest.raises(LaunchError):
        _probe("scale.workers=1", join=ended.join)
    assert not Path("runs/probe/result.json").exists()
    Path("runs/probe/features/train/part-00004.npz").write_bytes(b"torn")
    again = _Cluster()
    facts = _probe("scale.workers=1", join=again.join, said=said)
    assert [each for each in again.computed if each[0] == "train"] == [("train", number) for number in (4, 1, 0)]
    assert "resuming: 2 of 5 parts of the split train are there" in said
    assert facts["cached"] == []
    whole, resumed = (Path(f"runs/{name}/model/model.safetensors").read_bytes() for name in ("whole", "probe"))
    assert whole == resumed


def test_a_model_is_there_only_with_a_fitted_head(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ended while the head is fitted, for the first time and again: each file is as it was before, or not there."""
    files = [Path("runs/probe") / name for name in ("model/model.safetensors", "model/model.json", "result.json")]
    with monkeypatch.context() as ended:
        ended.setattr("raycls.session.probing.probe.fit", _nobody)
        with pytest.raises(AssertionError):
            _probe()
        assert not any(file.exists() for file in files) and Path("runs/probe/features/train/part-00004.npz").exists()
        ask: dict[str, Any] = {"where": re.compile("runs/probe/model"), "fix": re.compile("rerun raycls probe")}
        for weights in (None, "last"):
            with raised(ConfigError, **(ask if weights is None else {"fix": ask["fix"]})) as refused:
                open_trained("runs/probe", weights=weights)
            assert weights or refused.value.what == "this run has no finished model"
        with raised(CheckpointError, fix=re.compile("rerun `raycls probe`")):
            read_model(RunFolder("runs/probe"))
    assert _probe()["cached"] == ["train", "val", "test"]
    assert sorted(file.name for file in Path("runs/probe/features").iterdir()) == ["test", "train", "val"]
    whole = [file.read_bytes() for file in (*files, Path("runs/probe/probe.json"))]
    monkeypatch.setattr("raycls.session.probing.probe.fit", _nobody)
    with pytest.raises(AssertionError):
        _probe(grid=Grid((1.0,), 200))
    assert [file.read_bytes() for file in (*files, Path("runs/probe/probe.json"))] == whole


def test_a_probe_is_not_trained_on_and_a_training_not_probed_into(here: Path) -> None:
    _probe()
    before = Path("runs/shapes/model/model.safetensors").read_bytes()
    with raised(ConfigError, where=re.compile("runs/probe"), fix=re.compile("--new")) as refused:
        trainer.train(load("runs/probe/config.yaml").run, display=Display(io.StringIO()))
    assert refused.value.what == "this folder holds a probe, which trained no step"
    with raised(
        ConfigError, where=re.compile("runs/shapes"), found=re.compile("did not write"), fix=re.compile("--new")
    ):
        _probe("run.name=shapes", of="runs/probe")
    assert Path("runs/shapes/model/model.safetensors").read_bytes() == before


def test_a_second_probe_takes_what_is_there_and_needs_no_cluster(here: Path) -> None:
    first = _probe("scale.workers=1", join=_Cluster().join)
    expected = Path("runs/probe/model/model.safetensors").read_bytes()
    second = _probe("scale.workers=1")  # `join` would fail
    assert second["cached"] == ["train", "val", "test"]
    assert Path("runs/probe/model/model.safetensors").read_bytes() == expected
    assert second["scores"] == first["scores"]
    other = _probe("scale.workers=1", grid=Grid((1.0,), 200))
    assert other["weight_decay"] == 1.0
    assert Path("runs/probe/model/model.safetensors").read_bytes() != expected


def test_features_of_changed_images_are_never_used(here: Path) -> None:
    cluster, said = _Cluster(), list[str]()
    _probe("scale.workers=1", join=cluster.join)
    image = next(file for file in sorted(Path("photos").rglob("*.png")) if str(file.relative_to("photos")) in _train())
    other = next(file for file in sorted(image.parent.glob("*.png")) if file != image)
    shutil.copyfile(other, image)
    shutil.copystat(other, image)
    cluster.computed.clear()
    _probe("scale.workers=1", "run.name=probe", join=cluster.join, said=said)
    assert {name for name, _ in cluster.computed} == {"train"}
    assert "features of the split train are extracted anew: samples changed" in said


def _train() -> set[str]:
    rows = parquet.read_table("runs/shapes/splits.parquet").to_pylist()
    return {
        row["key"] if isinstance(row["key"], str) else row["key"].decode() for row in rows if row["split"] == "train"
    }


def test_other_weights_are_told_and_their_probe_is_another(here: Path) -> None:
    _probe()
    tensors = load_file("runs/shapes/model/model.safetensors")
    folder = RunFolder("runs/shapes")
    _, info = read_model(folder)
    tensors = {name: value * 2 if name.endswith("weight") else value for name, value in tensors.items()}
    facts = {name: info[name] for name in ("classes", "preprocessing", "config", "weights")}
    write_model(folder, tensors, **facts)
    with raised(ConfigError, where="model.weights", fix=re.compile("--new")):
        _probe()
    said: list[str] = []
    assert _probe(new=True, said=said)["cached"] == []
    assert any("probe.old-1" in line for line in said)


def test_weights_that_are_gone_are_those_that_were_kept(here: Path) -> None:
    config = RunFolder("runs/shapes").read_config()
    Path("probe.yaml").write_text(config)
    run = load("probe.yaml", ["run.name=probe", "model.weights=runs/shapes"]).run
    said: list[str] = []
    options: dict[str, Any] = {"command": ["raycls"], "join": _nobody, "say": said.append}
    first = probe(probed(run, None), _GRID, **options)
    shutil.rmtree("runs/shapes")
    assert probe(probed(run, None), _GRID, **options)["scores"] == first["scores"]
    assert said[-1] == "runs/shapes cannot be read any more: the network that this probe kept is taken"


def test_a_network_that_knows_versions_of_itself_is_probed_again(here: Path) -> None:
    """MNASNet takes no tensors without the versions of its modules, which `model.safetensors` does not hold."""
    run = load_text(RunFolder("runs/shapes").read_config(), "c.yaml", ["run.name=probe"]).run
    run = run.model_copy(update={"model": load_text("", "a", ["model.name=mnasnet0_5"]).run.model})
    options: dict[str, Any] = {"command": ["raycls"], "join": _nobody, "say": lambda text: None}
    first = probe(probed(run, None), _GRID, **options)
    again = probe(probed(run, None), _GRID, **options)
    assert again["cached"] == ["train", "val", "test"] and again["scores"] == first["scores"]


def test_features_of_a_plugin_that_was_changed_are_never_used(here: Path) -> None:
    text = "def shade(by=0):\n    return lambda image: image.point(lambda value: value // 2 + SHADE)\nSHADE = 0\n"
    operation = "augment.eval=[{resize: {size: [24, 24]}}, 'shades:shade']"
    with user_module(here, "shades", text):
        _probe(operation)
        assert _probe(operation)["cached"] == ["train", "val", "test"]
    with user_module(here, "shades", text.replace("SHADE = 0", "SHADE = 9")):
        said: list[str] = []
        assert _probe(operation, said=said)["cached"] == []
        assert "features of the split val are extracted anew: code changed" in said


def test_one_weight_decay_needs_no_validation_split_and_a_grid_does(here: Path) -> None:
    split = ("data.split={train: 0.8, val: 0.0, test: 0.2}", "evaluate.split=test")
    run = load_text(RunFolder("runs/shapes").read_config(), "config.yaml", ["run.name=probe", *split]).run
    options: dict[str, Any] = {"command": ["raycls"], "join": _nobody, "say": lambda text: None}
    with raised(DataError, where="data.split", found="train (96), test (24)"):
        probe(probed(run, None), _GRID, **options)
    facts = probe(probed(run, None), Grid((1e-3,), 200), **options)
    assert list(facts["scores"]) == ["test"]
    assert [line.split()[0] for line in probe_lines(facts)][-5:] == ["head", "test", "top1", "run", "next"]


@pytest.mark.parametrize(("task", "metric"), [("multilabel", "map"), ("nets:Own", "top1")])
def test_tasks_without_one_label_per_image_are_refused(task: str, metric: str) -> None:
    run = load_text("", "a.yaml", [f"task.name={task}", f"evaluate.metric={metric}"]).run
    with raised(ConfigError, where="task.name", found=task):
        probed(run, None)


def test_pretraining_is_probed_as_classification() -> None:
    text = "task: {name: simclr, args: {dimensions: 8}}\ntrain: {duration: 7ep, amp: 'off'}\nfinetune: {freeze: 1}"
    run = probed(load_text(text, "a.yaml").run, None)
    assert (run.task.name, run.task.args) == ("classification", {})
    assert run.train.amp == "off" and str(run.train.duration) == "10ep" and run.finetune.freeze == ()


def test_an_image_that_cannot_be_decoded_is_named(here: Path) -> None:
    name = sorted(_train())[5]
    Path("photos", name).write_bytes(b"no image")
    with raised(DataError, where=re.compile(name), fix=re.compile(r"data\.source\.args\.ignore")):
        _probe()


_NETS = """
import torch
from torch import nn

class Scaled(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.head = nn.Linear(3, num_classes)

    def forward(self, images):
        return 2 * self.head(images.mean((2, 3)))


def convolution(num_classes):
    return nn.Sequential(nn.Conv2d(3, num_classes, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def positions(num_classes):
    return nn.Sequential(nn.Flatten(2), nn.Linear(16, num_classes))


def bare(num_classes):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, num_classes, bias=False))
"""


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("Scaled", "head, whose outputs are not what the network returns"),
        ("convolution", "0, a Conv2d"),
        ("positions", "1, whose outputs are not what the network returns"),
        ("bare", ""),
    ],
)
def test_networks_that_do_not_end_with_a_linear_layer_are_refused(name: str, found: str, tmp_path: Path) -> None:
    with user_module(tmp_path, "nets", _NETS):
        model = zoo.build(load_text("", "a.yaml", [f"model.name=nets:{name}"]).run.model, 4, 0)
        if not found:
            assert head_of(model, 4, (torch.zeros(1, 3, 4, 4),)) == "2"
            return
        with raised(ModelError, where="model.name", found=found):
            head_of(model, 4, (torch.zeros(1, 3, 4, 4),))


def test_a_head_without_a_bias_is_trained_without_one(here: Path) -> None:
    with user_module(here, "nets", _NETS):
        run = load_text(RunFolder("runs/shapes").read_config(), "c.yaml", ["run.name=probe"]).run
        run = run.model_copy(update={"model": load_text("", "a", ["model.name=nets:bare"]).run.model})
        facts = probe(probed(run, None), _GRID, command=["raycls"], join=_nobody, say=lambda text: None)
    assert facts["features"] == 3
    assert set(load_file("runs/probe/model/model.safetensors")) == {"2.weight"}


def test_screen() -> None:
    share = {"top1": 0.75, "hits": 1_500, "count": 2_000, "interval": {"low": 0.73, "high": 0.77}}
    grid = [
        {"weight_decay": 0.1, "epochs": 50, "converged": True, "loss": 0.51234, "val_loss": 0.6, "val_top1": 0.7},
        {"weight_decay": 0.001, "epochs": 500, "converged": False, "loss": 0.1, "val_loss": 0.5, "val_top1": 0.75},
    ]
    facts = {
        "weights": "runs/views",
        "features": 2_048,
        "layer": "fc",
        "splits": {"train": 10_000, "val": 2_000},
        "cached": ["train"],
        "grid": grid,
        "weight_decay": 0.001,
        "epochs": 550,
        "seconds": 1.1,
        "epochs_per_second": 500.0,
        "scores": {"val": {"head": share, "nearest": share}},
        "neighbours": 20,
        "folder": "/a b/views-probe",
    }
    assert probe_lines(facts) == [
        "network    runs/views, 2,048 features before fc",
        "features   train 10,000, val 2,000 (kept from before: train)",
        "           weight decay  epochs  train loss    val loss  val top1",
        "                    0.1      50      0.5123      0.6000    0.7000",
        "                  0.001     500      0.1000      0.5000    0.7500  chosen  not converged: --epochs",
        "           the chosen weight decay is at the end of the grid: try others with --weight-decay",
        "head       550 epochs in 1.10 s, 500 epochs/s",
        "val        top1 0.7500 (1,500 of 2,000; 95 % 0.7300 to 0.7700), optimistic: the best of 2 by this value",
        "           top1 0.7500 (1,500 of 2,000; 95 % 0.7300 to 0.7700) by the 20 nearest training images",
        "run folder /a b/views-probe",
        "next       raycls eval '/a b/views-probe' --split val",
    ]
