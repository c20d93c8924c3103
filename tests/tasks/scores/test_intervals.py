"""Intervals against figures that were published, DeLong's variance, numerical derivatives and a bootstrap."""

from __future__ import annotations

import numpy as np
import pytest

from raycls.tasks.scores.intervals import bootstrap, jackknife, wilson
from raycls.tasks.scores.ranking import influence, rank

_TIES = 8


def _data(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    positive = draw.random(count) < 0.3
    return positive, np.round((draw.normal(0, 1, count) + positive) * _TIES) / _TIES


def test_wilson_by_hand() -> None:
    # Newcombe 1998, table I: 81 of 263 and 15 of 148, 0 of 20
    for hits, count, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)):
        found = wilson(hits, count)
        assert (round(found["low"], 4), round(found["high"], 4), found["method"]) == (low, high, "wilson")
    assert wilson(20, 20)["high"] == 1.0
    assert wilson(20, 20)["low"] == pytest.approx(1 - 0.1611, abs=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_derivatives_are_those_of_scikit_learn_with_weights(seed: int) -> None:
    from sklearn.metrics import average_precision_score, roc_auc_score

    positive, scores = _data(40, seed)
    found, step = influence(positive, scores), 1e-5
    for row, oracle in enumerate((roc_auc_score, average_precision_score)):
        for index in range(len(scores)):
            up, down = np.ones(len(scores)), np.ones(len(scores))
            up[index] += step
            down[index] -= step
            slope = oracle(positive, scores, sample_weight=up) - oracle(positive, scores, sample_weight=down)
            assert found[row, index] == pytest.approx(slope / (2 * step), abs=1e-7)


def test_the_deviation_of_auroc_is_that_of_delong() -> None:
    positive, scores = _data(300, 1)
    hits, misses = scores[positive], scores[~positive]
    above = (hits[:, None] > misses) + 0.5 * (hits[:, None] == misses)
    first, second = above.mean(1), above.mean(0)
    delong = first.var() / len(hits) + second.var() / len(misses)
    assert np.sqrt(np.square(influence(positive, scores)[0]).sum()) == pytest.approx(np.sqrt(delong), rel=1e-10)


def test_deviations_of_averages_are_those_of_resamples() -> None:
    draw = np.random.default_rng(4)
    labels = draw.choice(4, 400, p=[0.4, 0.3, 0.2, 0.1])
    scores = draw.normal(0, 1, (400, 4)) + 1.2 * np.eye(4)[labels]
    ranked = rank(lambda label: scores[:, label], labels, 4)
    drawn = []
    for _ in range(150):
        rows = draw.integers(0, 400, 400)
        part, given = scores[rows], labels[rows]
        each = rank(lambda label, part=part: part[:, label], given, 4)
        drawn.append([each.macro["auroc"], each.weighted["auroc"], each.macro["average_precision"]])
    spread = np.std(np.array(drawn, float), axis=0)
    ours = [ranked.deviation["macro"]["auroc"], ranked.deviation["weighted"]["auroc"]]
    ours += [ranked.deviation["macro"]["average_precision"]]
    assert ours == pytest.approx(spread.tolist(), rel=0.25)


def test_an_interval_of_a_share_stays_inside_0_and_1() -> None:
    found = jackknife(0.99, 0.02)
    assert 0.5 < found["low"] < 0.99 < found["high"] < 1
    assert jackknife(1.0, 0.0) == {"low": 1.0, "high": 1.0, "method": "jackknife"}
    middle = jackknife(0.5, 1e-6)
    assert middle["high"] - middle["low"] == pytest.approx(2 * 1.959964 * 1e-6, rel=1e-4)


def test_the_bootstrap_of_a_mean_is_that_of_its_normal_distribution() -> None:
    values = np.random.default_rng(0).exponential(1, 2000)
    found = bootstrap(lambda times: {"mean": float((times * values).sum() / times.sum())}, 2000)["mean"]
    half = 1.96 * values.std() / np.sqrt(2000)
    assert found["low"] == pytest.approx(values.mean() - half, abs=half / 8)
    assert found["high"] == pytest.approx(values.mean() + half, abs=half / 8)
    assert found["method"] == "bootstrap"


def test_the_bootstrap_is_the_same_every_time_and_another_with_another_seed() -> None:
    values = np.arange(50.0)
    ends = [bootstrap(lambda times: {"x": float((times * values).mean())}, 50, seed=seed) for seed in (0, 0, 1)]
    assert ends[0] == ends[1] != ends[2]


def test_a_pivotal_interval_turns_the_resamples_around() -> None:
    draw = np.random.default_rng(1)
    values = draw.normal(0, 1, 400)  # the size of a mean that is 0: noise alone makes it larger

    def size(times: np.ndarray) -> dict[str, float]:
        return {"size": abs(float((times * values).sum() / times.sum()))}

    plain, turned = bootstrap(size, 400)["size"], bootstrap(size, 400, pivotal=("size",))["size"]
    own = size(np.ones(400))["size"]
    assert turned["low"] == max(0.0, 2 * own - plain["high"])
    assert turned["high"] == pytest.approx(max(0.0, 2 * own - plain["low"]))
