"""What is refused before anything starts, and what a resumed run may change."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness.jobs import make_job, train, weights, write_arrays
from harness.plugins import user_module
from harness.tasks import arrays
from PIL import Image

from raycls.config.load import load_text
from raycls.config.sections.run import Run
from raycls.data.source import open_dataset
from raycls.errors import ConfigError, DataError, LaunchError, ModelError, RayclsError
from raycls.launch.placing.fit import check_fit, executor_of
from raycls.run.folder import RunFolder
from raycls.run.storage.lock import Lock
from raycls.session.data.unfit import tried
from raycls.session.prepare import Prepared, prepare, reduction_of

_BASE = (
    "run.name=run",
    "data.source.name=arrays",
    "data.source.path=data.npz",
    "data.image_size=12",
    "data.batch_size=16",
    "augment.train=[horizontal_flip]",
    "augment.eval=[]",
    "model.name=tiny_cnn",
    "model.args={width: 8}",
    "train.duration=2ep",
    "scale.workers=0",
)


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAYCLS_WORKDIR", raising=False)
    write_arrays(tmp_path / "data.npz", train=40, val=8)


def _run(*overrides: str) -> Run:
    return load_text("", "run.yaml", [*_BASE, *overrides]).run


def _prepare(*overrides: str, new: bool = False, said: list[str] | None = None) -> Prepared:
    notes: list[str] = [] if said is None else said
    return prepare(_run(*overrides), new=new, command=["raycls", "train"], say=notes.append)


def _begin(*overrides: str) -> Prepared:
    """A start that came to its first checkpoint."""
    prepared = _prepare(*overrides)
    prepared.folder.write_json("plan.json", prepared.plan.to_dict())
    prepared.folder.write_json(f"{prepared.folder.checkpoint(3)}/manifest.json", {})
    return prepared


def _refused(kind: type[RayclsError], *overrides: str, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        _prepare(*overrides, **options)
    return str(caught.value)


def test_a_first_start_writes_what_it_was_started_with() -> None:
    prepared = _prepare()
    assert (prepared.plan.samples, prepared.plan.steps_per_epoch, prepared.plan.total_steps) == (40, 3, 6)
    assert prepared.result is None
    environment = json.loads(Path("runs/run/env.json").read_text())
    assert environment["data"]["classes"] == ["0", "1", "2", "3"]
    assert environment["data"]["splits"] == {"train": 40, "val": 8}
    assert environment["command"] == ["raycls", "train"]
    assert load_text(Path("runs/run/config.yaml").read_text(), "config.yaml").run == _run()
    # four 3x3 convolutions to 4, 8, 16 and 32 channels, their batch norms, and 32 x 4 + 4
    assert prepared.parameters == 9 * (3 * 4 + 4 * 8 + 8 * 16 + 16 * 32) + 2 * (4 + 8 + 16 + 32) + 132


@pytest.mark.parametrize(
    ("kind", "override", "words"),
    [
        (ConfigError, "data.source.name=floder", "folder"),
        (ConfigError, "data.source.args={typo: 1}", "typo"),
        (ConfigError, "augment.train=[horizontal_flop]", "augment.train[0]"),
        (ConfigError, "augment.eval=[{resize: {sise: 3}}]", "sise"),
        (ConfigError, "model.name=tiny_cn", "tiny_cnn"),
        (ConfigError, "model.name=os:system", "os:system"),
        (ConfigError, "schedule={name: step, args: {every: 2h}}", "schedule.args.every"),
        (ModelError, "model.weights=missing.safetensors", "missing.safetensors"),
        (DataError, "data.source.path=missing.npz", "missing.npz"),
        (DataError, "evaluate.split=test", "train (40), val (8)"),
        (ConfigError, "evaluate.metric=top5", "evaluate.metric=top1"),
    ],
)
def test_refused_before_anything_is_written(kind: type[RayclsError], override: str, words: str) -> None:
    assert words in _refused(kind, override)
    assert not Path("runs").exists()


def test_options_that_cannot_act_are_refused_at_the_first_start_only() -> None:
    text = _refused(ConfigError, "schedule.warmup=2ep", "train.early_stop.patience=2")
    assert "schedule.warmup=0st train.early_stop.patience=off" in text
    assert not Path("runs").exists()
    _prepare(
        "schedule.warmup=2ep", "train.early_stop.patience=2", "schedule.warmup=0st", "train.early_stop.patience=off"
    )


def test_sizes_that_grow_are_tried_before_the_start() -> None:
    """Where an operation has a size of its own nothing grows; a size that the network cannot take is told at once."""
    grows = "augment.progressive={0%: 8, 50%: 16}"
    text = _refused(ConfigError, grows, "train.duration=4ep", "augment.train=[center_crop: {size: 8}]")
    assert "image [8, 8, 3] at 8 and at 16" in text and "augment.progressive='{}'" in text
    Path("net.py").write_text(
        "import torch\n"
        "def net(num_classes):\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, num_classes))\n"
    )
    fixed = ("model.name=net:net", "model.args={}", "evaluate.every=off")
    text = _refused(ModelError, *fixed, grows, "train.duration=4ep", "augment.train=[center_crop]")
    assert "images of 16x16 pixels" in text
    ready = _prepare(grows, "train.duration=4ep", "augment.train=[center_crop]")
    assert ready.plan.sizes == ((0, 8), (2, 16))


def test_a_metric_that_nobody_asks_may_be_any() -> None:
    assert _prepare("evaluate.metric=top5", "evaluate.every=off").plan.evaluate_every == 0


@pytest.mark.parametrize("part", ["train", "eval"])
def test_an_image_that_an_augmentation_refuses_is_named(part: str) -> None:
    said = _refused(DataError, f"augment.{part}=[{{random_crop: {{size: 99}}}}]")
    split = "val" if part == "eval" else "train"
    assert f"where: {Path('data.npz').resolve()}:{split}_images[" in said
    assert "other images fail there too" in said
    assert said.endswith("fix:   put a resize before it, or give it padding")  # and no image is to be taken out


def test_an_image_that_alone_is_too_small_may_be_left_out() -> None:
    for name in "ab":
        for number in range(5):
            Path("f", name).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (9, 9)).save(f"f/{name}/{number}.png")
    Image.new("RGB", (9, 5)).save("f/a/0.png")
    data = open_dataset(
        _run("data.source.name=folder", "data.source.path=f", "data.split={train: 1, val: 0, test: 0}").data
    ).splits["train"]
    crop = arrays(({"random_crop": {"size": 8}},))
    small = list(data.keys).index("a/0.png")
    with pytest.raises(DataError, match=r"data.source.args.ignore='?\[a/0.png\]"):
        tried(crop, data, small, 0, train=True)
    other = tried(crop, data, (small + 1) % len(data), 0, train=True)
    assert {name: array.shape for name, array in other.items()} == {"image": (8, 8, 3), "label": ()}


def test_a_transform_that_returns_no_image_is_refused_before_the_start(tmp_path: Path) -> None:
    text = "import numpy as np\n\ndef floats():\n    return lambda image: np.asarray(image) / 255\n"
    with user_module(tmp_path, "floating", text):
        said = _refused(DataError, "augment.train=['floating:floats']")
    assert "an array float64 of shape [12, 12, 3]" in said
    assert "valid: a Pillow image of mode RGB, an array [H, W, 3] uint8" in said
    assert "fix:   normalisation and conversion to float happen later" in said
    assert not Path("runs/run/config.yaml").exists()


def test_images_of_one_pixel_cannot_be_trained_alone() -> None:
    np.savez(
        "data.npz",
        train_images=np.zeros((5, 1, 1, 3), np.uint8),
        train_labels=np.arange(5) % 2,
        val_images=np.zeros((2, 1, 1, 3), np.uint8),
        val_labels=np.arange(2),
    )
    text = _refused(
        ConfigError,
        "data.batch_size=4",
        "augment.train=[]",
        "model.name=resnet18",
        "model.args={}",
        "data.image_size=32",
    )
    assert "5 samples in batches of 4" in text  # the fifth image would be alone, and batch norm needs two values
    assert not Path("runs").exists()


def test_a_model_that_fails_only_in_training_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("net.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self, num_classes):\n"
        "        super().__init__()\n"
        "        self.head = torch.nn.Linear(3, num_classes)\n"
        "    def forward(self, x):\n"
        "        if self.training:\n"
        "            raise KeyError('no such layer')\n"
        "        return self.head(x.mean((2, 3)))\n"
    )
    monkeypatch.syspath_prepend(".")
    text = _refused(ModelError, "model.name=net:Net", "model.args={}", "data.batch_size=3", "train.micro_batches=2")
    assert "KeyError: 'no such layer'" in text
    assert not Path("runs").exists()


_LOCKED = """
import threading
import torch


class Net(torch.nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
        self.head = torch.nn.Linear(4, num_classes)
        self.lock = threading.Lock()

    def forward(self, images):
        with self.lock:
            return self.head(self.body(images).mean((2, 3)))
"""


_COMPUTED = """
import torch


class Net(torch.nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.head = torch.nn.Linear(3, num_classes)
        self.scale = torch.nn.Parameter(torch.ones(1))
        self.computed = self.head.weight * self.scale  # as the old torch.nn.utils.weight_norm leaves it

    def forward(self, images):
        self.computed = self.head.weight * self.scale
        return torch.nn.functional.linear(images.mean((2, 3)), self.computed, self.head.bias)
"""


def test_a_weight_that_is_computed_is_told_although_a_forward_pass_without_gradients_hides_it(tmp_path: Path) -> None:
    with user_module(tmp_path, "computed", _COMPUTED):
        text = _refused(ModelError, "model.name=computed:Net", "model.args={}", "optim.ema=0.5")
        assert "optim.ema=off" in text
        _prepare("model.name=computed:Net", "model.args={}")


@pytest.mark.parametrize("batch", ["16", "39"])  # with 39 of 40 images, the last batch is one image alone
def test_a_model_without_a_copy_is_trained_and_not_averaged(batch: str, tmp_path: Path) -> None:
    with user_module(tmp_path, "locked", _LOCKED):
        model = ("model.name=locked:Net", "model.args={}", f"data.batch_size={batch}")
        text = _refused(ModelError, *model, "optim.ema=0.5")
        assert "optim.ema=off" in text
        assert "locked:Net" in text
        assert not Path("runs").exists()
        _prepare(*model, "optim.ema=off")
        job = make_job(Path("runs/other").absolute(), Path("data.npz"), *model, "train.duration=1ep")
        assert train(job)["state"] == "done"


def test_the_same_config_goes_on() -> None:
    first, second = _begin(), _prepare()
    assert second.plan == first.plan


@pytest.mark.parametrize(
    "override",
    [
        "data.executor=processes",
        "data.processes=1",
        "data.prefetch=9",
        "train.budget=1h",
        "scale.cpus_per_worker=0.5",
        "scale.max_failures=0",
        "checkpoint.every=1st",
        "checkpoint.keep=5",
        "track.log_every=2st",
        "track.print_every=5s",
        "scale.workers=1",
    ],
)
def test_harmless_changes_are_accepted(override: str) -> None:
    first = _begin()
    assert _prepare(override).plan.order == first.plan.order


@pytest.mark.parametrize(
    ("override", "shown"),
    [
        ("optim.lr=0.2", "optim.lr: 0.1 -> 0.2"),
        ("run.seed=5", "run.seed: 0 -> 5"),
        ("data.batch_size=8", "data.batch_size: 16 -> 8"),
        ("scale.threads=2", "scale.threads: 1 -> 2"),
        ("train.reduction=fast", "train.reduction: auto -> fast"),
        ("model.args.width=16", "model.args.width: 8 -> 16"),
        ("train.duration=1ep", "train.duration: 2ep -> 1ep"),
        ("augment.train=[]", "augment.train"),
    ],
)
def test_a_changed_config_is_refused_with_the_difference(override: str, shown: str) -> None:
    _begin()
    before = Path("runs/run/config.yaml").read_bytes()
    text = _refused(ConfigError, override, "scale.max_failures=1")
    assert shown in text
    assert "max_failures" not in text  # harmless, so no part of what is refused
    assert "--new" in text
    assert Path("runs/run/config.yaml").read_bytes() == before


def test_new_keeps_the_old_run() -> None:
    folder = Path("runs/run")
    train(_job(folder))
    old = weights(folder)
    said: list[str] = []
    prepared = _prepare("run.seed=5", new=True, said=said)
    assert prepared.result is None
    assert weights(Path("runs/run.old-1")) == old
    assert "run.old-1" in said[0]
    assert load_text((folder / "config.yaml").read_text(), "config.yaml").run.run.seed == 5
    assert not (folder / "checkpoints").exists()
    _prepare("run.seed=6", new=True, said=said)
    assert Path("runs/run.old-2/config.yaml").exists()


def test_new_refused_keeps_the_run_where_it_is() -> None:
    _prepare()
    _refused(DataError, "data.source.path=missing.npz", new=True)
    assert Path("runs/run/config.yaml").exists()
    assert not Path("runs/run.old-1").exists()


def _job(folder: Path) -> Any:
    return make_job(folder.absolute(), Path("data.npz"), "train.duration=1ep", "data.batch_size=16")


def test_other_classes_are_refused() -> None:
    _begin()
    write_arrays(Path("data.npz"), train=40, val=8, classes=5)
    text = _refused(DataError)
    assert "5 classes; new: 4" in text
    assert "4 classes: 0, 1, 2, 3" in text


@pytest.mark.parametrize("count", [39, 41])
def test_other_data_is_refused(count: int) -> None:
    _begin()
    write_arrays(Path("data.npz"), train=count, val=8)
    assert "files were added, removed or relabelled" in _refused(DataError)


def test_relabelled_data_is_refused() -> None:
    _begin()
    arrays = dict(np.load("data.npz"))
    arrays["train_labels"][[0, 1]] = arrays["train_labels"][[1, 0]]
    np.savez("data.npz", **arrays)
    assert "relabelled" in _refused(DataError)


def test_micro_batches_stay_what_they_were() -> None:
    folder = Path("runs/run").absolute()
    train(make_job(folder, Path("data.npz"), "train.duration=1ep", world=2), 2)
    assert json.loads((folder / "plan.json").read_text())["micro_batches"] == 2
    with pytest.raises(ConfigError, match="more workers than this run has micro-batches"):
        make_job(folder, Path("data.npz"), "train.duration=1ep", world=3)
    for world in (0, 1):
        assert make_job(folder, Path("data.npz"), "train.duration=1ep", world=world).plan["micro_batches"] == 2


@pytest.mark.parametrize("file", ["model.safetensors", "model.json"])
def test_a_finished_run_has_a_result(file: str) -> None:
    folder = Path("runs/run").absolute()
    train(_job(folder))
    run = load_text((folder / "config.yaml").read_text(), "config.yaml").run
    result = prepare(run, new=False, command=[], say=print).result
    assert result is not None
    assert (result["state"], result["step"]) == ("done", 3)
    (folder / "model" / file).unlink()
    assert prepare(run, new=False, command=[], say=print).result is None  # it is trained to its end again


def test_a_split_that_the_data_leaves_nothing_to_cut_for_is_told() -> None:
    def said(*overrides: str) -> list[str]:
        notes: list[str] = []
        _prepare(*overrides, said=notes)
        return notes

    halves = "data.split={train: 0.5, val: 0.5, test: 0}"
    assert said(halves) == ["data.split is not used: the data has splits of its own (train, val)"]
    assert said() == []
    with np.load("data.npz") as arrays:
        flat = {"images": arrays["train_images"], "labels": arrays["train_labels"]}
        trained = {name: arrays[name] for name in ("train_images", "train_labels")}
    np.savez("data.npz", **flat)
    assert said(halves) == []
    np.savez("data.npz", **trained)
    assert said(halves) == []  # val is cut from train


def test_a_start_without_a_checkpoint_binds_nothing() -> None:
    """A first start that failed, for example because it did not fit, may be corrected under its own name."""
    folder = Path("runs/run")
    prepared = _prepare("train.micro_batches=2")
    prepared.folder.write_json("plan.json", {**prepared.plan.to_dict(), "device": "cuda"})
    prepared.folder.begin_attempt(0, 1)
    write_arrays(Path("data.npz"), train=40, val=8, classes=5)
    again = _prepare("run.seed=3", "optim.lr=0.2", "scale.workers=3")
    assert (again.plan.seed, again.plan.micro_batches) == (3, 3)
    assert load_text((folder / "config.yaml").read_text(), "config.yaml").run == again.run
    assert len(json.loads((folder / "env.json").read_text())["data"]["classes"]) == 5
    assert not (folder / "plan.json").exists()


def test_a_start_under_way_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before its first checkpoint a run looks as if it had not begun; whoever trains holds the lock."""
    monkeypatch.setattr("raycls.session.prepare.HANDOVER_SECONDS", 0.0)
    prepared = _prepare()
    with Lock(prepared.folder, "train"):
        assert "another process is using this run folder" in _refused(LaunchError, "run.seed=3")
    assert load_text(Path("runs/run/config.yaml").read_text(), "config.yaml").run == prepared.run


def test_a_start_that_was_cut_off_early_is_a_first_start() -> None:
    """Killed between the two files of a first start."""
    _prepare()
    os.remove("runs/run/config.yaml")
    assert _prepare("run.seed=3").plan.seed == 3


def _fits(run: Run, *nodes: dict[str, float], device: str = "cpu", executor: str = "ray") -> bool:
    try:
        check_fit(run, nodes, device, executor)
    except LaunchError:
        return False
    return True


def test_what_cannot_fit_is_refused_with_the_numbers() -> None:
    run = _run("scale.workers=4", "scale.cpus_per_worker=1", "train.micro_batches=4")
    with pytest.raises(LaunchError, match=r"1 x \(4 CPUs\): room for 3 of 4 workers"):
        check_fit(run, [{"CPU": 4.0}], "cpu", "ray")
    assert _fits(run, {"CPU": 5.0})
    assert _fits(run, {"CPU": 4.0}, executor="inline")
    with pytest.raises(LaunchError, match="2 GPUs for 4 workers"):
        check_fit(run, [{"CPU": 64.0, "GPU": 2.0}], "cuda", "inline")
    assert _fits(run, {"CPU": 64.0, "GPU": 4.0}, device="cuda")
    assert RunFolder("runs/run").store.exists() is False


def test_a_worker_needs_its_share_on_one_node() -> None:
    run = _run("scale.workers=2", "scale.cpus_per_worker=2")
    with pytest.raises(LaunchError, match=r"4 x \(1 CPUs\): room for 0 of 2 workers"):
        check_fit(run, [{"CPU": 1.0}] * 4, "cpu", "inline")
    assert _fits(run, {"CPU": 3.0}, {"CPU": 3.0}, executor="inline")
    assert _fits(run, {"CPU": 3.0}, {"CPU": 3.0})  # the third CPU of either one decodes
    assert not _fits(run, {"CPU": 2.0}, {"CPU": 2.0})  # nothing is left to decode
    assert _fits(run, {"CPU": 2.0}, {"CPU": 2.0}, {"CPU": 1.0})
    assert not _fits(run)


def test_a_worker_needs_its_gpu_beside_its_cpus() -> None:
    run = _run("scale.workers=2", "scale.cpus_per_worker=2")
    assert not _fits(run, {"CPU": 8.0}, {"CPU": 2.0, "GPU": 2.0}, device="cuda", executor="inline")
    assert not _fits(run, {"CPU": 8.0, "GPU": 1.0}, {"CPU": 1.0, "GPU": 1.0}, device="cuda", executor="inline")
    assert _fits(run, {"CPU": 2.0, "GPU": 1.0}, {"CPU": 2.0, "GPU": 1.0}, device="cuda", executor="inline")


def test_one_processor_is_enough_for_small_shares() -> None:
    assert _fits(_run("scale.workers=2"), {"CPU": 1.0})


@pytest.mark.parametrize(
    ("overrides", "executor"),
    [
        (("scale.workers=0",), "inline"),
        (("scale.workers=2",), "ray"),
        (("scale.workers=2", "data.executor=inline"), "inline"),
        (("scale.workers=0", "data.executor=processes"), "processes"),
    ],
)
def test_executor_that_auto_means(overrides: tuple[str, ...], executor: str) -> None:
    assert executor_of(_run(*overrides)) == executor


def test_reduction_that_auto_means() -> None:
    assert [reduction_of(_run(), device) for device in ("cpu", "cuda")] == ["exact", "fast"]
    assert reduction_of(_run("train.reduction=fast"), "cpu") == "fast"
