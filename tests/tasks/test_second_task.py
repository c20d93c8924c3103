"""Another task than classification, in a file of the user: nothing in the package knows of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from harness.html import parse
from harness.jobs import make_job, train, train_rank_stopped, weights
from harness.ranks import run_ranks
from harness.runs import Site
from harness.searches import Found
from harness.typed import raycls

from raycls.cli import app
from raycls.config.load import load
from raycls.errors import ConfigError
from raycls.tune.plan import open_search

_TASK = '''
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from raycls.data.order import key as seed_of
from raycls.data.samples import Keys, Samples
from raycls.randomness import seeded
from raycls.tasks.base import Metric, Task, tensor


class Pictures:
    """A bright square on noise."""

    def __init__(self, rows, mask):
        self.rows, self.mask = rows, mask

    def read(self, index):
        draw = np.random.RandomState(self.rows[index])
        top, left, image = draw.randint(0, 5), draw.randint(0, 5), draw.randint(0, 128, (8, 8, 3), dtype=np.uint8)
        image[top : top + 4, left : left + 4] += 100
        mask = np.zeros((8, 8), bool)
        mask[top : top + 4, left : left + 4] = True
        return mask if self.mask else image

    def take(self, rows):
        return Pictures(self.rows[rows], self.mask)


def squares(path, count=40):
    rows = np.arange(count)
    keys = Keys(f"square {row}" for row in rows)
    return Samples((), None, keys, Pictures(rows, False), parts={"mask": Pictures(rows, True)})


def net(num_classes, width=4):
    return nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 1, 1))


class Segmentation(Task):
    minimised = ("bce", "overlap")
    measured = ("pixels",)
    metrics = {"dice": Metric("max", 0.0, 1.0), "distance": Metric("min")}

    def __init__(self, setting, *, weight=1.0):
        super().__init__(setting)
        self.weight = weight

    def arrays(self, split, index, key, *, train):
        image, mask = np.asarray(split.image(index)), split.read(index, "mask")
        with seeded(seed_of(*key)):
            if train and np.random.random() < 0.5:
                image, mask = image[:, ::-1], mask[:, ::-1]
        return {"image": image, "mask": mask}

    def batch(self, arrays, *, train):
        images = tensor(arrays["image"], self.setting.device).permute(0, 3, 1, 2).float() / 255
        return images, tensor(arrays["mask"], self.setting.device)[:, None].float()

    def example(self, sample):
        return (torch.zeros(1, 3, *sample["mask"].shape, device=self.setting.device),)

    def loss(self, model, batch):
        logits, masks = model(batch[0]).float(), batch[1]
        share = logits.sigmoid()
        dice = 2 * (share * masks).sum((1, 2, 3)) / (share + masks).sum((1, 2, 3))
        bce = F.binary_cross_entropy_with_logits(logits, masks, reduction="none").mean((1, 2, 3)).sum()
        right = ((logits.detach() > 0) == masks.bool()).float().mean((1, 2, 3)).sum()
        return {"bce": bce, "overlap": self.weight * (1 - dice).sum(), "pixels": right}

    def counts(self, model, batch):
        found, masks = model(batch[0]) > 0, batch[1].bool()
        both, either = (found & masks).sum(), found.sum() + masks.sum()
        return {"both": both, "either": either, "distance": (found.double() - masks.double()).abs().sum()}

    def summary(self, counts):
        dice = 2 * int(counts["both"]) / max(1, int(counts["either"]))
        return {"dice": dice, "distance": float(counts["distance"])}
'''

_OPTIONS = (
    "task.name=second:Segmentation",
    "model.name=second:net",
    "model.args={width: 4}",
    "data.source={name: 'second:squares', path: null}",
    "data.batch_size=8",
    "train.micro_batches=2",
    "train.duration=3ep",
    "checkpoint.every=1ep",
    "evaluate.metric=dice",
    "evaluate.keep=last",
)

_CONFIG = """
task: {name: "second:Segmentation"}
data: {source: {name: "second:squares", path: null}, batch_size: 8}
model: {name: "second:net", args: {width: 4}}
optim: {lr: 0.05}
train: {micro_batches: 2, duration: 3ep, amp: "off", ledger: pixels}
evaluate: {metric: distance, every: 1ep, keep: last}
"""
_SEARCH = """
extends: second.yaml
search: {space: {optim.lr: [0.05, 1.0e-9]}, trials: 2, scheduler: {name: none}}
"""


@pytest.fixture(autouse=True)
def _file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "second.py").write_text(_TASK)
    (tmp_path / "second.yaml").write_text(_CONFIG)
    (tmp_path / "search.yaml").write_text(_SEARCH)
    monkeypatch.chdir(tmp_path)


def _job(name: str, *more: str, world: int = 0):
    return make_job(Path(name).absolute(), Path("none"), *_OPTIONS, *more, world=world)


def _history(name: str, kind: str) -> list[dict]:
    lines = map(json.loads, Path(name, "history.jsonl").read_text().splitlines())
    return [line for line in lines if line["kind"] == kind]


def test_it_trains_to_the_same_bytes_on_one_and_two_workers_and_through_a_stop() -> None:
    assert train(_job("one"))["state"] == "done"
    assert train(_job("two", world=2), 2)["state"] == "done"
    run_ranks(2, train_rank_stopped, _job("cut", world=2), 5, "sigterm")
    assert train(_job("cut"))["state"] == "done"
    assert weights(Path("one")) == weights(Path("two")) == weights(Path("cut"))
    trained = _history("one", "train")[-1]
    assert trained["loss"] == pytest.approx(trained["bce"] + trained["overlap"])
    assert 0 <= trained["pixels"] <= 1
    assert "top1" not in trained


def test_its_own_metric_decides_about_the_best() -> None:
    result = train(_job("run", "evaluate.metric=distance"))
    found = [line["distance"] for line in _history("run", "evaluate")]
    assert result["best"]["value"] == min(found)
    assert result["best"]["metric"] == "distance"


def test_a_metric_that_it_has_not_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        _job("run", "evaluate.metric=top1")
    assert caught.value.where == "evaluate.metric"
    assert "dice, distance" in caught.value.what


def test_an_evaluation_of_its_run_gives_the_last_numbers_of_the_history(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train(_job("run"))
    last = _history("run", "evaluate")[-1]
    texts = []
    for words in (["--json"], []):
        monkeypatch.setattr(sys, "argv", ["raycls", "eval", "run", "--split", "val", *words])
        with pytest.raises(SystemExit) as leaving:
            app.main()
        assert leaving.value.code == 0
        texts.append(capsys.readouterr().out)
    summary = json.loads(texts[0])
    assert {name: summary[name] for name in ("dice", "distance")} == {name: last[name] for name in ("dice", "distance")}
    assert summary["count"] == 8  # a fifth of 40
    lines = texts[1].splitlines()
    assert lines[0] == "split val, 8 images"
    assert f"dice       {last['dice']:.4f}" in lines


def _patience(values: list[float], patience: int) -> int | None:
    """After how many evaluations as many as `patience` in a row were no new minimum."""
    best, bad = float("inf"), 0
    for number, value in enumerate(values, 1):
        best, bad = (value, 0) if value < best else (best, bad + 1)
        if bad == patience:
            return number
    return None


def test_its_own_metric_stops_early_and_lowers_the_learning_rate() -> None:
    """The distance first grows, for the network finds next to nothing at its start: no new minimum for some epochs."""
    long = ("evaluate.metric=distance", "train.duration=6ep")
    train(_job("whole", *long))
    distances = [line["distance"] for line in _history("whole", "evaluate")]
    stop = _patience(distances, 2)
    assert stop is not None
    assert stop < 6
    assert distances[1] > distances[0]  # a metric that is to grow would have improved, and stopped later

    result = train(_job("early", *long, "train.early_stop.patience=2"))
    assert (result["state"], result["epochs"]) == ("early", stop)
    assert [line["distance"] for line in _history("early", "evaluate")] == distances[:stop]

    train(_job("plateau", *long, "schedule={name: plateau, args: {gamma: 0.5, patience: 2}}"))
    rates = [line["lr"] for line in _history("plateau", "train") if line["step"] % 4 == 0]
    assert rates[: stop + 1] == [0.05] * stop + [0.025]


def test_a_search_of_it_is_judged_by_its_own_metric() -> None:
    with open_search(load("search.yaml"), new=False, command=["test"], say=lambda text: None) as plan:
        assert (plan.metric, plan.mode) == ("distance", "min")


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_on_ray_it_gives_the_same_bytes_and_is_searched_by_its_own_metric(tmp_path: Path) -> None:
    site = Site(tmp_path)
    for name, workers in (("here", 0), ("there", 2)):
        words = ("train", "second.yaml", f"scale.workers={workers}", f"run.name={name}", "data.executor=ray")
        with site.raycls(*(words[:-1] if workers == 0 else words), name=name) as command:
            assert command.wait(200) == 0, command.said()
    site.assert_same("there", "here")
    with site.raycls("search", "search.yaml", "data.executor=inline") as command:
        assert command.wait(250) == 0, command.said()
    found = Found.of(site, "search")
    assert [row["state"] for row in found.rows] == ["finished", "finished"]
    best = {row["trial"]: float(row["distance"]) for row in found.rows}
    for trial, value in best.items():
        results = [line["values"]["distance"] for line in found.of_kind("result") if line["trial"] == trial]
        assert value == min(results)
    winner = min(best, key=lambda trial: best[trial])
    assert f"# Trial {winner} of" in (found.folder / "best.yaml").read_text()


def test_a_report_and_a_card_have_its_numbers() -> None:
    assert raycls("train", "second.yaml", "scale.workers=0") == 0
    assert raycls("report", "second", "--card") == 0
    folder = Path("runs/second")
    summary = json.loads((folder / "predictions" / "test-last.json").read_text())
    text = parse((folder / "report.html").read_text()).text
    card = (folder / "model_card.md").read_text()
    for name in ("dice", "distance"):
        assert f"{name} {summary[name]:.4g}" in text
        assert f"| {name} | {summary[name]:.4g} |" in card
    assert "Confusion" not in text
    assert "pipeline_tag" not in card
