"""Networks of timm by name: what is refused, what is told, and that they train as others do."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from harness.errors import raised
from harness.jobs import make_job, train, write_arrays
from PIL import Image
from safetensors.torch import save_file

from raycls.config.load import load_text
from raycls.config.names.networks import timm_models as listed
from raycls.config.sections.model import ModelConfig
from raycls.data.images import operations as augment
from raycls.errors import ConfigError, ModelError
from raycls.models import zoo
from raycls.models.networks import timm_models
from raycls.session.data.preprocessing import differences


def test_channels_are_an_option_of_the_model() -> None:
    with raised(ConfigError, where="model.args.in_chans", found="1"):
        zoo.check(section(args={"in_chans": 1}))


def section(**options: object) -> ModelConfig:
    return ModelConfig.model_validate({"name": "timm:test_resnet", **options})


def test_without_the_extra_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm_models, "find_spec", lambda name: None)
    with raised(ConfigError, where="model.name", fix="pip install 'raycls[timm]'"):
        zoo.check(section())


@pytest.mark.nightly
def test_the_names_are_those_that_timm_registers() -> None:
    import timm

    assert list(listed.names()) == sorted(timm.list_models())


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["timm:resnt10t", "timm:hf-hub:someone/resnet", "timm:local-dir:/tmp", "timm:"])
def test_only_what_timm_registers_is_a_name(name: str) -> None:
    near = "did you mean timm:resnet10t?" if name == "timm:resnt10t" else None
    with raised(ConfigError, where="model.name", found=name, fix=near):
        zoo.check(section(name=name))


@pytest.mark.nightly
def test_a_config_is_read_without_torch() -> None:
    script = (
        "import sys\nfrom raycls.config.errors import Place\nfrom raycls.names import name_problems\n"
        "found = [name_problems({'model': {'name': name}}, {}, Place('here')) for name in sys.argv[1:]]\n"
        "print([[problem.path for problem in each] for each in found], 'torch' in sys.modules, 'timm' in sys.modules)"
    )
    words = [sys.executable, "-c", script, "timm:test_resnet.r160_in1k", "timm:tset_resnet"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[[], ['model.name']] False False"


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("options", "where", "found"),
    [
        ({"args": {"pretrained": True}}, "model.args.pretrained", "True"),
        ({"args": {"checkpoint_path": "x.pth"}}, "model.args.checkpoint_path", "x.pth"),
        ({"weights": "r160_in1k"}, "model.weights", "r160_in1k"),
    ],
)
def test_nothing_is_downloaded(options: dict[str, object], where: str, found: str) -> None:
    with raised(ConfigError, where=where, found=found) as caught:
        zoo.check(section(**options))
    assert "timm/test_resnet.r160_in1k" in str(caught.value.fix)  # where they can be had


@pytest.mark.nightly
def test_an_argument_that_the_network_has_not() -> None:
    with raised(ModelError, where="model.args") as caught:
        zoo.build(section(args={"widht": 2}), 3, seed=0)
    assert "widht" in str(caught.value.found)


@pytest.mark.nightly
def test_the_network_is_that_of_timm(tmp_path: Path) -> None:
    import timm

    own = timm.create_model("test_resnet", num_classes=5, drop_rate=0.5)
    save_file(own.state_dict(), tmp_path / "five.safetensors")
    model = zoo.build(section(args={"drop_rate": 0.5}), 5, seed=0)
    loaded = zoo.load(section(weights=str(tmp_path / "five.safetensors")), model, list("abcde"))
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(model.eval()(images), own.eval()(images))
    assert model.drop_rate == 0.5
    assert not loaded.anew
    other = zoo.build(section(weights=str(tmp_path / "five.safetensors")), 7, seed=0)  # another head, the same body
    assert other.eval()(images).shape == (2, 7)
    assert torch.equal(other.conv1[0].weight, own.conv1[0].weight)  # type: ignore[index]


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["test_resnet", "vit_tiny_patch16_224", "vit_base_patch32_clip_224.openai"])
def test_the_overrides_that_are_told_are_the_preprocessing_of_timm(name: str) -> None:
    from timm.data import create_transform, resolve_data_config

    with torch.device("meta"):
        network = zoo.build(section(name=f"timm:{name}"), 3, seed=0, load=False)
    told = timm_models.preprocessing_of(f"timm:{name}", network)
    assert told is not None
    size = told.image_size
    run = load_text("", "config.yaml", [f"data.image_size={size}", "augment.mean=[0.1, 0.1, 0.1]"]).run
    lines = differences(run, told)
    assert lines[0].startswith(f"preprocessing differs from that of timm's {name}: augment.mean")
    words = lines[1].removeprefix("as theirs: ").replace("'", "").replace(" augment.", "\naugment.").split("\n")
    taken = load_text("", "config.yaml", [f"data.image_size={size}", *words]).run
    assert differences(taken, told) == []
    image = Image.fromarray(np.random.RandomState(0).randint(0, 256, (300, 400, 3), dtype=np.uint8))
    theirs = create_transform(**resolve_data_config({}, model=network), is_training=False)(image)
    pixels = augment.build(taken.augment.eval, train=False, image_size=size)(image, (0, 0, 0))
    array = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (taken.augment.mean, taken.augment.std))
    assert torch.allclose((array.float() / 255 - mean) / std, theirs, atol=1e-5)


@pytest.mark.nightly
def test_a_run_evaluates_as_it_ended(tmp_path: Path) -> None:
    data = write_arrays(tmp_path / "data.npz", train=24, val=12, size=32)
    images = ["data.image_size=32", "augment.train=[horizontal_flip]", "model.args.img_size=32", "data.batch_size=8"]
    job = make_job(tmp_path / "run", data, "model.name=timm:test_vit", *images, "train.duration=2ep", "optim.ema=0.9")
    trained = train(job)
    assert trained["step"] == 6
    code = [sys.executable, "-m", "raycls", "eval", str(tmp_path / "run"), "scale.workers=0"]
    done = subprocess.run(code, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(rf"^loss +{trained['final']['loss']:.6f} ", done.stdout, re.MULTILINE), done.stdout
