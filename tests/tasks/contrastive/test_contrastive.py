"""SimCLR and MoCo v2: the losses by hand, the views, the probe, and the queue that all workers add to."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from harness.jobs import curve, make_job, train, write_arrays
from harness.tasks import setting
from torch import Tensor, nn

from raycls.config.load import load_text
from raycls.config.sections.model import ModelConfig
from raycls.data.order import Order
from raycls.data.order import key as order_key
from raycls.data.source import open_dataset
from raycls.errors import ConfigError, ModelError
from raycls.export.average import Averaging, average
from raycls.export.pruning.folder import place_of
from raycls.export.pruning.prune import Wanted, prune
from raycls.models import zoo
from raycls.models.projected import Momentum, Projected
from raycls.randomness import seed_all
from raycls.run.folder import RunFolder
from raycls.run.model_file import read_model
from raycls.session.trained.trained import open_trained
from raycls.tasks.contrastive.moco import MoCo
from raycls.tasks.contrastive.simclr import SimCLR, nt_xent
from raycls.tasks.contrastive.views import Views
from raycls.train.reduction import make_reduction


@pytest.mark.parametrize("option", ["loss.balance=weights", "loss.args.label_smoothing=0.1", "augment.off_after=50%"])
def test_what_a_pretraining_does_not_obey_is_refused(option: str, tmp_path: Path) -> None:
    data = write_arrays(tmp_path / "data.npz", train=16, val=4)
    with pytest.raises(ConfigError) as caught:
        make_job(tmp_path / "run", data, "task.name=simclr", option, "train.duration=4ep", "data.batch_size=8")
    assert str(caught.value.where).startswith(option.split("=")[0].split(".")[0])


def test_overfit_has_two_views_all_the_same_and_each_image_is_read_once(tmp_path: Path) -> None:
    data = write_arrays(tmp_path / "data.npz", train=16, val=4)
    split = open_dataset(load_text("", "c", [f"data.source={{name: arrays, path: {data}}}"]).run.data).splits["train"]
    task = SimCLR(setting(train=({"random_crop": {"size": 12, "padding": 4}},), eval=(), off_epoch=-1, device=None))
    read: list[int] = []

    class Reader:
        def read(self, index: int) -> np.ndarray:
            read.append(index)
            return split.reader.read(index)

    watched = replace(split, reader=Reader())
    pairs = [task.arrays(watched, index, (0, 0, index), train=True) for index in range(8)]
    assert read == list(range(8))
    assert any((pair["image"] != pair["other"]).any() for pair in pairs)


def _rows(count: int, width: int = 6, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.RandomState(seed).randn(count, width)).float()


def _plain(num_classes: int = 2) -> nn.Module:
    """A network without batch normalisation: what it gives for a row depends on that row alone."""
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 6), nn.Tanh(), nn.Linear(6, num_classes))


def _views(count: int, seed: int = 0) -> Views:
    random = np.random.RandomState(seed)
    images, others = (torch.from_numpy(random.randn(count, 3, 4, 4)).float() for _ in range(2))
    return Views(images, others, torch.arange(count) % 2)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0])
def test_nt_xent_by_the_equation(temperature: float) -> None:
    projections = _rows(8).double()
    loss, matched = nt_xent(projections, temperature)
    expected, near = 0.0, 0
    for i in range(8):
        mine = projections[i] / projections[i].norm()
        similar = [float(mine @ (other / other.norm())) for other in projections]
        pair = (i + 4) % 8
        total = sum(math.exp(similar[k] / temperature) for k in range(8) if k != i)
        expected -= math.log(math.exp(similar[pair] / temperature) / total) / 2
        near += max((k for k in range(8) if k != i), key=lambda k: similar[k]) == pair
    assert loss.item() == pytest.approx(expected, rel=1e-9)
    assert matched.item() == near / 2


def test_a_lone_image_has_nothing_to_differ_from() -> None:
    loss, matched = nt_xent(_rows(2), 0.5)
    assert (loss.item(), matched.item()) == (0.0, 1.0)


def test_views_are_drawn_by_seed_epoch_sample_and_view(tmp_path: Path) -> None:
    data = write_arrays(tmp_path / "data.npz", train=8, val=4)
    split = open_dataset(load_text("", "c.yaml", ["data.source.name=arrays", f"data.source.path={data}"]).run.data)
    pictures, crop = split.splits["train"], ({"random_crop": {"size": 12, "padding": 6}}, "horizontal_flip")
    task = SimCLR(setting(train=crop, eval=(), image_size=12, classes=("a", "b", "c", "d")))
    first, again = (task.arrays(pictures, 3, (0, 1, 3), train=True) for _ in range(2))
    assert first.keys() == {"image", "other", "label"}
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["image"], first["other"])
    later = task.arrays(pictures, 3, (0, 2, 3), train=True)
    assert not any(np.array_equal(first[name], later[name]) for name in ("image", "other"))
    assert task.arrays(pictures, 3, (0, -1, 3), train=False).keys() == {"image", "label"}


@pytest.mark.parametrize("kind", [SimCLR, MoCo])
def test_labels_train_the_probe_and_nothing_else(kind: Any) -> None:
    task = kind(setting(batch_size=4), dimensions=4)
    model, views = task.network(_plain()).train(), _views(4)
    for part, trained in (("probe", {"probe"}), ("contrast", {"encoder", "projection"})):
        model.zero_grad(set_to_none=True)
        task.loss(model, views)[part].backward()
        moved = {
            name.partition(".")[0]
            for name, parameter in model.named_parameters()
            if parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        }
        assert moved == trained
    model.eval()
    features = model.encoder(views.images)
    assert torch.equal(model(views.images), F.linear(features, model.probe.weight, model.probe.bias))


def test_simclr_sums_over_images() -> None:
    task = SimCLR(setting(), temperature=0.5, dimensions=4)
    model, views = task.network(_plain()).train(), _views(6)
    sums = task.loss(model, views)
    both = torch.cat([views.images, views.others])
    features = model.encoder(both)
    expected, matched = nt_xent(model.projection(features), 0.5)
    assert sums["contrast"].item() == pytest.approx(expected.item(), rel=1e-6)
    assert sums["matched"].item() == matched.item()
    labels = torch.cat([views.labels, views.labels])
    probe = F.cross_entropy(model.probe(features), labels, reduction="sum") / 2
    assert sums["probe"].item() == pytest.approx(probe.item(), rel=1e-6)


def test_moco_against_a_plain_loop() -> None:
    """Three batches of four through a queue of ten, in two micro-batches: the queue runs round, and the slow network
    follows, as in a loop that keeps a second network and a list of keys."""
    temperature, momentum, size = 0.2, 0.9, 10
    task = MoCo(setting(batch_size=4), temperature=temperature, dimensions=4, queue=size, momentum=momentum)
    torch.manual_seed(0)
    model = task.network(_plain()).train()
    names = [name for name, _ in model.named_parameters() if not name.startswith("probe")]
    slow = {name: tensor.detach().clone() for name, tensor in model.named_parameters() if name in names}
    queue, place = model.queue.clone(), 0
    order = Order(seed=0, count=12, batch_size=4, micro_batches=2)
    cpu = torch.device("cpu")
    reduction = make_reduction("exact", model, order, rank=0, world=1, device=cpu, sums=4, example=())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(3):
        views, waiting = _views(4, seed=step), []
        reduction.begin(step)
        totals = torch.zeros(())
        for micro in range(2):
            task.start = 2 * micro
            with reduction.micro_batch(micro, 2):
                seed_all(order_key(0, step, micro) >> 1, cpu)
                sums = task.loss(model, Views(*(each[2 * micro : 2 * micro + 2] for each in views)))
                (sums["contrast"] + sums["probe"]).backward()
            reduction.add(micro, [sums[name] for name in task.sums])
            totals = totals + sums["contrast"].detach()
        reduction.finish()
        now = dict(model.named_parameters())
        for name in names:
            slow[name] = momentum * slow[name] + (1 - momentum) * now[name].detach()
        with torch.no_grad():
            features = torch.tanh(F.linear(views.others.flatten(1), slow["encoder.1.weight"], slow["encoder.1.bias"]))
            hidden = F.relu(F.linear(features, slow["projection.0.weight"], slow["projection.0.bias"]))
            keys = F.normalize(F.linear(hidden, slow["projection.2.weight"], slow["projection.2.bias"]), dim=1)
            unit = F.normalize(model.projection(model.encoder(views.images)), dim=1)
            similar = torch.cat([(unit * keys).sum(1, keepdim=True), unit @ queue.T], 1) / temperature
            expected = F.cross_entropy(similar, torch.zeros(4, dtype=torch.int64), reduction="sum")
        assert totals.item() == pytest.approx(expected.item(), rel=1e-4), step
        waiting = list(keys)
        for each in waiting:  # seen by the next batch
            queue[place % size] = each
            place += 1
        optimizer.step()
    for name in names:
        torch.testing.assert_close(model.slow.get_buffer(name.replace(".", "/")), slow[name], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(F.normalize(model.incoming, dim=1), torch.stack(waiting), rtol=1e-5, atol=1e-6)
    assert model.place.item() == 8  # the last four wait


def test_batch_normalisation_sees_groups_and_keys_in_another_order() -> None:
    network = zoo.build(ModelConfig(name="tiny_cnn", args={"width": 4}), 2, 0)
    model = Momentum(network, 2, 4, 0, queue=8, batch_size=8, momentum=0.0, groups=2).train()
    images = torch.from_numpy(np.random.RandomState(0).randn(8, 3, 8, 8)).float()
    with torch.no_grad():
        halves = torch.cat([model.projected(part)[0] for part in (images[:4], images[4:])])
        found, _, keys = model(images, images)
    torch.testing.assert_close(found, halves)
    assert not torch.allclose(keys, F.normalize(halves, dim=1), atol=1e-3)  # the same weights, other neighbours


def test_what_cannot_be_pretrained() -> None:
    with pytest.raises(ConfigError, match="smaller than one batch") as caught:
        MoCo(setting(batch_size=64), queue=63)
    assert caught.value.fix == "task.args.queue=1024"
    with pytest.raises(ModelError, match="no head"):
        Projected(nn.Sequential(nn.Flatten(), nn.Tanh()), 2, 4, 0)


@pytest.mark.parametrize("name", ["simclr", "moco"])
def test_the_encoder_of_a_run_is_the_start_of_another(name: str, tmp_path: Path) -> None:
    data = write_arrays(tmp_path / "data.npz", train=32, val=8)
    before = make_job(tmp_path / "before", data, f"task.name={name}", "train.duration=2st", "data.batch_size=16")
    train(before)
    line = next(record for record in curve(tmp_path / "before") if record["kind"] == "train")
    assert line["loss"] == pytest.approx(line["contrast"] + line["probe"])
    assert 0 <= line["matched"] <= 1
    trained = open_trained(str(tmp_path / "before"))
    with pytest.raises(ConfigError, match="can be pruned"):
        prune(trained, place_of(trained, str(tmp_path / "pruned"), "pruned"), Wanted(0.5))
    with pytest.raises(ConfigError, match="can be averaged") as caught:
        average([trained, trained], place_of(trained, str(tmp_path / "averaged"), "averaged"), Averaging())
    assert (caught.value.where, caught.value.found) == ("task.name", name)
    assert not (tmp_path / "averaged").exists()
    tensors, _ = read_model(RunFolder(tmp_path / "before"))
    config = ModelConfig(name="tiny_cnn", args={"width": 8}, weights=str(tmp_path / "before"))
    model = zoo.build(config, 4, 1, load=False)
    loaded = zoo.load(config, model, ("0", "1", "2", "3"))
    assert loaded.anew
    assert "names under encoder" in loaded.notes[0]
    assert "probe" in loaded.notes[0] and "projection" in loaded.notes[0]
    assert "starts anew" in loaded.notes[1]
    state = model.state_dict()
    own = [key for key in state if not key.startswith("classifier")]
    assert all(torch.equal(state[key], tensors[f"encoder.{key}"]) for key in own)


def test_moco_is_exact_or_refused(tmp_path: Path) -> None:
    data = write_arrays(tmp_path / "data.npz", train=16, val=4)
    job = make_job(tmp_path / "run", data, "task.name=moco", "data.batch_size=16")
    assert job.plan["reduction"] == "exact"
    with pytest.raises(ConfigError, match="fast reduction would lose") as caught:
        make_job(tmp_path / "other", data, "task.name=moco", "data.batch_size=16", "train.reduction=fast")
    assert caught.value.fix == "train.reduction=exact"


def test_simclr_needs_two_images_in_a_micro_batch(tmp_path: Path) -> None:
    data = write_arrays(tmp_path / "data.npz", train=16, val=4)
    with pytest.raises(ConfigError, match="with each other") as caught:
        make_job(tmp_path / "run", data, "task.name=simclr", "data.batch_size=7", "train.micro_batches=4")
    assert (caught.value.found, caught.value.fix) == ("7 images in 4 micro-batches", "data.batch_size=128")
