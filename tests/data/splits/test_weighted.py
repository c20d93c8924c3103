"""`data.weight`: how much each training image counts, on any number of ranks and through a stop."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from harness.jobs import job_of, train, train_rank_killed, weights
from harness.ranks import run_ranks
from harness.tasks import classification
from PIL import Image
from safetensors.torch import load_file

from raycls.config.load import load_text, to_yaml
from raycls.config.names.builtin import LOSSES
from raycls.config.sections.run import Run
from raycls.config.sections.task import LossConfig
from raycls.data.source import open_dataset
from raycls.errors import ConfigError, DataError
from raycls.launch import trainer
from raycls.screen.run import Display
from raycls.session.job import Job
from raycls.tasks.classification import Labelled

_CLASSES = ("a", "b", "c")


@pytest.fixture(autouse=True)
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """45 images, weighed 0 to 4."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(3)
    rows = []
    for at in range(45):
        label = at % 3
        pixels = random.integers(0, 120, (12, 12, 3)) + 60 * label
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{at:02d}.png")
        rows.append([f"{at:02d}.png", _CLASSES[label], "train" if at < 33 else "val", f"{at % 5 / 2:g}"])
    return written(tmp_path / "images.csv", rows)


def written(path: Path, rows: list[list[str]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "split", "confidence"], *rows])
    return path


def rows_of(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return [*csv.reader(file)][1:]


def run_of(name: str, *overrides: str) -> Run:
    options = [
        "run.storage=runs",
        f"run.name={name}",
        *("data.source={name: manifest, path: images.csv}", "data.image_size=12", "data.batch_size=12"),
        *("augment.train=[horizontal_flip]", "augment.eval=[]", "optim.lr=0.05", "train.amp=off"),
        *("model.name=tiny_cnn", "model.args={width: 8}", "train.duration=2ep", "train.micro_batches=4"),
        *("evaluate.keep=last", "scale.workers=0", "data.executor=inline", "data.weight=confidence"),
    ]
    return load_text(to_yaml(load_text("", "run.yaml", [*options, *overrides]).run), "run.yaml").run


def job(name: str, *overrides: str) -> Job:
    return job_of(run_of(name, *overrides))


def test_the_bits_are_the_same_on_any_number_of_ranks_and_through_a_kill() -> None:
    train(job("one"))
    expected = weights(Path("runs/one"))
    for world in (2, 3):
        train(job(f"of-{world}"), world)
        assert weights(Path(f"runs/of-{world}")) == expected
    train(job("without", "data.weight=null"))
    assert weights(Path("runs/without")) != expected
    killed = job("killed", "checkpoint.every=1st")
    with pytest.raises(Exception, match=r"died|exit|killed"):
        run_ranks(2, train_rank_killed, killed, 1, 4)
    train(job("killed", "checkpoint.every=1st"), 3)
    assert weights(Path("runs/killed")) == expected


def test_equal_weights_are_no_weights(manifest: Path) -> None:
    train(job("without", "data.weight=null"))
    written(manifest, [[*row[:3], "0.5"] for row in rows_of(manifest)])
    train(job("equal"))
    one, other = (load_file(f"runs/{name}/model/model.safetensors") for name in ("without", "equal"))
    assert all(torch.allclose(one[key], other[key], atol=1e-5) for key in one)


_OF_A_SOFTMAX = [name for name in LOSSES if name != "bce"]


@pytest.mark.parametrize(
    ("name", "balance"),
    [(name, balance) for name in LOSSES for balance in ("none", "weights")]
    + [(name, "logit_adjust") for name in _OF_A_SOFTMAX],
)
def test_the_gradient_is_that_of_the_weighted_sum(name: str, balance: str) -> None:
    """Beside each sample's loss, asked for alone."""
    task = classification(classes=_CLASSES, loss=LossConfig(name=name, balance=balance), class_counts=(3, 2, 5))
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(1), requires_grad=True)
    labels, each = torch.tensor([0, 1, 2, 2, 1, 0]), torch.tensor([0.0, 0.5, 1.0, 2.0, 3.0, 0.25])
    images = torch.zeros(6, 3, 1, 1)
    (found,) = torch.autograd.grad(task.judged(logits, Labelled(images, labels, each))["loss"], logits)
    alone = [task.judged(logits[row : row + 1], Labelled(images, labels[row : row + 1])) for row in range(6)]
    (expected,) = torch.autograd.grad(sum(w * one["loss"] for w, one in zip(each, alone, strict=True)), logits)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert not found[0].any()
    assert found[4].any()


def test_of_cross_entropy_it_is_the_formula() -> None:
    logits, labels = torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    each = torch.tensor([0.5, 1.5, 2.0, 0.0])
    loss = classification(classes=_CLASSES).judged(logits, Labelled(torch.zeros(4, 3, 1, 1), labels, each))["loss"]
    torch.testing.assert_close(loss, (F.cross_entropy(logits, labels, reduction="none") * each).sum())


def test_the_mean_over_the_training_images_is_one_and_evaluation_has_none() -> None:
    dataset = open_dataset(run_of("data").data)
    found, val = dataset.splits["train"].weights, dataset.splits["val"].weights
    assert found is not None
    assert val is None
    assert np.mean([found.weight(row) for row in range(33)]) == pytest.approx(1)
    assert found.weight(0) == 0
    assert found.weight(4) / found.weight(1) == pytest.approx(4)


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["1", "-1", "many", ""], r"3 training images without a weight[\s\S]*01.png[\s\S]*the first has '-1'"),
        (["nan", "inf"], r"2 training images without a weight[\s\S]*00.png"),
        (["0"] * 33, "no training image weighs anything"),
    ],
)
def test_what_is_no_weight_is_refused_with_the_images(manifest: Path, texts: list[str], says: str) -> None:
    rows = rows_of(manifest)
    written(manifest, [[*row[:3], text] for row, text in zip(rows, texts + ["1"] * len(rows), strict=False)])
    with pytest.raises(DataError, match=says) as caught:
        open_dataset(run_of("data").data)
    assert "data.weight: confidence" in str(caught.value)


def test_a_column_that_is_not_there_is_told(manifest: Path) -> None:
    with pytest.raises(DataError, match="weigth"):
        open_dataset(run_of("data", "data.weight=weigth").data)


def test_a_resumed_run_has_the_weights_of_its_start(manifest: Path) -> None:
    run = ("data.source.args={ignore: [no.png]}", "checkpoint.every=1st")
    train(job("run", *run, "train.duration=3st"))
    rows = rows_of(manifest)
    written(manifest, [*rows[:7], [*rows[7][:3], "2.5"], *rows[8:]])
    with pytest.raises(DataError, match=r"1 training sample with another weight[\s\S]*had 1 and has 2.5"):
        job("run", *run, "train.duration=6st")
    written(manifest, [row for row in rows if row[0] != "03.png"])
    left = job("run", *run, "train.duration=6st").dataset.splits["train"]
    assert len(left) == 32
    assert left.weights.mean == np.mean([float(row[3]) for row in rows[:33]])


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["augment.batch=[mixup]"], "a mixture of two images has no weight"),
        (["task={name: simclr}"], "does nothing with data.weight"),
        (["loss.name=branching:loss"], "the loss of a single sample cannot be had"),
    ],
)
def test_where_nothing_is_weighed_it_is_refused(tmp_path: Path, overrides: list[str], says: str) -> None:
    (tmp_path / "branching.py").write_text(_BRANCHING)
    with pytest.raises(ConfigError, match=says):
        job("refused", *overrides)


_BRANCHING = """
import torch.nn.functional as F

def loss():
    def of(logits, targets):
        total = F.cross_entropy(logits, targets, reduction="sum")
        return total if float(total) < 1e9 else total * 2
    return of
"""


def test_other_data_needs_no_such_column(tmp_path: Path) -> None:
    train(job("run"))
    for label in _CLASSES:
        (tmp_path / "other" / label).mkdir(parents=True)
        Image.new("RGB", (12, 12), "red").save(tmp_path / "other" / label / "1.png")
    summary: dict[str, Any] = trainer.evaluate("runs/run", data="other", display=Display(io.StringIO()))
    assert summary["count"] == 3
