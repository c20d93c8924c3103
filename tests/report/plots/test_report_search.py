from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest

from raycls.report.plots.front import front_plot
from raycls.report.plots.importance import Importance
from raycls.report.plots.search import CURVES, IMPORTANCE, PARALLEL, curves, importance, parallel, plots
from raycls.search.front import Priced
from raycls.search.trials import Result, Trial

SVG = "{http://www.w3.org/2000/svg}"


def trial(number: int, chosen: dict[str, Any], values: list[float], state: str = "finished", **rest: Any) -> Trial:
    """A trial with a top1 after each of its epochs; `cutoffs` are {epoch: cutoff}."""
    cutoffs = rest.pop("cutoffs", {})
    results = [
        Result(
            epoch, float(epoch), 1.0, {"top1": value}, rung=1.0 if epoch in cutoffs else None, cutoff=cutoffs.get(epoch)
        )
        for epoch, value in enumerate(values, start=1)
    ]
    facts: dict[str, Any] = {"phase": "search", "seed": None, "of": None, "asked": 10.0, "steps_per_epoch": 1, **rest}
    return Trial(
        f"{number:04d}", number, chosen=chosen, first_chosen=chosen, results=results, state=state, ended=True, **facts
    )


def words(data: bytes) -> list[str]:
    return ["".join(item.itertext()).strip() for item in ElementTree.fromstring(data).iter(f"{SVG}text")]


def lines(data: bytes) -> dict[str, list[tuple[float, float]]]:
    """The points of each named line, in the units of the page (y grows downwards)."""
    found: dict[str, list[tuple[float, float]]] = {}
    for group in ElementTree.fromstring(data).iter(f"{SVG}g"):
        path = group.find(f"{SVG}path")
        if path is not None and re.match(r"(trial|rung)-", group.get("id", "")):
            numbers = [float(word) for word in re.findall(r"-?[\d.]+", path.get("d", ""))]
            found[group.get("id", "")] = list(zip(numbers[::2], numbers[1::2], strict=True))
    return found


TRIALS = [
    trial(1, {"optim.lr": 0.0001, "model.name": "b"}, [0.2, 0.4, 0.8], cutoffs={1: 0.1}),
    trial(2, {"optim.lr": 0.01, "model.name": "a"}, [0.1], state="stopped", cutoffs={1: 0.15}),
    trial(3, {"optim.lr": 1.0}, [0.3, math.nan, 0.5]),
]


def test_a_curve_per_trial_and_a_line_per_rung() -> None:
    data = curves(TRIALS, [1.0, 3.0], "top1")
    found = lines(data)
    assert [len(found[f"trial-000{number}"]) for number in (1, 2, 3)] == [3, 1, 2]
    first = found["trial-0001"]
    assert (first[1][1] - first[2][1]) / (first[0][1] - first[1][1]) == pytest.approx(2, abs=1e-3)  # 0.4 and 0.2 up
    assert found["rung-1"][0][0] == pytest.approx(first[0][0], abs=1e-3)
    assert found["rung-3"][0][0] == pytest.approx(first[2][0], abs=1e-3)
    assert found["trial-0003"][1][0] == pytest.approx(first[2][0], abs=1e-3)  # what is not finite is left out
    assert {"epoch", "validation top1", "finished", "stopped"} <= set(words(data))
    assert words(data).count("finished") == 1


def test_cutoffs_stand_where_they_were_compared_with() -> None:
    tree = ElementTree.fromstring(curves(TRIALS, [1.0], "top1"))
    marks = {
        group.get("id"): [(float(use.get("x", 0)), float(use.get("y", 0))) for use in group.iter(f"{SVG}use")]
        for group in tree.iter(f"{SVG}g")
        if group.get("id", "").startswith("cutoff-")
    }
    found = lines(curves(TRIALS, [1.0], "top1"))
    ((x1, y1),), ((x2, y2),) = marks["cutoff-0001"], marks["cutoff-0002"]
    assert x1 == x2 == pytest.approx(found["rung-1"][0][0], abs=1e-3)
    at = {0.2: found["trial-0001"][0][1], 0.1: found["trial-0002"][0][1]}
    assert y1 == pytest.approx(at[0.1], abs=1e-3)
    assert y2 == pytest.approx((at[0.1] + at[0.2]) / 2, abs=1e-3)


def test_parallel_axes_are_scaled_by_what_occurred() -> None:
    data = parallel(TRIALS, ["optim.lr", "model.name"], "top1", "max")
    found = lines(data)
    one, two, three = (found[f"trial-000{number}"] for number in (1, 2, 3))
    bottom, top = one[0][1], three[0][1]
    assert two[0][1] == pytest.approx((bottom + top) / 2, abs=1e-3)  # 0.01 is half way from 0.0001 to 1, in decades
    assert (two[1][1], one[1][1]) == (pytest.approx(bottom, abs=1e-3), pytest.approx(top, abs=1e-3))  # a, b
    assert three[1][1] > bottom  # below the axis: inactive
    assert one[2][1] == pytest.approx(top, abs=1e-3)  # the best value
    # (0.5 - 0.1) / (0.8 - 0.1)
    assert (bottom - three[2][1]) / (bottom - top) == pytest.approx(4 / 7, abs=1e-3)
    assert {"optim.lr", "model.name", "top1", "inactive", "a", "b", "0.0001", "1"} <= set(words(data))


def test_the_best_trial_is_drawn_last_for_either_mode() -> None:
    for mode, best in (("max", "trial-0001"), ("min", "trial-0002")):
        assert list(lines(parallel(TRIALS, ["optim.lr"], "top1", mode)))[-1] == best


def test_values_of_any_kind_have_a_place() -> None:
    chosen = [{"p": 1}, {"p": 1.0}, {"p": None}, {"p": [1, 2]}, {"p": {"w": "$x$"}}, {"p": True}, {}]
    trials = [trial(number, values, [0.5]) for number, values in enumerate(chosen)]
    assert len(lines(parallel(trials, ["p"], "top1", "max"))) == 7
    assert len(lines(parallel(trials[:2], ["p"], "top1", "max"))) == 2
    assert len(lines(parallel(trials[-1:], ["p"], "top1", "max"))) == 1


def test_bars_have_the_length_of_the_means() -> None:
    found = [Importance("optim.lr", 1.5, 1.2, 1.9), Importance("model.name", 0.5, -0.1, 0.4)]
    data = importance(found, "top1 at epoch 2, 20 trials")
    said = words(data)
    assert {"optim.lr", "model.name"} <= set(said)
    assert any("top1 at epoch 2, 20 trials" in word for word in said)
    widths = []
    for path in ElementTree.fromstring(data).iter(f"{SVG}path"):
        if "fill: #1f77b4" in path.get("style", ""):
            xs = [float(word) for word in re.findall(r"-?[\d.]+", path.get("d", ""))][::2]
            widths.append(max(xs) - min(xs))
    assert widths[1] / widths[0] == pytest.approx(3, abs=1e-3)  # from below


def test_nothing_measured_is_said() -> None:
    assert "nothing was measured" in words(curves([], [], "top1"))
    assert "nothing was measured" in words(parallel([trial(1, {"a": 1}, [math.nan])], ["a"], "top1", "max"))


def test_equal_trials_give_equal_bytes() -> None:
    assert curves(TRIALS, [1.0], "top1") == curves(TRIALS, [1.0], "top1")
    assert b"<dc:date>" not in curves(TRIALS, [1.0], "top1")


def test_plots_of_a_search_and_what_is_left_out() -> None:
    confirmed = trial(1, {"a": 0.5}, [0.9], phase="confirm", of="0001")
    few, said = plots([*TRIALS, confirmed], ["optim.lr"], "top1", "max", rungs=[1.0])
    assert set(few) == {CURVES, PARALLEL}
    assert said == ["importance.svg is left out: it needs 10 trials that ended with a top1, there are 3"]
    assert few[CURVES] == curves(TRIALS, [1.0], "top1")  # without what confirms
    many = [trial(number, {"a": number}, [float(number)]) for number in range(1, 13)]
    found, said = plots(many, ["a"], "top1", "max")
    assert set(found) == {CURVES, PARALLEL, IMPORTANCE} and said == []
    assert any("top1 at epoch 1, 12 trials" in word for word in words(found[IMPORTANCE]))


def test_a_front_is_level_up_to_the_next_network() -> None:
    found = [Priced(trial(number, {}, [value]), 1, flops, value) for number, flops, value in FRONT]
    data = front_plot(found, [found[0], found[2], found[3]], "top1", 4_000)
    group = next(item for item in ElementTree.fromstring(data).iter(f"{SVG}g") if item.get("id") == "front")
    numbers = [float(word) for word in re.findall(r"-?[\d.]+", next(iter(group)).get("d", ""))]
    corners = list(zip(numbers[::2], numbers[1::2], strict=True))
    assert len(set(corners)) == 3  # the two that are equal are one corner
    assert corners[0][1] == corners[1][1] and corners[1][0] == corners[2][0]  # level, then up
    shown = words(data)
    assert "0001" in shown and "0003, 0004" in shown and "0002" not in shown
    assert "validation top1" in shown and "search.max_flops" in shown
    assert front_plot(found, found[:1], "top1", None) == front_plot(found, found[:1], "top1", None)


FRONT = [(1, 100, 0.5), (2, 1_000, 0.4), (3, 3_000, 0.8), (4, 3_000, 0.8)]
