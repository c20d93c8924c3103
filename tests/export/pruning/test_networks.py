"""Which of torchvision's networks can be cut, and what is said of the others."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from raycls.config.load import load_text, to_yaml
from raycls.errors import ModelError
from raycls.export.pruning.structured import Limits, cut_channels
from raycls.models import zoo
from raycls.run.folder import RunFolder
from raycls.run.model_file import write_model
from raycls.session.data.preprocessing import preprocessing_of
from raycls.session.trained.trained import Trained, open_trained

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(300)]


def _run(trained: Path, folder: Path, name: str, args: str = "{}") -> Trained:
    """A run folder with random weights of a network, beside what the trained run has."""
    shutil.copytree(trained / "runs" / "shapes", folder)
    words = [f"model.name={name}", f"model.args={args}"]
    run = load_text((folder / "config.yaml").read_text(), "config.yaml", words).run
    (folder / "config.yaml").write_text(to_yaml(run))
    model = zoo.build(run.model, 3, 0, load=False)
    write_model(
        RunFolder(folder),
        model.state_dict(),
        classes=("circle", "square", "stripes"),
        preprocessing=preprocessing_of(run),
        config=run.model.model_dump(mode="json"),
        weights={"name": "best", "step": 25, "reason": "random"},
    )
    return open_trained(str(folder))


@pytest.mark.parametrize(
    "name", ["resnet50", "mobilenet_v3_small", "efficientnet_b0", "convnext_tiny", "densenet121", "vgg11_bn"]
)
def test_half_of_the_channels_leaves_about_a_quarter_of_the_parameters(
    trained: Path, tmp_path: Path, name: str
) -> None:
    """`cut_channels` itself makes the network again from its sizes and compares the outputs."""
    run = _run(trained, tmp_path / name, name)
    before = sum(tensor.numel() for tensor in zoo.build(run.run.model, 3, 0, load=False).parameters())
    pruned, tensors = cut_channels(run, run.run.model, 0.5, [(1, 3, 64, 64)], Limits())
    model = zoo.build(run.run.model.model_copy(update={"pruned": pruned}), 3, 0, load=False)
    model.load_state_dict(tensors)
    assert 0.2 < sum(tensor.numel() for tensor in model.parameters()) / before < 0.35
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 3)


def test_a_vision_transformer_is_refused(trained: Path, tmp_path: Path) -> None:
    run = _run(trained, tmp_path / "vit", "vit_b_16", "{image_size: 64}")
    with pytest.raises(ModelError) as error:
        cut_channels(run, run.run.model, 0.5, [(1, 3, 64, 64)], Limits())
    assert "nothing was written" in error.value.what
    assert error.value.where == "--structured"
