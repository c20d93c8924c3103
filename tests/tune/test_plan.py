"""What `raycls search` refuses: told at its place, before Ray is started and before anything is written."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import pytest
import ray
from harness.jobs import write_arrays

from raycls.cli import app
from raycls.config.load import load
from raycls.errors import ConfigError, LaunchError
from raycls.run.folder import RunFolder
from raycls.run.storage.store import Store
from raycls.search.trials import TrialLog
from raycls.tune.plan import Search, open_search

_BASE = """\
data:
  source: {name: arrays, path: images.npz}
  image_size: 12
  batch_size: 16
  executor: inline
augment: {train: [horizontal_flip], eval: []}
model: {name: tiny_cnn, args: {width: 8}}
train: {duration: 4ep}
scale: {workers: 1}
search:
  trials: 5
"""
_SPACE = "  space:\n    optim.lr: loguniform(1e-3, 1)\n"
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAYCLS_WORKDIR", raising=False)
    write_arrays(tmp_path / "images.npz", train=40, val=8)


@pytest.fixture
def raycls(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs `raycls WORDS...` in this process: exit code, stdout, stderr."""
    monkeypatch.setattr(ray, "init", lambda *words, **more: pytest.fail("Ray was started"))

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["raycls", *words])
        with pytest.raises(SystemExit) as leaving:
            app.main()
        captured = capsys.readouterr()
        assert isinstance(leaving.value.code, int)
        assert not ray.is_initialized()
        return leaving.value.code, captured.out, captured.err

    return call


def write(text: str) -> Path:
    """The base config with `text` as the rest of its search section."""
    path = Path("search.yaml")
    path.write_text(_BASE + text)
    return path


def with_test_split() -> None:
    arrays = dict(np.load("images.npz"))
    np.savez("images.npz", **arrays, test_images=arrays["val_images"], test_labels=arrays["val_labels"])


def space(*lines: str) -> str:
    """Lines of the space, which stand at 13, 14, ... of the file."""
    return "  space:\n" + "".join(f"    {line}\n" for line in lines)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (space("optim.lrr: [0.1]"), ["search.yaml:13", "optim.lrr", "did you mean optim.lr?"]),
        (space("optim.nam: [sgd]", "optin.lr: [1]"), ["search.yaml:13", "optim.name", "search.yaml:14", "optim.lr"]),
        (space("optim.lr: [0.1, fast]"), ["search.yaml:13", "search.space.optim.lr[1]", "fast"]),
        (space("data.batch_size: uniform(8, 32)"), ["search.yaml:13", "data.batch_size", "randint(8, 32)"]),
        (space("optim.name: uniform(0, 1)"), ["search.yaml:13", "optim.name", "a range of numbers"]),
        (space("optim.lr: []"), ["search.yaml:13", "optim.lr", "empty"]),
        (space("loss.args.label_smoothing: uniform(0, 1.5)"), ["search.yaml:13", "the upper end 1.5 is outside"]),
        (space("optim.args.momentum: uniform(-0.5, 0.9)"), ["search.yaml:13", "the lower end -0.5 is outside"]),
        (space("optim.lr: loguniform(0, 1)"), ["search.yaml:13", "loguniform(0, 1)"]),
        (space("model.name: [tiny_cnn, tiny_cn]"), ["search.yaml:13", "model.name", "tiny_cn", "tiny_cnn"]),
        (
            space("model.name: [tiny_cnn, nowhere:net]"),
            ["search.yaml:13", "nowhere.py", "model.name[1]: the model 'nowhere:net'"],
        ),
        (space("model.args.with: [4, 8]"), ["search.yaml:13", "model.args", "with", "width"]),
        (
            space("model.name: [tiny_cnn, resnet18]", "model.args.width: [8, 16]"),
            ["search.yaml:13", "width", "model.name: resnet18"],
        ),
        (space("augment.train: [[horizontal_flip], [horizontal_flop]]"), ["search.yaml:13", "horizontal_flop"]),
        (space("run.seed: [1, 2]"), ["search.yaml:13", "run"]),
        (
            "  max_parameters: 100\n" + space("model.args.width: [8, 16]"),
            ["search.yaml:12  search.max_parameters", "no combination", "2 different combinations"],
        ),
        (
            "  max_flops: 1000\n  algorithm: grid\n" + space("model.args.width: [8, 16]"),
            ["search.yaml:12  search.max_flops", "no combination"],
        ),
        ("  confirm: {seeds: 1}\n" + _SPACE, ["search.yaml:12", "search.confirm.seeds"]),
        ("  target: 95\n" + _SPACE, ["search.yaml:12", "95 is never reached: top1 is a share, from 0 to 1"]),
        ("  target: -1\n  metric: loss\n" + _SPACE, ["-1 is never reached: loss is 0 or more"]),
        (
            space("optim.name: [sgd, adamw]", "optim.args.momentum: uniform(0.8, 0.99)"),
            ["search.yaml:14", "no effect beside optim.name: adamw", "optim.args.momentum: {when: {optim.name: sgd}"],
        ),
        ("", ["nothing to search", "search.space"]),
    ],
)
def test_problems_are_located_before_anything_starts(raycls: Command, text: str, words: list[str]) -> None:
    write(text)
    before = sorted(Path.cwd().iterdir())
    code, out, said = raycls("search", "search.yaml")
    assert (code, out) == (2, ""), said
    assert all(word in said for word in words), said
    assert "Traceback" not in said
    assert sorted(Path.cwd().iterdir()) == before


def test_on_the_command_line_too(raycls: Command) -> None:
    write(_SPACE)
    code, _, said = raycls("search", "search.yaml", "search.space.optim.lrr=[1]", "search.max_parameters=5")
    assert (code, "command line" in said, "optim.lrr" in said) == (2, True, True)
    code, _, said = raycls("search", "search.yaml", "search.max_parameters=5")
    assert (code, "command line  search.max_parameters" in said) == (2, True), said


def test_to_confirm_takes_a_test_split_that_nothing_else_looks_at(raycls: Command) -> None:
    write("  confirm: {seeds: 3}\n" + _SPACE)
    code, _, said = raycls("search", "search.yaml")
    assert (code, "no test split" in said, "train (40), val (8)" in said) == (3, True, True), said
    with_test_split()
    code, _, said = raycls("search", "search.yaml", "evaluate.split=test")
    assert (code, "the test split is not untouched" in said) == (2, True), said
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [("data.source.path=absent.npz", 3, "absent.npz"), ("evaluate.split=test", 3, "no test split")],
)
def test_data_that_cannot_be_had(raycls: Command, change: str, code: int, words: str) -> None:
    write(_SPACE)
    found = raycls("search", "search.yaml", change)
    assert (found[0], words in found[2]) == (code, True), found
    assert not Path("runs").exists()


def run_folder(name: str) -> RunFolder:
    return RunFolder.at("runs", name)


@pytest.mark.parametrize("file", [RunFolder.ENV, RunFolder.ATTEMPTS])
def test_the_folder_of_a_run_is_not_searched_in(raycls: Command, file: str) -> None:
    write(_SPACE)
    folder = run_folder("search")
    folder.store.write_bytes(RunFolder.CONFIG, b"# mine\n")
    folder.store.write_bytes(file, b"{}\n")
    code, _, said = raycls("search", "search.yaml")
    assert (code, "holds a run and not a search" in said, "--new" in said) == (2, True, True), said
    assert folder.store.read_bytes(RunFolder.CONFIG) == b"# mine\n"


def test_the_folder_of_a_search_is_not_trained_in(raycls: Command) -> None:
    write(_SPACE)
    start()
    files = {path: path.read_bytes() for path in Path("runs/search").iterdir()}
    code, _, said = raycls("train", "search.yaml", "scale.workers=0")
    assert (code, "holds a search and not a run" in said, "--new" in said) == (2, True, True), said
    assert {path: path.read_bytes() for path in Path("runs/search").iterdir()} == files


def test_train_says_that_it_does_not_search(raycls: Command) -> None:
    write(_SPACE)
    code, out, said = raycls("train", "search.yaml", "scale.workers=0", "train.duration=1ep")
    assert code == 0, said
    (line,) = [line for line in out.splitlines() if "search.space" in line]
    assert "not used by raycls train" in line


@contextmanager
def opened(*overrides: str, new: bool = False, said: list[str] | None = None) -> Iterator[Search]:
    notes: list[str] = [] if said is None else said
    with open_search(load("search.yaml", overrides), new=new, command=["raycls"], say=notes.append) as search:
        yield search


def start(*overrides: str) -> None:
    """The first start of a search, which was cut off after its first trial began."""
    with opened(*overrides) as search:
        search.board.start()
        search.board.next()


def test_a_first_start_writes_its_config_and_splits_and_nothing_more() -> None:
    write(_SPACE)
    with opened() as search:
        assert (search.metric, search.mode) == ("top1", "max")
        length = search.board.length({})
        assert (length.epochs, length.steps_per_epoch, length.steps) == (4, 3, 12)
        assert search.board.length({"data.batch_size": 8, "train.duration": "2ep"}).steps == 10
    assert Store("runs/search").list() == ["config.yaml", "lock", "splits.parquet"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("search.space.optim.lr=loguniform(1e-4, 1)", ["search.space", "loguniform(1e-4, 1)", "loguniform(1e-3, 1)"]),
        ("search.space.optim.args.momentum=[0.8, 0.9]", ["search.space", "optim.args.momentum"]),
        ("search.seed=1", ["search.seed"]),
        ("search.algorithm=optuna", ["search.algorithm", "random", "optuna"]),
        ("search.scheduler.reduction=2", ["search.scheduler.reduction"]),
        ("search.metric=loss", ["search.metric"]),
        ("search.max_parameters=1000000", ["search.max_parameters"]),
        ("train.duration=5ep", ["train.duration", "4ep", "5ep"]),
        ("run.seed=5", ["run.seed"]),
    ],
)
def test_a_search_that_goes_on_is_the_same_search(raycls: Command, change: str, words: list[str]) -> None:
    write(_SPACE)
    start()
    before = Store("runs/search").read_bytes(TrialLog.FILE)
    code, _, said = raycls("search", "search.yaml", change)
    assert (code, "started with another config" in said) == (2, True), said
    assert all(word in said for word in words), said
    assert Store("runs/search").read_bytes(TrialLog.FILE) == before


@pytest.mark.parametrize(
    "change",
    [
        "search.trials=50",
        "search.max_concurrent=1",
        "search.target=0.9",
        "search.budget=2h",
        "search.max_failures=7",
        "search.gpus_per_trial=0.5",
        "track.log_every=7st",
        "checkpoint.keep=5",
    ],
)
def test_how_far_a_search_goes_may_change(change: str) -> None:
    write(_SPACE)
    start()
    with opened(change) as search:
        assert list(search.board.ledger.trials) == ["0001"]


def test_new_sets_a_search_aside() -> None:
    write(_SPACE)
    start()
    said: list[str] = []
    with opened("search.seed=4", new=True, said=said) as search:
        assert not search.board.ledger.trials
    assert "search.old-1" in said[0]
    assert list(TrialLog(Store("runs/search.old-1")).trials) == ["0001"]


def test_a_second_search_in_the_same_folder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raycls.tune.plan.HANDOVER_SECONDS", 0.1)
    write(_SPACE)
    with opened(), pytest.raises(LaunchError, match="search"), opened():
        pass


def finish() -> None:
    """Every trial finished with a value each, and so did the search."""
    with opened() as search:
        board = search.board
        board.start()
        while task := board.next():
            board.judge(task.trial, step=12, epoch=4, seconds=1, values={"top1": task.number / 10})
            board.end(task.trial, state="finished", epochs=4, seconds=1)
        board.ledger.end_search(board.over)


def done(*overrides: str) -> bool:
    with opened(*overrides) as search:
        return search.is_done


def test_a_search_is_done_until_it_is_to_go_further() -> None:
    with_test_split()
    write(_SPACE)
    start()
    assert not done()
    finish()
    assert done()
    assert done("search.trials=3")
    assert done("search.target=0.5")
    assert not done("search.trials=6")
    assert not done("search.confirm.seeds=2")


def test_a_search_that_reached_its_target_goes_on_for_a_higher_one() -> None:
    write("  target: 0.25\n" + _SPACE)
    finish()
    with opened() as search:
        assert (search.is_done, search.board.ledger.end_reason, len(search.board.searched)) == (True, "target", 3)
    assert not done("search.target=0.9")
    assert not done("search.target=off")


def test_a_confirmation_is_done_when_every_repeat_has_ended() -> None:
    with_test_split()
    write("  confirm: {seeds: 2}\n" + _SPACE)
    finish()
    for name, seed, state in (("0005", 1, "finished"), ("0004", 1, "finished"), ("0005", 2, "failed")):
        with opened() as search:
            assert not search.is_done
            search.board.confirm(name, seed)
            search.board.end(f"{name}-s{seed}", state=state, epochs=4, seconds=1)
    assert not done()
    with opened() as search:
        search.board.confirm("0004", 2)
        assert not search.is_done
        search.board.end("0004-s2", state="finished", epochs=4, seconds=1)
        assert search.is_done
    assert done()


def test_rungs_of_the_plots_are_in_epochs() -> None:
    write(_SPACE)
    for grace, rungs in (("1ep", [1, 2]), ("3st", [1, 2]), ("50%", [2]), ("5m", [])):
        with opened(f"search.scheduler={{grace: {grace}, reduction: 2}}", "run.name=s" + grace[:1]) as search:
            assert search.rungs_in_epochs() == pytest.approx(rungs)


@pytest.mark.parametrize("option", ["search.metric", "evaluate.metric"])
def test_trials_are_not_compared_by_what_is_the_same_for_all(option: str) -> None:
    write(_SPACE)
    with pytest.raises(ConfigError) as caught, opened(f"{option}=top5"):
        pass
    assert caught.value.where == option and "with 4 classes" in (caught.value.found or "")
    assert f"{option}=top1" in (caught.value.fix or "")
    with opened(f"{option}=top5", f"{option}=top1") as search:  # the remedy, typed after it
        assert search.metric == "top1"


def test_options_that_cannot_act_within_a_trial_are_refused_before_any_starts() -> None:
    write(_SPACE)
    with pytest.raises(ConfigError) as caught, opened("schedule.warmup=4ep"):
        pass
    assert caught.value.where == "schedule.warmup"
    assert "12 steps" in (caught.value.found or "") and "schedule.warmup=1st" in (caught.value.fix or "")
    with opened("schedule.warmup=4ep", "schedule.warmup=1st"):
        pass
    write(space("train.duration: [2ep, 9ep]"))
    with pytest.raises(ConfigError) as caught, opened("schedule.warmup=4ep"):
        pass
    assert "search.yaml:13  search.space.train.duration" in (caught.value.where or "")
    assert "in a trial with train.duration: 2ep" in (caught.value.found or "")
    assert "out of the space" in (caught.value.fix or "")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("search.scheduler={grace: 4ep}", "grace 4ep is not below the 4 epochs of a trial: no trial is stopped early"),
        ("search.scheduler={name: median, grace: 12st}", "grace 12st is not below"),
        ("search.scheduler={grace: 100%}", "grace 100% is not below"),
        (
            "search.scheduler={name: pbt, interval: 5ep}",
            "interval 5ep is not below the 4 epochs of a trial: no trial ever",
        ),
        ("evaluate.every=4ep", "evaluate.every 4ep: trials of 4 epochs are evaluated at their end alone"),
        ("evaluate.every=12st", "evaluate.every 12st"),
        ("search.scheduler={grace: 11st}", ""),
        ("search.scheduler={grace: 1h}", ""),
        ("search.scheduler={name: none}", ""),
        ("evaluate.every=2ep", ""),
    ],
)
def test_a_scheduler_that_never_does_anything_is_told(change: str, words: str) -> None:
    write(_SPACE)
    said: list[str] = []
    with opened(change, said=said):
        assert (len(said) == 1 and words in said[0]) if words else not said, said


def test_the_command_that_holds_the_folder_is_named_while_it_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raycls.tune.plan.HANDOVER_SECONDS", 1.5)
    write(_SPACE)
    said: list[str] = []
    with opened(), pytest.raises(LaunchError, match="another process"), opened(said=said):
        pass
    assert len(said) == 1 and "waiting up to" in said[0] and f"{os.getpid()}" in said[0]


@pytest.mark.parametrize(("workers", "cut", "allowed"), [(2, "auto", False), (2, "2", True), (0, "auto", True)])
def test_trials_to_come_are_cut_as_those_before(workers: int, cut: str, allowed: bool) -> None:
    write(_SPACE)
    start(f"train.micro_batches={cut}")
    with (
        nullcontext() if allowed else pytest.raises(ConfigError, match=r"scale\.workers: 1 -> 2"),
        opened(f"train.micro_batches={cut}", f"scale.workers={workers}", "data.executor=inline"),
    ):
        pass


def test_a_space_of_one_is_one_combination() -> None:
    write(space("optim.lr: [0.1]"))
    with opened() as search:
        assert search.header("")[1] == "space      optim.lr: 1 combination"


def test_an_error_of_a_combination_names_it(raycls: Command) -> None:
    write(space("model.name: [tiny_cnn, resnet18]", "model.args: [{width: 8}, {}]"))
    code, _, said = raycls("search", "search.yaml")
    assert code == 2
    assert "in a trial with model.name: resnet18, model.args: {width: 8}" in said
    assert "search.yaml:13" in said and "search.yaml:14" in said
    with pytest.raises(ConfigError), opened():
        pass


def test_values_that_cannot_act_are_told_with_the_line_of_the_space(raycls: Command) -> None:
    write(space("augment.off_after: [50%, 99%]", "optim.ema_warmup: [ramp, off]"))
    code, _, said = raycls("search", "search.yaml", "optim.ema=0.5")
    assert (code, "search.yaml:13  search.space.augment.off_after" in said) == (2, True), said
    assert "leave such values of augment.off_after, optim.ema_warmup out of the space" in said
    assert "(in a trial with augment.off_after: 99%" in said
