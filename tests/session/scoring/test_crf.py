"""A CRF joined to masks: fitted on the validation split alone, kept for its weights, the same in eval and predict."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from harness.jobs import job_of, train
from harness.masks import write_images, write_volumes
from harness.pages import type_in
from harness.tasks import setting
from PIL import Image

from raycls.config.load import load_text
from raycls.data.samples import Keys, digest_of
from raycls.session.trained import refined
from raycls.tasks.crf.dense import Crf
from raycls.tasks.crf.dense import refined as mean_field
from raycls.tasks.scores.masks import overlap
from raycls.tasks.segmentation.task import Segmentation

_CONFIG = """
data: {{source: {{name: masks, path: {data}, args: {{classes: [background, disc, spot]}}}}, batch_size: 4}}
augment: {{train: [{{center_crop: {{size: [20, 24]}}}}], eval: []}}
task: {{name: segmentation, args: {{ignore_index: 255}}}}
model: {{name: unet, args: {{width: 8, depth: 2}}}}
optim: {{lr: 0.05}}
train: {{duration: 12ep, micro_batches: 2, amp: off}}
evaluate: {{keep: last}}
run: {{storage: {root}, name: run}}
scale: {{workers: 0}}
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("crf")
    write_images(root / "cells", {"train": 8, "val": 2, "test": 4})
    run = load_text(_CONFIG.format(data=root / "cells", root=root), "a.yaml", ["data.executor=inline"]).run
    assert train(job_of(run), 0)["state"] == "done"
    return root


def _typed(*words: Any) -> str:
    code, said = type_in(("raycls", *map(str, words)))
    assert code == 0, said
    return said


def _dice(truth: Path, found: Path) -> float:
    """Macro over the classes but the first, of files."""
    each: list[list[float]] = []
    for file in sorted(truth.glob("*.png")):
        with Image.open(file) as one, Image.open(found / file.name) as other:
            true, said = np.array(one), np.array(other)
        each.append([overlap(true == label, (said == label) & (true != 255)).dice for label in (1, 2)])
    return float(np.nanmean(np.array(each), 0).mean())


def test_eval_and_predict_join_the_same_crf(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained / "run", run)
    code, said = type_in(("raycls", "predict", str(run), str(trained / "cells"), "--masks", str(tmp_path), "--crf"))
    assert code == 2 and "no CRF was fitted for these weights" in said
    plain = json.loads(_typed("eval", run, "--json").splitlines()[-1])
    said = _typed("eval", run, "--crf")
    summary = json.loads((run / "predictions" / "test-last-crf.json").read_text())
    kept = json.loads((run / "model" / "crf.json").read_text())
    assert f"dice {summary['dice']:.4f} with and {plain['dice']:.4f} without it; fitted on 2 of val" in said
    assert summary["crf"]["without"] == pytest.approx(plain["dice"], abs=1e-12) and summary["dice"] != plain["dice"]
    assert summary["loss"] == plain["loss"]  # that of the network
    keys = Keys(["val/images/0.png", "val/images/1.png"])
    rows = np.arange(2).astype("<i8").tobytes()
    assert (
        kept["samples"] == digest_of((*keys.digest_parts(), rows)) and kept["dice"]["with"] >= kept["dice"]["without"]
    )
    _typed("predict", run, trained / "cells" / "test" / "images", "--masks", tmp_path / "m", "--crf")
    assert _dice(trained / "cells" / "test" / "masks", tmp_path / "m") == pytest.approx(summary["dice"], abs=1e-12)
    with (run / "predictions" / "test-last-crf.csv").open() as file:
        alone = [float(row["dice_without_crf"]) for row in csv.DictReader(file) if row["class"] == "disc"]
    assert np.nanmean(alone) == pytest.approx(plain["per_class"]["disc"]["dice"], abs=1e-8)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("it is fitted already")

    with monkeypatch.context() as patch:
        patch.setattr(refined, "fitted", never)
        assert "the parameters that were fitted before" in _typed("eval", run, "--crf")
    (run / "model" / "crf.json").write_text(json.dumps({**kept, "sha256": "of others"}))
    code, said = type_in(("raycls", "predict", str(run), str(trained / "cells"), "--masks", str(tmp_path), "--crf"))
    assert code == 2 and "no CRF was fitted for these weights" in said


def test_nothing_is_fitted_on_what_is_evaluated(trained: Path) -> None:
    for words, shown in (
        (("--split", "val"), "the CRF would be fitted on what is evaluated"),
        (("--weights", "step-22"), "the parameters of a CRF are kept beside the weights"),
    ):
        code, said = type_in(("raycls", "eval", str(trained / "run"), "--crf", *words))
        assert code == 2 and shown in said, said
    assert not (trained / "run" / "model" / "crf.json").exists()


def test_a_crf_sees_intensities_from_0_to_1(tmp_path: Path) -> None:
    task = Segmentation(setting(classes=("a", "b")))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 6, 3)).astype(np.uint8)
    spacing = np.ones((2, 2), np.float32)
    batch = task.batch({"image": pixels, "mask": np.ones((2, 5, 6), np.uint8), "spacing": spacing}, train=False)
    wanted = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    assert torch.allclose(task.levels(batch), wanted, atol=1e-6)
    logits = torch.randn(2, 2, 5, 6, generator=torch.Generator().manual_seed(0))
    assert task.answers(logits, batch) is logits
    task.crf = Crf(smoothness=1.0)
    found = task.answers(logits, batch)
    for row in range(2):
        one = mean_field(logits[row].softmax(0), wanted[row], task.crf)
        assert torch.allclose(found[row], one, atol=1e-5)


def test_a_crf_of_volumes_knows_their_windows_and_distances(tmp_path: Path) -> None:
    data = write_volumes(tmp_path / "ct", {"train": 1, "val": 1})
    text = """
data: {source: {name: masks, args: {classes: [background, lesion]}}, window: [bone]}
augment: {eval: []}
task: {name: volume_segmentation}
model: {name: unet, in_channels: 1, args: {dimensions: 3}}
"""
    from raycls.data.source import open_dataset
    from raycls.session.setup import make_arrays, make_task

    run = load_text(text, "a.yaml", [f"data.source.path={data}"]).run
    split = open_dataset(run.data).splits["val"]
    sample = make_arrays(run, split.classes)(split, 0, (0, -1, 0), train=False)
    task: Any = make_task(run, split.classes, torch.device("cpu"))
    batch = task.batch({name: value[None] for name, value in sample.items()}, train=False)
    assert np.allclose(task.levels(batch)[0].numpy(), sample["volume"], atol=1e-6)
    assert batch.spacing.tolist() == [[2.5, 1.0, 0.75]]
