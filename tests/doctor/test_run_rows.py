"""The doctor's rows about a run: storage, data, working directory, room, time."""

from __future__ import annotations

from typing import Any

import pytest
from harness.rows import FROZEN, says

from raycls.doctor import run_rows
from raycls.doctor.cluster_rows import GIB, MIB

BOTH = {"read": True, "wrote": True, "problem": ""}
BLIND = {"read": False, "wrote": False, "problem": ""}
DENIED = {"read": False, "wrote": False, "problem": "permission denied"}


@pytest.mark.parametrize(
    ("told", "replies", "verdict", "words"),
    [
        ({"a": BOTH}, {"a": True}, "ok", "a cluster of several nodes needs a shared one"),
        ({"a": BOTH, "b": BOTH}, {"a": True, "b": True}, "ok", "read on 2 nodes, and back"),
        ({"a": BOTH, "b": BLIND}, {"a": True}, "wrong", "b does not see what the driver wrote there"),
        ({"a": BOTH, "b": BOTH}, {"a": True, "b": False}, "wrong", "the driver does not see what b wrote there"),
        ({"a": BOTH, "b": DENIED}, {"a": True}, "wrong", "b: permission denied"),
        ({"a": BOTH, "b": FROZEN}, {"a": True}, "unknown", "b is silent"),
    ],
)
def test_storage(told: Any, replies: dict[str, bool], verdict: str, words: str) -> None:
    says(run_rows.storage("/runs", told, is_local=True, replies=replies), verdict, "/runs", words)


def test_a_relative_storage() -> None:
    row = run_rows.storage("/here/runs", {"a": BOTH}, is_local=True, replies={"a": True}, relative=True)
    says(row, "ok", "which `raycls submit` refuses")


def entries(digest: str, kind: str = "folder", whole: bool = True) -> dict[str, Any]:
    return {"kind": kind, "entries": 2000, "bytes": 5 * MIB, "whole": whole, "digest": digest}


MISSING = entries("", "missing")


@pytest.mark.parametrize(
    ("told", "verdict", "words"),
    [
        ({"a": entries("x"), "b": entries("x")}, "ok", "2,000 entries, same names and sizes on every node"),
        ({"a": entries("x", whole=False)}, "ok", "same names and sizes in the first 2,000 entries"),
        ({"a": entries("x", "file")}, "ok", "a file of 5 MiB"),
        ({"a": entries("x"), "b": entries("y"), "c": entries("x")}, "wrong", "differ between nodes: a, c | b"),
        ({"a": entries("x"), "b": MISSING}, "wrong", "nothing there on b"),
        ({"a": MISSING}, "wrong", "nothing there on a"),
        ({"a": entries("x"), "b": FROZEN}, "unknown", "b is silent"),
    ],
)
def test_data(told: Any, verdict: str, words: str) -> None:
    says(run_rows.data("/data", told), verdict, "/data", words)


def objects(problem: str = "", reading: float = 0.012) -> dict[str, Any]:
    told = {"problem": problem, "found": "403", "fix": "set the credentials"} if problem else {"problem": ""}
    return {**told, "name": "photos/a/1.png", "listing": 0.03, "reading": reading}


@pytest.mark.parametrize(
    ("told", "verdict", "words"),
    [
        ({"a": objects()}, "ok", "reachable from 1 node; a look takes 30 ms, a read of photos/a/1.png, 64 KiB at most"),
        ({"a": objects(), "b": objects(reading=0.4)}, "ok", "reachable from 2 nodes"),
        ({"a": objects(), "b": objects(reading=0.4)}, "ok", "at most, 400 ms"),
        ({"a": objects(), "b": objects(reading=0.7)}, "warning", "700 ms: slow"),
        ({"a": objects(), "b": objects("denied")}, "wrong", "b: denied (403)"),
        ({"a": objects(), "b": FROZEN}, "unknown", "b is silent"),
        ({"b": FROZEN}, "unknown", "b is silent"),
    ],
)
def test_data_behind_an_address(told: Any, verdict: str, words: str) -> None:
    says(run_rows.objects("s3://bucket/photos", told, size_read=64 << 10), verdict, "s3://bucket/photos", words)


def test_data_that_its_source_writes() -> None:
    says(run_rows.data("/data", {"a": MISSING}, made_by_source=True), "ok", "the source writes it")
    two = {"a": MISSING, "b": MISSING}
    says(run_rows.data("/data", two, made_by_source=True), "warning", "on the driver's node alone")
    says(run_rows.data("/data", {"a": entries("x"), "b": MISSING}, made_by_source=True), "wrong", "on b")


def test_working_directory() -> None:
    files = [("big.bin", 40 * MIB), ("small.bin", 2048)]
    says(run_rows.working_directory("/w", 50 * MIB, files), "ok", "/w: 50 MiB of the 100 MiB")
    says(run_rows.working_directory("/w", 51 * MIB, files), "warning", "big.bin (40 MiB), small.bin (2 KiB)")
    says(run_rows.working_directory("/w", 9, files, [".env"]), "warning", "look like credentials: .env")


ROOM: dict[str, Any] = {
    "workers": 2,
    "threads": 1,
    "share": 0.01,
    "cpus": 4.0,
    "gpus": 0.0,
    "device": "cpu",
    "ahead": 1.0 * GIB,
    "store": 4.0 * GIB,
}


@pytest.mark.parametrize(
    ("change", "verdict", "words"),
    [
        ({}, "ok", "2 workers on cpu, 2 of 4 CPUs busy with training, 2 left for decoding"),
        ({"threads": 3}, "warning", "4.0 GiB; more threads than CPUs"),
        ({"workers": 0, "ahead": 0}, "ok", "this process on cpu, 1 of 4 CPUs"),
        ({"ahead": 2.5 * GIB}, "warning", "so Ray would spill to disk"),
    ],
)
def test_fit(change: dict[str, Any], verdict: str, words: str) -> None:
    says(run_rows.fit(**{**ROOM, **change}), verdict, words)


def test_estimate_by_hand() -> None:
    facts = {
        "seconds": [0.5, 0.25, 0.25],
        "images": 96,
        "batch": 32,
        "data_wait": 0.25,
        "samples": 19_200,
        "steps_per_epoch": 300,
        "total_steps": 3_000,
        "device": "cpu",
        "why": "",
    }
    row = run_rows.estimate(facts, workers=2, places=8, batch_size=64)
    # 96 images in a second, twice: 192 images/s, 100 s for an epoch, ten of them
    says(
        row, "ok", "about 17 min for 10 epochs, 2 min each", "96 images/s (25% of it decoding), n=3 steps of 32 images"
    )
    assert row.facts["epoch_seconds"] == 100
    assert row.facts["seconds_in_all"] == 1000
    assert "x 2 workers" in row.found
    slow = {**facts, "warnings": [{"what": "bf16 is emulated", "fix": "train.amp=off"}]}
    warned = run_rows.estimate(slow, workers=2, places=8, batch_size=64)
    says(warned, "warning", "about 17 min", "bf16 is emulated")
    assert warned.fix == "train.amp=off"
    none = run_rows.estimate({**slow, "seconds": [], "why": "too slow"}, workers=2, places=8, batch_size=64)
    says(none, "unknown", "too slow; bf16 is emulated")
    assert (none.fix or "").startswith("train.amp=off; ")
    crowded = run_rows.estimate(facts, workers=2, places=1, batch_size=64)  # two workers that share a CPU
    assert crowded.facts["seconds_in_all"] == 2000
    says(
        run_rows.estimate({**facts, "seconds": [], "why": "too slow"}, workers=2, places=8, batch_size=64),
        "unknown",
    )
