"""Operations on the batch against torchvision's and by hand, and what a task does with mixed labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from harness.tasks import classification
from torch import Tensor, nn
from torchvision.transforms import v2

from raycls.errors import ConfigError, TrainError
from raycls.tasks.classification import Labelled
from raycls.tasks.mix.build import BatchOperation, build_mix, mixes

LABELS = torch.tensor([0, 2, 1, 2, 0, 1])


def _images(count: int = 6, size: int = 8) -> Tensor:
    return torch.arange(count * 3 * size * size, dtype=torch.float32).reshape(count, 3, size, size) / 100


def _built(*operations: Any) -> BatchOperation:
    built = build_mix(operations, 3)
    assert built is not None
    return built


@pytest.mark.parametrize("alpha", [0.2, 1.0, 8.0])
@pytest.mark.parametrize(("name", "theirs"), [("mixup", v2.MixUp), ("cutmix", v2.CutMix)])
def test_mixing_is_that_of_torchvision(name: str, theirs: Any, alpha: float) -> None:
    torch.manual_seed(5)
    images, shares = _built({name: {"alpha": alpha}})(_images(), LABELS)
    torch.manual_seed(5)
    expected = theirs(alpha=alpha, num_classes=3)(_images(), LABELS)
    assert torch.equal(images, expected[0]) and torch.equal(shares, expected[1])


def test_mixup_by_hand() -> None:
    """Whatever ratio was drawn, image and label are mixed by it, each with the one before it."""
    torch.manual_seed(1)
    images, shares = _built({"mixup": {"alpha": 1.0}})(_images(), LABELS)
    ratio = float(shares[0, 0])  # labels 0 and 1 (the last one comes before the first)
    assert 0 < ratio < 1
    for row in range(6):
        assert torch.allclose(images[row], ratio * _images()[row] + (1 - ratio) * _images()[row - 1], rtol=1e-5)
        expected = np.zeros(3)
        expected[int(LABELS[row])] += ratio
        expected[int(LABELS[row - 1])] += 1 - ratio
        assert shares[row].tolist() == pytest.approx(expected.tolist(), abs=1e-6)


def test_labels_of_cutmix_are_the_pixels_of_each_image() -> None:
    for seed in range(20):
        torch.manual_seed(seed)
        images, shares = _built("cutmix")(_images(), LABELS)
        for row in range(6):
            kept, pasted = images[row] == _images()[row], images[row] == _images()[row - 1]
            assert (kept | pasted).all()
            expected = np.zeros(3)
            expected[int(LABELS[row])] += kept.float().mean().item()
            expected[int(LABELS[row - 1])] += pasted.float().mean().item()
            assert shares[row].tolist() == pytest.approx(expected.tolist(), abs=1e-6)


def test_probabilities_are_those_of_the_config() -> None:
    kinds = {"none": 0, "mixup": 0, "cutmix": 0}
    apply = _built({"mixup_cutmix": {"mixup_alpha": 1.0, "p": 0.75, "switch": 2 / 3}})
    for seed in range(400):
        torch.manual_seed(seed)
        images, shares = apply(_images(2), LABELS[:2])
        assert shares.shape == (2, 3) and shares.sum(1).tolist() == pytest.approx([1, 1])
        if torch.equal(images, _images(2)):  # a box without a pixel is one of CutMix
            kinds["none" if torch.equal(shares, torch.eye(3)[LABELS[:2]]) else "mixup"] += 1
        else:
            pure = ((images[0] == _images(2)[0]) | (images[0] == _images(2)[1])).all()
            kinds["cutmix" if pure else "mixup"] += 1
    assert kinds["mixup"] == pytest.approx(100, abs=30)  # 400 * 3/4 * 1/3; three standard deviations are 26
    assert kinds["cutmix"] + kinds["none"] == pytest.approx(300, abs=30)
    assert kinds["none"] == pytest.approx(100, abs=60)


def test_one_sample_is_its_own_partner() -> None:
    images, shares = _built({"mixup": {"alpha": 1.0}}, "cutmix")(_images(1), LABELS[1:2])
    assert torch.allclose(images, _images(1)) and shares.tolist() == [pytest.approx([0, 0, 1])]


def test_erasing_fills_one_box_in_some_images_and_leaves_labels() -> None:
    torch.manual_seed(0)
    plain, given = torch.ones(200, 3, 16, 20), torch.zeros(200, dtype=torch.int64)
    images, labels = _built({"random_erasing": {"p": 0.4, "scale": [0.1, 0.2], "fill": -3.0}})(plain, given)
    assert labels is given and (plain == 1).all()
    erased = images == -3
    assert (erased | (images == 1)).all() and (erased[:, 0] == erased[:, 2]).all()
    hit = erased[:, 0].flatten(1).any(1)
    assert int(hit.sum()) == pytest.approx(80, abs=21)  # three standard deviations
    for mask in erased[hit, 0]:
        rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
        height, width = len(rows), len(columns)
        assert int(mask.sum()) == height * width == (int(rows[-1] - rows[0]) + 1) * (int(columns[-1] - columns[0]) + 1)
        assert 0.07 < height * width / 320 < 0.24 and 0.2 < height / width < 4.5  # whole pixels beside the range
    torch.manual_seed(0)
    noise, _ = _built({"random_erasing": {"p": 1, "fill": "random"}})(plain, given)
    filled = noise[noise != 1]
    assert filled.mean().item() == pytest.approx(0, abs=0.05) and filled.std().item() == pytest.approx(1, abs=0.05)


def test_where_no_box_fits_none_is_made() -> None:
    plain = torch.ones(3, 3, 2, 2)
    images, _ = _built({"random_erasing": {"p": 1, "scale": [1.0, 1.0], "ratio": [1.0, 1.0]}})(plain, LABELS[:3])
    assert torch.equal(images, plain)


class _Returns(nn.Module):
    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, images: Tensor) -> Tensor:
        return self.logits


def test_top1_of_a_mixed_sample_is_its_largest_share() -> None:
    shares = torch.tensor([[0.6, 0.4, 0.0], [0.3, 0.0, 0.7], [0.1, 0.9, 0.0]])
    logits = torch.tensor([[3.0, 1.0, 0.0], [5.0, 0.0, 1.0], [0.0, 2.0, 1.0]])
    sums = classification(classes=("a", "b", "c")).loss(_Returns(logits), Labelled(torch.zeros(3, 3, 1, 1), shares))
    assert int(sums["top1"]) == 2
    assert sums["loss"].item() == pytest.approx(-(shares * logits.log_softmax(1)).sum().item(), rel=1e-6)


def test_batches_of_training_alone_are_mixed() -> None:
    task = classification(batch=("mixup",), classes=("a", "b", "c"))
    arrays = {"image": np.zeros((6, 4, 4, 3), np.uint8), "label": LABELS.numpy()}
    assert task.batch(arrays, train=True).labels.shape == (6, 3)
    assert task.batch(arrays, train=False).labels.tolist() == LABELS.tolist()
    off = {**arrays, "augmented": np.zeros(6, bool)}  # augment.off_after
    assert task.batch(off, train=True).labels.tolist() == LABELS.tolist()


@pytest.mark.parametrize(
    ("operations", "where", "words"),
    [
        (["mixup", "cutmux"], "augment.batch[1]", "did you mean cutmix?"),
        ([{"mixup": {"alpha": 0}}], "augment.batch[0].mixup.alpha", "greater than 0"),
        ([{"mixup": {"beta": 1}}], "augment.batch[0].mixup", "no argument beta"),
        ([{"cutmix": {"num_classes": 4}}], "augment.batch[0].cutmix", "set by raycls"),
        ([{"mixup": {}, "cutmix": {}}], "augment.batch[0]", "a line of its own"),
        ([{"random_erasing": {"scale": [0.5, 0.1]}}], "augment.batch[0].random_erasing", "min and max"),
        ([{"random_erasing": {"fill": "grey"}}], "augment.batch[0].random_erasing.fill", "random"),
    ],
)
def test_what_does_not_fit_is_told_at_its_entry(operations: list[Any], where: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_mix(operations, 3)
    assert caught.value.where == where and words in str(caught.value)


def test_an_operation_of_the_user_is_tried(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = (
        "def brighter(num_classes, *, by: float = 1.0):",
        "    return lambda images, labels: (images + by, labels)",
        "def half(num_classes):",
        "    return lambda images, labels: (images[::2], labels)",
        "def broken(num_classes):",
        "    return lambda images, labels: images.no_such()",
    )
    (tmp_path / "batches.py").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    images, labels = _built({"batches:brighter": {"by": 2.0}})(_images(), LABELS)
    assert torch.equal(images, _images() + 2) and labels is LABELS
    assert not mixes(({"batches:brighter": {"by": 2.0}}, "random_erasing"), 3, 8)
    assert mixes(("random_erasing", "mixup"), 3, 8)
    for name, found in (("half", r"\[1, 3, 8, 8\]"), ("broken", "no_such")):
        with pytest.raises(ConfigError, match=found):
            mixes((f"batches:{name}",), 3, 8)
        with pytest.raises(TrainError):
            _built(f"batches:{name}")(_images(), LABELS)
