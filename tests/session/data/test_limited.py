"""Few samples again and again, two steps of everything, and a trace of some steps."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path

import numpy as np
import pytest
from harness.jobs import curve, job_of, ledger, make_job, train, weights, write_arrays

from raycls.cli import app
from raycls.config import load as config
from raycls.config.load import load_text
from raycls.config.sections.optim import ScheduleConfig
from raycls.config.sections.run import Run
from raycls.data.source import open_dataset
from raycls.data.splits.limit import Limit
from raycls.errors import ConfigError, DataError, RayclsError
from raycls.launch.range_test import Range, range_test
from raycls.launch.trainer import evaluate
from raycls.run.folder import RunFolder
from raycls.screen.run import Display
from raycls.session.data import record as recorded
from raycls.session.data.limited import dev_run
from raycls.session.data.scored import find_record
from raycls.session.length.shortened import shortened

_STEPS = ("train.micro_batches=2", "data.batch_size=8", "train.duration=3ep", "track.log_every=1st")


def test_a_limit_takes_the_same_rows_for_the_same_seed() -> None:
    rows = {"train": np.arange(10, 60), "val": np.arange(5)}
    first = Limit(8, same=False).of(rows, 3)
    assert {name: len(each) for name, each in first.items()} == {"train": 8, "val": 5}
    assert set(first["train"]) < set(rows["train"])
    assert first["train"].tolist() == sorted(Limit(8, same=False).of(rows, 3)["train"])
    assert first["train"].tolist() != Limit(8, same=False).of(rows, 4)["train"].tolist()
    same = Limit(8, same=True).of(rows, 3)
    assert same["val"].tolist() == same["train"].tolist() == first["train"].tolist()


def test_more_images_by_heart_than_there_are_is_told(tmp_path: Path) -> None:
    data = config.from_dict(make_job(tmp_path / "run", write_arrays(tmp_path / "data.npz", train=60)).config).data
    assert [*open_dataset(data, Limit(61, same=True)).notes] == [
        *open_dataset(data).notes,
        "train.overfit=61: the training split has 60 images, all are trained",
    ]
    for limit in (Limit(60, same=True), Limit(61, same=False)):
        assert open_dataset(data, limit).notes == open_dataset(data).notes


def test_overfit_sees_the_same_pixels_in_every_epoch_and_evaluates_them(tmp_path: Path) -> None:
    data, folder = write_arrays(tmp_path / "data.npz", train=60), tmp_path / "run"
    options = (*_STEPS, "train.overfit=16", "train.ledger=pixels", "train.duration=40ep", "evaluate.every=40ep")
    assert train(make_job(folder, data, *options))["step"] == 80
    pixels: dict[int, set[str]] = {}
    for ids, digests in ledger(folder).values():
        for index, digest in zip(ids, digests or (), strict=True):
            pixels.setdefault(index, set()).add(digest)
    assert {len(each) for each in pixels.values()} == {1}, "some image was augmented"
    assert sorted(pixels) == list(range(16))
    record = find_record(RunFolder(folder))
    assert record is not None
    assert record.parts["train"].keys == record.parts["val"].keys
    evaluated = [line for line in curve(folder) if line["kind"] == "evaluate"][-1]
    assert evaluated["count"] == 16
    assert evaluated["top1"] == 1.0


def test_overfit_resumes_on_the_same_samples(tmp_path: Path) -> None:
    data = write_arrays(tmp_path / "data.npz", train=60)
    options = (*_STEPS, "train.overfit=16")
    train(make_job(tmp_path / "whole", data, *options, "train.duration=4ep"))
    train(make_job(tmp_path / "half", data, *options, "train.duration=3ep"))
    assert train(make_job(tmp_path / "half", data, *options, "train.duration=4ep"))["step"] == 8
    assert weights(tmp_path / "half") == weights(tmp_path / "whole")


def test_fast_dev_run_is_two_steps_in_a_folder_that_the_next_one_replaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_arrays(tmp_path / "data.npz", train=60)
    (tmp_path / "c.yaml").write_text(
        "data: {source: {name: arrays, path: data.npz}, batch_size: 8, image_size: 12}\n"
        "augment: {train: [], eval: []}\nmodel: {name: tiny_cnn, args: {width: 8}}\n"
        "train: {duration: 30ep, micro_batches: 2}\nschedule: {name: cosine, warmup: 5ep}\nscale: {workers: 0}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["raycls", "train", "c.yaml", "train.fast_dev_run=true"])
    for _ in range(2):
        with pytest.raises(SystemExit) as leaving:
            app.main()
        assert leaving.value.code == 0
        assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["c-dev"]
    folder = RunFolder(tmp_path / "runs/c-dev")
    lines = [(line["kind"], line["step"], line.get("count")) for line in curve(tmp_path / "runs/c-dev")]
    assert lines == [("train", 1, None), ("evaluate", 1, 16), ("train", 2, None), ("evaluate", 2, 16)]
    assert folder.steps() == [1, 2]
    assert len(folder.attempts()) == 1


_STAGED = "finetune.unfreeze={0ep: head, 3ep: all}"
_OF_THE_LENGTH = (
    "schedule={name: one_cycle}",
    "schedule={name: wsd, warmup: 1ep}",
    "schedule={name: step, args: {every: 10%}}",
    "schedule={name: plateau, args: {patience: 2}}",
    _STAGED,
    "augment.progressive={0%: 8, 50%: 12}",
    "augment.off_after=90%",
)
_RESIZED = "augment.train=[random_resized_crop]"


def _config(folder: Path, *options: str) -> Run:
    data = write_arrays(folder / "data.npz", train=60)
    words = (f"run.storage={folder}", "data.source.name=arrays", f"data.source.path={data}", "data.image_size=12")
    network = (
        "model.name=tiny_cnn",
        "model.args={width: 8}",
        _RESIZED,
        "augment.eval=[]",
        "scale.workers=0",
        "data.executor=inline",
    )
    return load_text("", "c.yaml", [*words, *network, "data.batch_size=8", "train.duration=30ep", *options]).run


@pytest.mark.parametrize("option", _OF_THE_LENGTH)
def test_what_is_counted_in_the_length_stands_in_no_way(option: str, tmp_path: Path) -> None:
    run = _config(tmp_path, option)
    tried = dev_run(run)
    assert train(job_of(tried))["step"] == 2
    assert {line["lr"] for line in curve(tmp_path / tried.run.name) if line["kind"] == "train"} == {run.optim.lr}
    found = range_test(run, Range(1e-4, 0.1, 10), str(tmp_path), say=lambda text: None, work=lambda now: None)
    assert (len(found.rates), found.rates[0], found.rates[-1]) == (10, pytest.approx(1e-4), pytest.approx(0.1))


def test_what_is_trained_at_the_start_is_what_is_tried(tmp_path: Path) -> None:
    values = config.from_dict(shortened(_config(tmp_path, *_OF_THE_LENGTH[3:], "search.space={optim.lr: [0.1, 0.2]}")))
    assert values.finetune.unfreeze == {"0ep": ("head",)}
    assert (values.augment.off_after, values.augment.progressive) == ("off", {})
    assert (values.schedule, values.search.space) == (ScheduleConfig(), {})
    assert values.augment.train == ("random_resized_crop",)
    frozen = _config(tmp_path, "finetune={freeze: [head], unfreeze: {3ep: head}}").finetune
    assert config.from_dict(
        shortened(_config(tmp_path, "finetune={freeze: [head], unfreeze: {3ep: head}}"))
    ).finetune == (frozen.model_copy(update={"unfreeze": {}}))


def test_a_run_that_would_train_nothing_at_first_is_still_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing is trained"):
        job_of(dev_run(_config(tmp_path, "finetune.unfreeze={3ep: all}")))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("schedule={name: one_cycle, warmup: 1ep}",), "one_cycle warms up by itself"),
        (("schedule={name: 'nowhere:shape'}",), "nowhere"),
        (("schedule={name: 'own:shape', args: {heihgt: 1}}",), "heihgt"),
        (("schedule={name: 'own:shape', args: {height: -1}}",), "a schedule gives no factor of optim.lr"),
        (("schedule={name: wsd}", "train.duration=2st"), "the duration is shorter than half a step"),
    ],
)
def test_a_schedule_that_the_whole_run_could_not_have_is_told(
    options: tuple[str, ...], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.py").write_text("def shape(steps, *, height=1.0):\n    return lambda step: height\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAYCLS_WORKDIR", raising=False)
    with pytest.raises(RayclsError) as caught:
        dev_run(_config(tmp_path, *options))
    assert words in str(caught.value)


def test_few_images_by_heart_with_sizes_over_time(tmp_path: Path) -> None:
    data = write_arrays(tmp_path / "data.npz", train=60)
    options = (*_STEPS, "train.overfit=16", _RESIZED)
    train(make_job(tmp_path / "plain", data, *options))
    train(make_job(tmp_path / "sizes", data, *options, "augment.progressive={0%: 8, 1ep: 12}"))
    assert weights(tmp_path / "sizes") == weights(tmp_path / "plain")


def test_few_rows_of_arrays_without_digests_are_scored_as_long_as_nothing_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded, "MOST_SAMPLES", 0)
    data = write_arrays(tmp_path / "data.npz", train=60)
    train(make_job(tmp_path / "run", data, *_STEPS, "train.overfit=16", "train.duration=1ep"))
    summary = evaluate(str(tmp_path / "run"), display=Display(io.StringIO()))
    assert summary["count"] == 16
    write_arrays(tmp_path / "data.npz", train=61)
    with pytest.raises(DataError, match="nothing of the split val can be scored"):
        evaluate(str(tmp_path / "run"), display=Display(io.StringIO()))


def test_a_run_that_resumes_may_be_traced(tmp_path: Path) -> None:
    data = write_arrays(tmp_path / "data.npz", train=60)
    options = (*_STEPS, "train.overfit=16", "train.duration=4ep")
    train(make_job(tmp_path / "whole", data, *options))
    train(make_job(tmp_path / "traced", data, *_STEPS, "train.overfit=16", "train.duration=2ep"))
    train(make_job(tmp_path / "traced", data, *options, "train.profile.steps=1", "train.profile.after=1"))
    assert weights(tmp_path / "traced") == weights(tmp_path / "whole")
    assert [file.name for file in (tmp_path / "traced/profile").iterdir()] == ["attempt-2-rank-0.json.gz"]


@pytest.mark.parametrize("world", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_trace_has_the_operations_of_its_steps_and_changes_no_bit(world: int, tmp_path: Path) -> None:
    data = write_arrays(tmp_path / "data.npz", train=40, val=8)
    train(make_job(tmp_path / "plain", data, *_STEPS))
    folder = tmp_path / "traced"
    options = (*_STEPS, "train.profile.steps=2", "train.profile.after=3")
    train(make_job(folder, data, *options, world=world), world)
    assert weights(folder) == weights(tmp_path / "plain")
    files = sorted((folder / "profile").iterdir())
    assert [file.name for file in files] == [f"attempt-1-rank-{rank}.json.gz" for rank in range(max(1, world))]
    for file in files:
        events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
        names = [event["name"] for event in events if event.get("ph") == "X"]
        assert [name for name in names if name.startswith("step ")] == ["step 4", "step 5"]
        assert any(name.startswith("aten::conv") for name in names)


def test_a_trace_of_more_steps_than_there_are_ends_with_the_run(tmp_path: Path) -> None:
    data = write_arrays(tmp_path / "data.npz", train=16, val=8)
    train(make_job(tmp_path / "run", data, *_STEPS, "train.profile.steps=99", "train.profile.after=4"))
    events = json.loads(gzip.decompress((tmp_path / "run/profile/attempt-1-rank-0.json.gz").read_bytes()))[
        "traceEvents"
    ]
    assert [event["name"] for event in events if str(event.get("name")).startswith("step ")] == ["step 5", "step 6"]
