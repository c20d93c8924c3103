"""What is trained when, and at which rate: from the config and the step alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import inf
from pathlib import Path
from typing import Any

import pytest
import torch
from harness.errors import raised
from harness.jobs import make_job, train, write_arrays
from safetensors.torch import load_file
from torch import nn

from raycls.config.sections.finetune import FinetuneConfig
from raycls.config.sections.model import ModelConfig
from raycls.config.sections.optim import OptimConfig
from raycls.errors import ConfigError
from raycls.models.finetune import Stages, finetuned
from raycls.models.layers import layers
from raycls.models.surgery import parameter_groups
from raycls.models.zoo import build
from raycls.train.optimizers.build import build_optimizer

_EPOCH, _TOTAL = 4, 20


def resnet() -> nn.Module:
    return build(ModelConfig(name="resnet18_cifar"), 5, seed=0)


def stages(model: nn.Module, **options: Any) -> Stages:
    return finetuned(FinetuneConfig.model_validate(options), model, 5, _EPOCH, _TOTAL)


def trained(model: nn.Module, now: Stages, step: int) -> set[str]:
    """Names of the children that are trained as a whole at `step`; none is in part."""
    now(step)
    found: dict[str, set[bool]] = {}
    for name, parameter in model.named_parameters():
        found.setdefault(name.partition(".")[0], set()).add(parameter.requires_grad)
    assert all(len(kinds) == 1 for kinds in found.values())
    return {name for name, kinds in found.items() if kinds == {True}}


_ALL = {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {0: _ALL, 19: _ALL}),
        ({"freeze": 1}, {0: _ALL - {"conv1", "bn1"}}),
        ({"freeze": 3}, {0: _ALL - {"conv1", "bn1", "layer1"}, 19: _ALL - {"conv1", "bn1", "layer1"}}),
        ({"freeze": "layer[12]"}, {0: _ALL - {"layer1", "layer2"}}),
        ({"freeze": ["conv1", "bn*"]}, {0: _ALL - {"conv1", "bn1"}}),
        ({"unfreeze": {"0ep": "head"}}, {0: {"fc"}, 19: {"fc"}}),
        (
            {"unfreeze": {"0ep": "head", "2ep": ["layer4", "layer3"], "75%": "all"}},
            {0: {"fc"}, 7: {"fc"}, 8: {"fc", "layer3", "layer4"}, 14: {"fc", "layer3", "layer4"}, 15: _ALL},
        ),
        (
            {"freeze": ["conv1", "bn1", "layer1"], "unfreeze": {"3st": "layer1"}},
            {0: _ALL - {"conv1", "bn1", "layer1"}, 3: _ALL - {"conv1", "bn1"}},
        ),
    ],
)
def test_what_is_trained_when(options: Mapping[str, Any], expected: Mapping[int, set[str]]) -> None:
    model = resnet()
    now = stages(model, **options)
    for step, names in expected.items():
        assert trained(model, now, step) == names
    for step in reversed(expected):  # a step says it alone, not the steps before it
        assert trained(model, now, step) == expected[step]


def test_all_that_is_ever_trained_is_in_the_optimizer_from_the_start() -> None:
    model = resnet()
    now = stages(model, unfreeze={"0ep": "head", "1ep": "layer4"})
    groups = parameter_groups(model, 0.1, "all", now.rates)
    inside = {id(value) for group in groups for value in group["params"]}
    named = {name for name, value in model.named_parameters() if id(value) in inside}
    assert named == {name for name, _ in model.named_parameters() if name.startswith(("fc.", "layer4."))}


@pytest.mark.parametrize(
    ("which", "frozen", "later"),
    [
        ("frozen_layers", {"bn1", "layer1", "layer2"}, {"bn1", "layer1"}),
        ("all", {"bn1", "layer1", "layer2", "layer3", "layer4"}, {"bn1", "layer1", "layer2", "layer3", "layer4"}),
        ("off", set(), set()),
    ],
)
def test_norms_of_frozen_layers_keep_their_statistics(which: str, frozen: set[str], later: set[str]) -> None:
    model = resnet()
    now = stages(model, freeze=5, unfreeze={"5st": "layer2"}, frozen_norm=which)
    for step, kept in ((0, frozen), (5, later)):
        before = {name: value.clone() for name, value in model.named_buffers()}
        now(step)
        model(torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(step)))
        same = {name for name, value in model.named_buffers() if torch.equal(value, before[name])}
        assert {name.partition(".")[0] for name in same} == kept
        assert all(name.partition(".")[0] not in kept for name in before.keys() - same)


def test_a_norm_without_parameters_goes_with_the_module_around_it() -> None:
    def block() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, affine=False))

    model = nn.Sequential(block(), block(), nn.Flatten(), nn.Linear(12, 5))
    stages(model, freeze="0")(0)
    norms = [module.training for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms == [False, True]


def test_a_frozen_parameter_is_left_alone_by_decay_momentum_and_the_gradients_norm() -> None:
    model = resnet()
    now = stages(model, unfreeze={"0ep": "head", "2st": "all"})
    optimizer = build_optimizer(
        OptimConfig.model_validate({"name": "adamw", "lr": 0.1, "weight_decay": 0.5}), model, now.rates
    )
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    for step in range(3):
        now(step)
        optimizer.zero_grad(set_to_none=True)
        model(torch.randn(2, 3, 8, 8)).sum().backward()
        graded = {name for name, value in model.named_parameters() if value.grad is not None}
        optimizer.step()
        moved = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
        expected = set(before) if step == 2 else {"fc.weight", "fc.bias"}
        assert graded == expected
        assert moved == expected


def test_layer_decay_is_that_of_its_closed_form() -> None:
    model = build(ModelConfig(name="vit_b_32", args={"image_size": 32}), 5, seed=0)
    rates = stages(model, layer_decay=0.75).rates
    # BEiT: 0.75 ** (13 - id), id 0 for what embeds the patches, 1 to 12 for the blocks, 13 for the head
    assert rates["conv_proj.weight"].factor == rates["class_token"].factor == pytest.approx(0.75**13)
    for block in range(12):
        name = f"encoder.layers.encoder_layer_{block}.mlp.0.weight"
        assert rates[name].factor == pytest.approx(0.75 ** (12 - block))
    assert rates["heads.head.weight"].factor == 1.0
    groups = parameter_groups(model, 0.1, "weights", rates)
    assert len(groups) == 2 * 14
    for group in groups:
        assert len({rate.factor for rate in _of(model, rates, group)} | {group["lr_factor"]}) == 1
        assert {value.ndim > 1 for value in group["params"]} == {group["weight_decay"] > 0}


def _of(model: nn.Module, rates: Mapping[str, Any], group: Mapping[str, Any]) -> list[Any]:
    inside = {id(value) for value in group["params"]}
    return [rates[name] for name, value in model.named_parameters() if id(value) in inside]


@pytest.mark.parametrize(
    "scales", [{"head": 10.0, "*": 0.01, "layer4.0": 0.5}, {"*": 0.01, "layer4.0": 0.5, "head": 10.0}]
)
def test_the_pattern_that_fits_the_fewest_decides(scales: dict[str, float]) -> None:
    model = resnet()
    rates = stages(model, lr_scale=scales, layer_decay=0.5).rates
    depth = {name: number for number, layer in enumerate(layers(model)) for name in layer.parameters}
    for name, rate in rates.items():
        scale = 10.0 if name.startswith("fc.") else 0.5 if name.startswith("layer4.0.") else 0.01
        assert rate.factor == pytest.approx(scale * 0.5 ** (9 - depth[name]))


def test_the_last_weight_is_in_the_last_group() -> None:
    model = resnet()
    groups = parameter_groups(model, 0.1, "weights", stages(model, lr_scale={"layer[1]": 2.0, "bn1": 3.0}).rates)
    assert [value for group in groups for value in group["params"] if value.ndim > 1][-1] is model.get_parameter(
        "fc.weight"
    )


def test_runs_that_differ_in_factors_alone_have_the_same_groups() -> None:
    sizes: list[list[int]] = []
    for decay, scale in ((0.5, 2.0), (1.0, 1.0)):
        model = resnet()
        rates = stages(model, layer_decay=decay, lr_scale={"layer1": scale}).rates
        sizes.append([len(group["params"]) for group in parameter_groups(model, 0.1, "all", rates)])
    assert sizes[0] == sizes[1]


def test_nothing_asked_changes_nothing() -> None:
    model = resnet()
    now = stages(model)
    assert not now.rates
    (group,) = build_optimizer(OptimConfig(), model, now.rates).param_groups
    assert "lr_factor" not in group
    now(0)
    assert all(module.training for module in model.modules())


def test_an_optimizer_that_drops_the_factors_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "forgetful.py").write_text(
        "import torch\n\n\ndef sgd(groups, lr):\n"
        "    return torch.optim.SGD([p for group in groups for p in group['params']], lr=lr)\n"
    )
    model = resnet()
    now = stages(model, layer_decay=0.5)
    with raised(
        ConfigError, where="optim.name, finetune", found=re.compile("forgetful:sgd: a group with conv1.weight")
    ):
        build_optimizer(OptimConfig(name="forgetful:sgd"), model, now.rates)


@pytest.mark.parametrize(
    ("options", "facts"),
    [
        ({"freeze": "layer9"}, {"where": "finetune.freeze", "found": "layer9", "valid": "conv1"}),
        ({"unfreeze": {"0ep": "backbone"}}, {"where": "finetune.unfreeze", "found": "backbone"}),
        ({"lr_scale": {"layer[7]": 2.0}}, {"where": "finetune.lr_scale", "found": "layer[7]"}),
        ({"freeze": 10}, {"where": "finetune.freeze", "found": "10 of 10 layers", "valid": "1 to 9"}),
        ({"freeze": "all"}, {"where": "finetune.freeze, finetune.unfreeze", "fix": "0ep"}),
        ({"unfreeze": {"1ep": "head"}}, {"what": "before step 4", "fix": "finetune.unfreeze='{0ep: head}'"}),
        ({"unfreeze": {"0ep": "head", "5ep": "all"}}, {"where": "finetune.unfreeze", "found": "step 20 of 20"}),
        ({"lr_scale": {"layer1": 2.0, "layer1*": 3.0}}, {"found": "layer1: 2 and layer1*: 3"}),
    ],
)
def test_what_cannot_be_done_is_an_error(options: dict[str, Any], facts: dict[str, str]) -> None:
    with raised(ConfigError, **{name: re.compile(re.escape(text)) for name, text in facts.items()}):
        stages(resnet(), **options)


@pytest.mark.parametrize(
    "options",
    [
        {"unfreeze": {"2h": "head"}},
        {"unfreeze": {"soon": "head"}},
        {"freeze": 0},
        {"freeze": [""]},
        {"lr_scale": {"head": 0.0}},
        {"lr_scale": {"head": inf}},
        {"layer_decay": 0.0},
        {"layer_decay": 1.5},
    ],
)
def test_what_the_config_refuses(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        FinetuneConfig.model_validate(options)


@pytest.mark.slow
def test_distributed_data_parallel_trains_the_same_parameters(tmp_path: Path) -> None:
    data = write_arrays(tmp_path / "data.npz", train=48, val=12)
    options = (
        "data.batch_size=16",
        "train.micro_batches=2",
        "train.duration=3ep",
        "model.name=squeezenet1_1",  # without batch norm, whose statistics are those of a rank's part
        "model.args={dropout: 0.0}",
        "data.image_size=24",
        "augment.train=[{resize: {size: [24, 24]}}]",
        "augment.eval=[{resize: {size: [24, 24]}}]",
        "finetune.unfreeze={0ep: head, 2ep: features.12}",
        "optim={name: adamw, lr: 0.01, weight_decay: 0.3}",
    )
    ends: list[dict[str, torch.Tensor]] = []
    for name, world, reduction in (("exact", 0, "exact"), ("fast", 2, "fast")):
        train(make_job(tmp_path / name, data, *options, f"train.reduction={reduction}", world=world), world)
        ends.append(load_file(tmp_path / name / "model" / "model.safetensors"))
    first = build(ModelConfig(name="squeezenet1_1", args={"dropout": 0.0}), 4, seed=0).state_dict()
    moved = [{name for name in first if not torch.equal(end[name], first[name])} for end in ends]
    assert moved[0] == moved[1] == {name for name in first if name.startswith(("classifier.1.", "features.12."))}
    for name in moved[0]:
        torch.testing.assert_close(ends[0][name], ends[1][name], rtol=1e-2, atol=1e-4)
