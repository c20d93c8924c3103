"""Any number of labels per image: the loss by hand, counts that add up, and data that does not fit."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from harness.errors import raised
from harness.tagged import write_tagged
from harness.tasks import setting
from torch import Tensor, nn

from raycls.cli import app
from raycls.config.load import load
from raycls.config.sections.task import LossConfig
from raycls.data.source import open_dataset
from raycls.errors import ConfigError
from raycls.run.folder import RunFolder
from raycls.run.history import read
from raycls.session.data.seen import seen
from raycls.tasks.classification import Labelled
from raycls.tasks.multilabel import MultiLabel

LOGITS = torch.tensor([[0.0, 2.0], [-1.0, 0.5]])
LABELS = torch.tensor([[1.0, 0.0], [0.0, 1.0]])


class _Fixed(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return LOGITS


def _task(**arguments: float) -> MultiLabel:
    return MultiLabel(setting(), **arguments)


def _batch() -> Labelled:
    return Labelled(torch.zeros(2, 3, 1, 1), LABELS)


def test_loss_is_the_mean_over_classes_summed_over_images() -> None:
    costs = [math.log(2), math.log(1 + math.exp(2)), math.log(1 + math.exp(-1)), math.log(1 + math.exp(-0.5))]
    assert _task().loss(_Fixed(), _batch())["loss"].item() == pytest.approx(sum(costs) / 2)


def test_exponents_weigh_each_class_by_how_wrong_it_is_judged() -> None:
    def share(logit: float) -> float:
        return 1 / (1 + math.exp(-logit))

    costs = [
        math.log(2) * 0.5,
        math.log(1 + math.exp(2)) * share(2) ** 2,
        math.log(1 + math.exp(-1)) * share(-1) ** 2,
        math.log(1 + math.exp(-0.5)) * (1 - share(0.5)),
    ]
    found = _task(gamma_positive=1.0, gamma_negative=2.0).loss(_Fixed(), _batch())["loss"]
    assert found.item() == pytest.approx(sum(costs) / 2)


def test_counts_of_parts_add_up_to_the_summary_of_the_whole() -> None:
    task = _task()
    summary = task.summary({name: value.numpy() for name, value in task.counts(_Fixed(), _batch()).items()})
    plain = torch.nn.functional.binary_cross_entropy_with_logits(LOGITS.double(), LABELS.double()).item()
    assert summary["loss"] == pytest.approx(plain)
    assert (summary["count"], summary["map"], summary["exact"]) == (2, pytest.approx(0.75), 0.5)
    assert summary["per_class"]["a"]["precision"] == 1.0  # a probability of 0.5 counts as predicted
    assert summary["per_class"]["b"]["precision"] == 0.5


def test_options_of_another_loss_are_refused() -> None:
    with raised(ConfigError, where="loss", found="loss.name cross_entropy, or options of it"):
        MultiLabel(setting(loss=LossConfig(args={"label_smoothing": 0.1})))


@pytest.fixture
def shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images of red, green and blue squares, each there or not, and a config."""
    write_tagged(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _type(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["raycls", *words])
    with pytest.raises(SystemExit) as leaving:
        app.main()
    assert isinstance(leaving.value.code, int)
    return leaving.value.code


def test_a_run_from_a_manifest_of_lists(
    shapes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _type(monkeypatch, "train", "c.yaml") == 0
    capsys.readouterr()
    assert _type(monkeypatch, "eval", "c", "--split", "test", "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["count"], summary["map_classes"]) == (6, 3)
    maps = [record["map"] for record in read(RunFolder(str(shapes / "runs/c"))) if record["kind"] == "evaluate"]
    assert maps[-1] > 0.6
    # a resumed run knows which image had which classes
    text = (shapes / "m.jsonl").read_text()
    (shapes / "m.jsonl").write_text(text.replace('"label": ["red"]', '"label": ["red", "blue"]', 1))
    assert _type(monkeypatch, "train", "c.yaml", "train.duration=4ep") == 3
    said = capsys.readouterr().err
    assert "relabelled" in said
    assert '["red"]' in said


def test_what_the_network_will_see_has_the_classes_of_each_image(shapes: Path) -> None:
    run = load(shapes / "c.yaml").run
    _, found = seen(run, open_dataset(run.data), epoch=0, count=20)
    said = {f"i/{number}.png": json.loads(line)["label"] for number, line in enumerate(_lines(shapes))}
    assert {each.where: sorted(filter(None, each.label.split(", "))) for each in found} == {
        each.where: sorted(said[each.where]) for each in found
    }
    assert {len(said[each.where]) for each in found} > {0, 1}


def _lines(folder: Path) -> list[str]:
    return (folder / "m.jsonl").read_text().splitlines()


def test_data_without_any_label_is_refused(
    shapes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [json.dumps({"path": f"i/{number}.png", "label": []}) for number in range(60)]
    (shapes / "m.jsonl").write_text("\n".join(lines))
    assert _type(monkeypatch, "train", "c.yaml") == 3
    said = capsys.readouterr().err
    assert "no image of the data has a label" in said and "m.jsonl" in said and "60 images" in said


def test_labels_that_do_not_fit_the_task_are_refused(
    shapes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _type(monkeypatch, "train", "c.yaml", "task.name=classification", "evaluate.metric=top1") == 2
    assert "any number of classes" in capsys.readouterr().err
    lines = [json.dumps({"path": f"i/{number}.png", "label": "ab"[number % 2]}) for number in range(60)]
    (shapes / "m.jsonl").write_text("\n".join(lines))
    assert _type(monkeypatch, "train", "c.yaml") == 2
    assert "one class" in capsys.readouterr().err
