from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from harness.streams import Terminal

from raycls.config.names.metrics import Metric
from raycls.progress import Progress, Steps
from raycls.run.ledgers.sample_ledger import LedgerReport
from raycls.run.outcome import Outcome
from raycls.screen.activity import Activity, Pace, Speed
from raycls.screen.run import Display
from raycls.screen.run_text import clock_text, ending_lines, header_lines, ledger_lines, number_text
from raycls.screen.trained.summary_text import summary_lines
from raycls.tasks.classification import summarise

INFO = {
    "folder": "runs/pets",
    "source": "folder data/pets",
    "classes": 2,
    "splits": {"train": 3000, "val": 500},
    "model": "resnet18",
    "parameters": 11_177_538,
    "workers": 2,
    "threads": 1,
    "executor": "ray",
    "device": "cpu",
    "precision": "bf16",
    "reduction": "exact",
    "batch_size": 64,
    "micro_batches": 2,
    "steps_per_epoch": 1000,
    "total_steps": 5000,
    "start_step": 0,
}


def ended(state: str = "done", **facts: Any) -> Outcome:
    best = {"step": 4000, "metric": "top1", "value": 0.95678}
    common = {"folder": "runs/pets", "step": 5000, "epochs": 5.0, "best": best, "final": None}
    return Outcome(state, **{**common, "exit_code": 0, "seconds": 3725.2, **facts})


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def train_record(step: int, time: float) -> dict[str, Any]:
    return {
        "kind": "train",
        "step": step,
        "epoch": step / 1000,
        "loss": 0.123456,
        "top1": 0.91239,
        "lr": 0.01,
        "images_per_second": 512.4,
        "data_wait": 0.034,
        "time": time,
    }


def evaluation(step: int, time: float) -> dict[str, Any]:
    return {
        "kind": "evaluate",
        "split": "val",
        "step": step,
        "epoch": step / 1000,
        "loss": 0.2,
        "top1": 0.9,
        "time": time,
    }


def show(display: Display, clock: Clock, *, seconds_per_step: float, log_every: int) -> None:
    """Five epochs of 1,000 steps, as a driver would show them."""
    with display:
        display.start(INFO)
        for step in range(1, 5001):
            clock.now += seconds_per_step
            if step % log_every == 0:
                display.trained(train_record(step, clock.now))
            if step % 1000 == 0:
                display.evaluated(evaluation(step, clock.now))
        display.finish(ended())


@pytest.mark.parametrize("seconds_per_step", [0.001, 0.1])
def test_five_epochs_of_minutes_take_fewer_than_40_lines(seconds_per_step: float) -> None:
    stream, clock = io.StringIO(), Clock()
    show(Display(stream, 30.0, clock), clock, seconds_per_step=seconds_per_step, log_every=1)
    lines = stream.getvalue().splitlines()
    assert len(lines) < 40
    assert sum("| val" in line for line in lines) == 5


def test_progress_lines_come_between_slow_evaluations_and_not_between_fast_ones() -> None:
    slow, fast = io.StringIO(), io.StringIO()
    for stream, seconds in ((slow, 1.0), (fast, 0.001)):
        clock = Clock()
        show(Display(stream, 300.0, clock), clock, seconds_per_step=seconds, log_every=50)
    progress = [line for line in slow.getvalue().splitlines() if line.startswith("epoch") and "| val" not in line]
    # every 300 seconds of one step each, counted anew from each evaluation
    assert [line.split()[3] for line in progress[:5]] == ["300/5000", "600/5000", "900/5000", "1300/5000", "1600/5000"]
    assert len(progress) == 15
    assert not [line for line in fast.getvalue().splitlines() if line.startswith("epoch") and "| val" not in line]


def told(
    display: Display,
    phase: str,
    done: int | None = None,
    total: int | None = None,
    unit: str = "",
    *,
    waits: bool = False,
    **steps: Any,
) -> None:
    """What the first worker says of itself."""
    display.tell(Progress(phase, done, total, unit), waits=waits, steps=Steps(**steps) if steps else None)


def test_plain_lines_come_at_every_interval_whatever_goes_on() -> None:
    """31 steps of 7 seconds and nothing in the history, as on a slow machine with `track.log_every` of 50 steps."""
    stream, clock = io.StringIO(), Clock()
    display = Display(stream, 30.0, clock)
    display.tell(Progress("starting Ray"))
    for _ in range(31):
        clock.now += 1
        display.tick()
    display.start({"steps_per_epoch": 31, "total_steps": 31})
    began = len(stream.getvalue().splitlines())
    for second in range(71):
        step = second // 7
        counts = {"step": step, "images": step * 64, "waited": step * 0.7, "time": 5000.0 + step * 7}
        told(display, "training", step, 31, "steps", **counts)
        clock.now += 1
        display.tick()
    told(display, "evaluating", 0, 500, "images")
    clock.now += 19
    told(display, "evaluating", 190, 500, "images")
    clock.now += 1
    display.tick()
    told(display, "evaluating", 200, 500, "images", waits=True)
    clock.now += 30
    display.tick()
    lines = stream.getvalue().splitlines()
    assert lines[0] == "starting Ray for 30 s"
    # 64 images in 7 s; after 29 s (4 steps) 27 of 7 s are left, of which one has been under way for a second
    assert lines[began:] == [
        "epoch 0.129/1  step 4/31  | 9.1 images/s  data-wait 10%  ETA 0:03:07",
        "epoch 0.2581/1  step 8/31  | 9.1 images/s  data-wait 10%  ETA 0:02:37",
        "epoch 0.3226/1  step 10/31  evaluating: 190/500 images (38%), 10 images/s, 0:00:30 left",
        "epoch 0.3226/1  step 10/31  waiting for data for 30 s",
    ]


def test_a_plain_line_about_the_same_step_as_before_says_for_how_long() -> None:
    stream, clock = io.StringIO(), Clock()
    display = Display(stream, 30.0, clock)
    display.start({"steps_per_epoch": 10, "total_steps": 10})
    told(display, "training", 4, 10, "steps", step=4, images=8, waited=0.0, time=50.0)
    for _ in range(2):
        clock.now += 30
        display.tick()
    assert stream.getvalue().splitlines()[-2:] == [
        "epoch 0.4/1  step 4/10",
        "epoch 0.4/1  step 4/10  step 5 for 0:01:00",
    ]


def test_a_live_display_comes_back_for_what_follows_a_run(terminal: Terminal) -> None:
    """The evaluation of `raycls demo`, after the end of its training was told."""
    with Display(terminal) as display:
        display.start(INFO)
        display.finish(ended())
        told_before = len(terminal.getvalue())
        display.tell(Progress("evaluating", 90, 180, "images"))
    after = terminal.getvalue()[told_before:]
    assert "evaluating: 90/180 images (50%)" in after and "steps" not in after
    assert after.rfind("\x1b[?25h") > after.rfind("\x1b[?25l") >= 0


def test_a_message_that_a_record_overtook_takes_nothing_back() -> None:
    display = Display(io.StringIO(), 1e9, Clock())
    display.start(INFO)
    display.trained(train_record(50, 100.0))
    display.trained(train_record(100, 150.0))
    told(display, "waiting until the checkpoint is written", step=99, images=9, waited=0.0, time=149.0)
    assert display.eta == 4900.0
    display.resumed(50, "workers were lost; resuming from step 50")
    assert display.eta is None
    told(display, "training", 51, 5000, "steps", step=51, images=1, waited=0.0, time=300.0)
    told(display, "training", 52, 5000, "steps", step=52, images=2, waited=0.0, time=302.0)
    assert display.eta == 4948 * 2


def test_interval_is_the_least_time_between_two_progress_lines() -> None:
    stream, clock = io.StringIO(), Clock()
    display = Display(stream, 60.0, clock)
    display.start({**INFO, "steps_per_epoch": 10, "total_steps": 5000})
    before = len(stream.getvalue().splitlines())
    for step in range(1, 13):
        clock.now += 25
        display.trained(train_record(step, clock.now))
    lines = stream.getvalue().splitlines()[before:]
    assert [line.split()[3] for line in lines] == ["3/5000", "6/5000", "9/5000", "12/5000"]


def test_header_says_what_the_run_is() -> None:
    stream = io.StringIO()
    Display(stream).start(INFO)
    assert stream.getvalue().splitlines() == [
        "run        runs/pets",
        "data       folder data/pets, 2 classes, 3000 train, 500 val",
        "model      resnet18, 11.2 M parameters",
        "workers    2 on Ray, 1 thread each, cpu, executor ray",
        "arithmetic precision bf16, reduction exact, batch 64 in 2 micro-batches",
        "steps      5000, 1000 per epoch",
    ]


def test_header_says_that_val_is_not_the_datas_own() -> None:
    splits = {"train": 933, "val": 267, "test": 300}
    info = {"splits": splits, "cut_from_train": True, "left_out": {"val": 1}}
    assert header_lines(info) == [
        "data       933 train, 267 val (cut from its train by data.split) (1 left out), 300 test"
    ]
    assert header_lines({"splits": splits, "cut_from_train": False}) == ["data       933 train, 267 val, 300 test"]


def test_header_and_end_of_images_by_heart_say_that_every_split_is_these() -> None:
    info = {"splits": dict.fromkeys(("train", "val", "test"), 8), "cut_from_train": True, "overfit": True}
    assert header_lines(info) == ["data       8 train, the same images as val and test (train.overfit)"]
    stream = io.StringIO()
    Display(stream).finish(ended("already"), info["splits"], overfit=True)
    for lines in (ending_lines(ended(), info), stream.getvalue().splitlines()):
        assert [line[11:].partition("    # ")[0] for line in lines[-2:]] == [
            "raycls eval runs/pets --split train",
            "raycls train runs/pets/config.yaml run.name=NAME train.overfit=off",
        ]


def test_one_epoch_of_one_step_is_no_plural() -> None:
    assert ending_lines(ended(step=1, epochs=1.0), {})[0] == "done: 1 epoch, 1 step, 1:02:05 in this start"


def test_header_without_ray_and_of_a_resumed_run() -> None:
    stream = io.StringIO()
    Display(stream).start({"workers": 0, "threads": 2, "total_steps": 10, "start_step": 4})
    assert stream.getvalue().splitlines() == [
        "workers    in this process, no Ray, 2 threads",
        "steps      10; resumed at step 4",
    ]


def test_an_evaluation_line_has_every_number() -> None:
    stream, clock = io.StringIO(), Clock()
    display = Display(stream, 1e9, clock)
    display.start(INFO)
    display.trained(train_record(900, 100.0))
    display.trained(train_record(1000, 150.0))  # 0.5 s per step: 4000 steps are left
    display.evaluated({**evaluation(1000, 150.0), "best": True})
    assert stream.getvalue().splitlines()[-1] == (
        "epoch 1/5  step 1000/5000  train loss 0.1235  top1 0.9124  lr 0.01  | val loss 0.2  top1 0.9000  (best)"
        "  | 512 images/s  data-wait 3%  ETA 0:33:20"
    )


@pytest.mark.parametrize(
    ("metric", "numbers"),
    [
        ("top1", "loss 0.2  top1 0.9000"),
        ("loss", "loss 0.2  top1 0.9000"),
        ("top5", "loss 0.2  top1 0.9000  top5 0.9900"),
        ("f1_macro", "loss 0.2  top1 0.9000  f1_macro 0.8123"),
    ],
)
def test_the_metric_that_decides_is_shown(metric: str, numbers: str) -> None:
    scores = {"split": "val", "loss": 0.2, "top1": 0.9, "top5": 0.99, "f1_macro": 0.81234}
    stream = io.StringIO()
    display = Display(stream)
    display.evaluated({**evaluation(1000, 150.0), **scores, "best": True}, metric)
    assert f"| val {numbers}  (best)" in stream.getvalue()
    best = {"step": 4000, "split": "val", "metric": metric, "value": 0.5}
    assert f"last       val {numbers}" in ending_lines(ended(best=best, final=scores), INFO)


def test_the_numbers_of_another_task_are_shown_by_its_names_and_ranges() -> None:
    info = {"measured": ("pixels",), "metrics": {"dice": Metric("max", 0.0, 1.0), "distance": Metric("min")}}
    stream = io.StringIO()
    display = Display(stream, 1e9)
    display.start(info)
    display.trained({"step": 4, "epoch": 1.0, "time": 1.0, "loss": 1.5, "pixels": 0.96961, "bce": 0.5})
    scores = {"step": 4, "epoch": 1.0, "split": "val", "dice": 0.5, "distance": 148.0}
    display.evaluated({**scores, "time": 1.0, "best": True}, "distance")
    assert "train loss 1.5  pixels 0.9696  | val dice 0.5000  distance 148  (best)" in stream.getvalue()
    kept = {"asked": "last", "name": "last", "step": 4}
    lines = ending_lines(ended(step=4, best=None, final=scores, kept=kept), info)
    assert "kept       last: step 4, val dice 0.5000" in lines


def test_losses_that_are_not_finite_are_shown_as_history_writes_them() -> None:
    stream = io.StringIO()
    display = Display(stream, 0.0)
    display.evaluated({"step": 1, "epoch": 1.0, "time": 1.0, "split": "val", "loss": "nan", "top1": 0.1})
    assert "val loss nan" in stream.getvalue()


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (
            ended(final={"split": "val", "loss": 0.2, "top1": 0.95}),
            [
                "done: 5 epochs, 5,000 steps, 1:02:05 in this start",
                "best       top1 0.9568 at step 4000",
                "last       val loss 0.2  top1 0.9500",
                "run folder runs/pets",
                "next       raycls eval runs/pets",
                "           raycls train runs/pets/config.yaml run.name=NAME optim.lr=LR    # a variation",
            ],
        ),
        (
            ended("stopped", step=70, epochs=0.07, best=None),
            [
                "stopped after a checkpoint: 0.07 epochs, 70 steps, 1:02:05 in this start",
                "run folder runs/pets",
                "next       raycls train pets.yaml 'a b=1'    # resumes from step 70",
            ],
        ),
    ],
)
def test_the_end_names_the_next_command(outcome: Outcome, expected: list[str]) -> None:
    stream = io.StringIO()
    display = Display(stream)
    display.start({"command": ["raycls", "train", "pets.yaml", "--new", "a b=1"]})  # which is not repeated
    display.finish(outcome)
    assert stream.getvalue().splitlines() == expected


@pytest.mark.parametrize(
    ("splits", "command"),
    [
        ({"train": 9, "test": 1}, "raycls eval runs/pets --split test"),
        ({"train": 9, "val": 1}, "raycls eval runs/pets"),
    ],
)
def test_the_next_command_names_no_split_that_the_data_lacks(splits: dict[str, int], command: str) -> None:
    lines = ending_lines(ended(), {"splits": splits})
    assert f"next       {command}" in lines
    stream = io.StringIO()
    Display(stream).finish(ended("already"), splits)  # typed again: no header
    assert f"next       {command}" in stream.getvalue().splitlines()


def test_a_problem_in_a_record_is_not_silenced() -> None:
    with pytest.raises(ValueError, match="could not convert"):
        Display(io.StringIO()).evaluated({"step": 1, "time": 1.0, "epoch": "first"})


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "150")
    yield Terminal()


def test_the_live_display_shows_progress_and_gives_the_terminal_back(terminal: Terminal) -> None:
    with Display(terminal) as display:
        display.start(INFO)
        display.event("[not markup]")
        display.trained(train_record(500, 10.0))
        display.trained(train_record(1000, 20.0))
        display.evaluated(evaluation(1000, 20.0))
        display.finish(ended())
    text = terminal.getvalue()
    for part in ("run        runs/pets", "[not markup]", "1000/5000", "val loss 0.2", "best       top1 0.9568"):
        assert part in text
    assert text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l") >= 0  # the cursor is visible again


def test_pace_forgets_what_was_before_a_step_back() -> None:
    pace = Pace()
    for now, step in ((0.0, 10), (100.0, 20), (110.0, 15), (111.0, 16), (113.0, 18)):
        pace.add(now, step)
    assert pace.seconds_per_step == 1.0


def test_pace_is_that_of_the_later_half() -> None:
    """1,000 s of one step per second, then 1,000 s of four: the first half is forgotten, not the last seconds alone."""
    pace = Pace()
    for second in range(2001):
        pace.add(float(second), second + 3 * max(0, second - 1000))
    assert pace.seconds_per_step == pytest.approx(0.25, rel=0.02)
    for second in range(2001, 2011):  # ten slow seconds are a hundredth of it
        pace.add(float(second), 5000 + second - 2000)
    assert pace.seconds_per_step == pytest.approx(0.25, rel=0.02)


def test_speed_is_that_of_the_last_seconds() -> None:
    speed = Speed()
    assert speed.now == {}
    for second in range(21):  # 10 images a second, then 30, with a fifth of the time spent waiting
        speed.add(100.0 + second, 10 * second + 20 * max(0, second - 10), 0.2 * second)
    assert speed.now["images_per_second"] == 30.0
    assert speed.now["data_wait"] == pytest.approx(0.2)
    speed.add(200.0, 8, 0.0)  # another group of workers counts from its own start
    assert speed.now == {}


@pytest.mark.parametrize(
    ("told", "seconds", "text"),
    [
        ([Progress("starting Ray")], 1.9, "starting Ray"),
        ([Progress("starting Ray")], 5, "starting Ray for 5 s"),
        ([Progress("starting Ray")], 75, "starting Ray for 0:01:15"),
        ([Progress("looking for images", 1_234_567, unit="files")], 1, "looking for images: 1,234,567 files"),
        (
            [Progress("downloading a.pth", 0, 46_830_571, "bytes")],
            3,
            "downloading a.pth: 0 bytes of 44.7 MiB (0%), for 3 s",
        ),
        ([Progress("training", 12, 31, "steps")], 1, "step 13"),
        ([Progress("training", 12, 31, "steps")], 5, "step 13 for 5 s"),
    ],
)
def test_what_is_going_on_in_words(told: list[Progress], seconds: float, text: str) -> None:
    clock = Clock()
    activity = Activity(clock)
    for progress in told:
        activity.tell(progress)
    clock.now += seconds
    assert activity.text == text


def test_the_rate_and_the_rest_of_a_download() -> None:
    clock = Clock()
    activity = Activity(clock)
    for mebibytes in (0, 4, 8):  # 2 MiB/s of 20 MiB
        activity.tell(Progress("downloading", mebibytes << 20, 20 << 20, "bytes"))
        clock.now += 2
    clock.now -= 1
    assert activity.text == "downloading: 8.0 MiB of 20.0 MiB (40%), 2.0 MiB/s, 0:00:05 left"
    clock.now += 9
    assert activity.text == "downloading: 8.0 MiB of 20.0 MiB (40%), 2.0 MiB/s, last news 10 s ago"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00:00"), (59.6, "0:01:00"), (3725, "1:02:05"), (90061, "1d 1:01:01"), (None, "-")]
)
def test_clock_text(seconds: float | None, text: str) -> None:
    assert clock_text(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(900, "900"), (411_600, "412 k"), (25_557_032, "25.6 M")])
def test_number_text(count: int, text: str) -> None:
    assert number_text(count) == text


_BEST = {"step": 240, "split": "val", "metric": "top1", "value": 0.99721, "top1": 0.99721, "loss": 0.1}
_LAST = {"step": 300, "split": "val", "top1": 0.99443, "loss": 0.2}


@pytest.mark.parametrize(
    ("name", "step", "best", "final", "line"),
    [
        ("best", 240, _BEST, _LAST, "best: step 240, val top1 0.9972 (last: step 300, 0.9944)"),
        ("best", 300, {**_BEST, "step": 300}, {**_LAST, "top1": 0.99721}, "best and last: step 300, val top1 0.9972"),
        ("best", 240, _BEST, {**_LAST, "step": 280}, "best: step 240, val top1 0.9972 (last: step 300, not evaluated)"),
        ("last", 300, _BEST, _LAST, "last: step 300, val top1 0.9944 (best: step 240, 0.9972)"),
        ("last", 300, None, None, "last: step 300, not evaluated"),
        (
            "best",
            240,
            {**_BEST, "metric": "loss", "value": 0.1},
            _LAST,
            "best: step 240, val loss 0.1 (last: step 300, 0.2)",
        ),
    ],
)
def test_the_end_says_which_weights_are_kept_and_what_each_scores(
    name: str, step: int, best: dict | None, final: dict | None, line: str
) -> None:
    outcome = ended(step=300, best=best, final=final, kept={"asked": "best", "name": name, "step": step})
    lines = ending_lines(outcome, INFO)
    assert f"kept       {line}" in lines
    assert not any(text.startswith("best ") for text in lines) and len(lines) <= 7


def test_the_end_says_why_the_best_weights_are_not_kept() -> None:
    kept = {"asked": "best", "name": "last", "step": 300, "reason": "no evaluation gave a best one"}
    lines = ending_lines(ended(step=300, best=None, final=_LAST, kept=kept), INFO)
    assert "kept       last: step 300, val top1 0.9944; no evaluation gave a best one" in lines


@pytest.mark.parametrize(
    ("weights", "line"),
    [
        ({"name": "best", "step": 240}, "weights    best, step 240"),
        ({"name": "step-240", "step": 240}, "weights    step-240"),
        ({"name": "", "step": None}, None),
    ],
)
def test_summary_lines_name_the_weights(weights: dict, line: str | None) -> None:
    summary = summarise(np.array([[3, 1], [0, 4]]), loss_sum=4.0, top5=8, classes=("cat", "dog"))
    lines = summary_lines({"weights": weights, "split": "test", **summary})
    assert [text for text in lines if text.startswith("weights")] == ([line] if line else [])


def test_summary_lines_name_each_class() -> None:
    summary = summarise(np.array([[3, 1], [0, 4]]), loss_sum=4.0, top5=8, classes=("cat", "dog"))
    lines = summary_lines({"split": "test", **summary})
    assert summary_lines({"split": "all", **summary})[0] == "8 images"
    assert summary_lines({"split": "all", "trained_on": 0, **summary})[1] == "loss       0.500000"
    told = summary_lines({"split": "all", "trained_on": 3, **summary})[1]
    assert told == "trained on 3 of these 8 images: the numbers are too good for these"
    assert lines[:3] == ["split test, 8 images", "loss       0.500000", "top1       0.8750"]
    assert lines[3].split() == ["precision", "recall", "f1", "images"]
    assert lines[4].startswith("macro (2 of 2 classes) ")
    # cat: 3 of 3 predicted, 3 of 4 there; dog: 4 of 5 predicted, 4 of 4 there
    assert lines[-2].split() == ["cat", "1.0000", "0.7500", "0.8571", "4"]
    assert lines[-1].split() == ["dog", "0.8000", "1.0000", "0.8889", "4"]


@pytest.mark.parametrize(("size", "shown"), [(5, False), (6, True)])
def test_top5_of_five_classes_is_always_1_and_not_shown(size: int, shown: bool) -> None:
    classes = tuple(f"class {index}" for index in range(size))
    lines = summary_lines(summarise(np.eye(size, dtype=int), loss_sum=4.0, top5=size, classes=classes))
    assert any(line.startswith("top5") for line in lines) == shown


def test_the_result_of_a_task_that_is_no_classification_is_its_numbers() -> None:
    lines = summary_lines({"split": "test", "count": 4, "loss": 0.25, "error": 0.5, "cells": [1, 2]})
    assert lines == ["split test, 4 images", "loss       0.250000", "error      0.5000"]


def test_summary_lines_tell_a_class_without_images_from_one_that_was_missed() -> None:
    lines = summary_lines(summarise(np.diag([3, 4, 0]), loss_sum=4.0, top5=7, classes=("cat", "dog", "owl")))
    assert lines[4].split() == ["macro", "(2", "of", "3", "classes)", "1.0000", "1.0000", "1.0000", "7"]
    assert lines[-1].split() == ["owl", "0.0000", "0.0000", "0.0000", "0"]


def test_ledger_lines_begin_with_the_verdict() -> None:
    good = ledger_lines(LedgerReport(1003, 32, 2))
    assert good[0].startswith("exact: 32 steps, 2 whole epochs of 1003 samples")
    balanced = ledger_lines(LedgerReport(1003, 32, 2, classes=7))
    assert "each of 7 classes drawn equally often" in balanced[0] and "exactly once" not in balanced[0]
    bad = ledger_lines(LedgerReport(1003, 32, 2, problems=["step 7 is missing"]))
    assert bad[0].startswith("not exact")
    assert bad[-1] == "  problem: step 7 is missing"
