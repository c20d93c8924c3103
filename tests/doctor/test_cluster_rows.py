"""What the doctor makes of facts, row by row: good ones, bad ones, and those that nobody could tell."""

from __future__ import annotations

from typing import Any

import pytest
from harness.rows import FROZEN, says

from raycls.doctor import cluster_rows
from raycls.doctor.cluster_rows import GIB, MIB, RAY_FOLDER, Row, Unanswered, from_error, skipped, unknown
from raycls.doctor.display import exit_code
from raycls.errors import LaunchError

SAME = {"python": "3.11.7", "ray": "2.60.0", "raycls": "0.1.0"}


def test_nodes() -> None:
    says(cluster_rows.nodes({"a": 1.0, "b": 2.0}), "ok", "2 nodes: a, b")
    says(
        cluster_rows.nodes({"a": 1.0, "b": Unanswered("does not answer within 5 s")}),
        "wrong",
        "b does not answer within 5 s",
    )
    says(cluster_rows.nodes({"a": 1.0}, {"c": 2}), "warning", "lost: c")
    says(
        cluster_rows.nodes({"a": 1.0}, {"c": 1, "d": 4}), "ok", "1 node: a"
    )  # stopped, and drained because it was idle


def test_versions() -> None:
    says(cluster_rows.versions({"a": SAME}), "ok", "python 3.11.7, ray 2.60.0, raycls 0.1.0")
    says(cluster_rows.versions({"a": SAME, "b": SAME}), "ok", "everywhere")
    other = {**SAME, "ray": "2.59.1"}
    says(cluster_rows.versions({"a": SAME, "b": other, "c": SAME}), "wrong", "ray: 2.60.0 on a and c, 2.59.1 on b")
    says(cluster_rows.versions({"a": SAME, "b": {**SAME, "raycls": "missing"}}), "wrong", "not installed: raycls on b")
    says(cluster_rows.versions({"a": SAME, "b": FROZEN}), "unknown", "not examined: b is silent")
    says(cluster_rows.versions({"a": SAME, "b": other, "c": FROZEN}), "wrong", "2.59.1 on b")


H100 = {"name": "NVIDIA H100", "driver": "550.1", "memory": 80 * GIB}


@pytest.mark.parametrize(
    ("told", "counted", "device", "verdict", "words"),
    [
        ({"a": []}, {"a": 0}, "auto", "ok", "none: training is on CPUs"),
        ({"a": [H100, H100], "b": [H100]}, {"a": 2, "b": 1}, "auto", "ok", "3 x NVIDIA H100 (80 GiB), driver 550.1"),
        ({"a": []}, {"a": 0}, "cuda", "wrong", "none, and scale.device is cuda"),
        ({"a": [H100]}, {"a": 0}, "cuda", "wrong", "none that Ray counts"),
        ({"a": [H100, H100]}, {"a": 1}, "auto", "warning", "a: 2 there, Ray counts 1"),
        ({"a": [H100], "b": [{**H100, "name": "T4"}]}, {"a": 1, "b": 1}, "auto", "warning", "of different kinds"),
        ({"a": [H100], "b": [{**H100, "driver": "535"}]}, {"a": 1, "b": 1}, "auto", "warning", "535, 550.1"),
        ({"a": [H100], "b": FROZEN}, {"a": 1, "b": 1}, "auto", "unknown", "b is silent"),
    ],
)
def test_gpus(told: Any, counted: Any, device: str, verdict: str, words: str) -> None:
    says(cluster_rows.gpus(told, counted, device=device), verdict, words)


def test_reduction() -> None:
    fast = cluster_rows.reduction({"a": 800.0, "b": 700.0}, backend="gloo", megabytes=16.0, repeats=5)
    says(fast, "ok", "700 MB/s (gloo, 16.0 MB, 2 nodes, median of 5)")
    says(cluster_rows.reduction({"a": 800.0, "b": 49.0}, backend="gloo", megabytes=16, repeats=5), "warning", "slow")
    cut = cluster_rows.reduction("b timed out", backend="nccl", megabytes=16, repeats=5)
    says(cut, "wrong", "could not exchange data (nccl): b timed out")
    assert "NCCL_SOCKET_IFNAME" in cut.fix


@pytest.mark.parametrize(
    ("shared", "verdict", "words"),
    [
        ({"total": 8 * GIB, "free": 8 * GIB}, "ok", "8.0 GiB of 8.0 GiB free, object store 4.0 GiB"),
        ({"total": 2 * GIB, "free": 2 * GIB}, "warning", "the store does not fit"),
        ({"total": 63 * MIB, "free": 63 * MIB}, "wrong", "too little"),
        ({"total": 8 * GIB, "free": 1 * MIB}, "wrong", "too little"),
        (None, "ok", "no /dev/shm"),
        (FROZEN, "unknown", "is silent"),
    ],
)
def test_shared_memory(shared: Any, verdict: str, words: str) -> None:
    says(cluster_rows.shared_memory({"a": shared}, {"a": 4.0 * GIB}), verdict, words)


@pytest.mark.parametrize(
    ("what", "total", "free", "verdict", "words"),
    [
        (RAY_FOLDER, 100 * GIB, 50 * GIB, "ok", "50.0 GiB free"),
        (RAY_FOLDER, 100 * GIB, 9 * GIB, "warning", "91% used"),
        (RAY_FOLDER, 100 * GIB, 4 * GIB, "wrong", "96% used"),
        ("run.storage", 100 * GIB, 4 * GIB, "ok", "4.0 GiB free"),
        ("run.storage", 100 * GIB, 1 * GIB, "warning", "run.storage on a: 1.0 GiB free"),
        ("run.storage", 100 * GIB, 99 * MIB, "wrong", "99 MiB free"),
    ],
)
def test_disk(what: str, total: int, free: int, verdict: str, words: str) -> None:
    plenty = {"what": "other", "path": "/", "total": 100 * GIB, "free": 60 * GIB}
    facts = {"a": [plenty, {"what": what, "path": "/data", "total": total, "free": free}]}
    says(cluster_rows.disk(facts), verdict, words)
    says(cluster_rows.disk({**facts, "b": FROZEN}), "wrong" if verdict == "wrong" else "unknown", words)


def test_rows_of_an_error_of_ours_and_of_nothing() -> None:
    error = LaunchError("it does not fit", found="1 CPU", valid="2 CPUs", fix="add one")
    row = from_error("fit", error)
    says(row, "wrong", "it does not fit; 1 CPU; 2 CPUs")
    assert row.fix == "add one"
    says(skipped("time", "no config"), "skipped", "no config")
    says(unknown("time", "too slow", "wait"), "unknown", "not examined: too slow")


def test_exit_code() -> None:
    fine = [Row("a", "ok", ""), Row("b", "warning", "", "mend"), Row("c", "skipped", "")]
    assert exit_code(fine) == 0
    assert exit_code([*fine, Row("d", "wrong", "", "mend")]) == 1
    assert exit_code([*fine, Row("d", "unknown", "", "mend")]) == 1
