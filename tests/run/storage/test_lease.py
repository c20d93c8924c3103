"""Claims on a run folder where the storage has no locks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from harness.object_store import S3

from raycls.errors import LaunchError
from raycls.run.folder import RunFolder
from raycls.run.storage import lease, lock
from raycls.run.storage.lease import Lease
from raycls.run.storage.lock import Lock
from raycls.run.storage.store import Store

pytestmark = pytest.mark.faults

HOLD = """
import sys, time
from raycls.run.folder import RunFolder
from raycls.run.storage.lock import Lock
with Lock(RunFolder(sys.argv[1]), "train"):
    print("held", flush=True)
    time.sleep(100)
"""


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT", 0.2)
    monkeypatch.setattr(lease, "SILENCE", 1.5)
    monkeypatch.setattr(lock, "_REMOTE_POLL", 0.1)


def test_one_holder_at_a_time_and_nothing_stays(s3: S3) -> None:
    folder = RunFolder(s3.uri("runs/x"))
    with Lock(folder, "train") as held:
        assert held.error is None
        with pytest.raises(LaunchError) as caught:
            Lock(RunFolder(s3.uri("runs/x")), "train").acquire()
        assert f"process {os.getpid()} on " in str(caught.value.found) and "to train" in str(caught.value.found)
    with Lock(RunFolder(s3.uri("runs/x")), "train"):
        pass
    assert [name for name in s3.objects("runs/x/lock/") if name] == []


def test_of_two_that_claim_at_once_at_most_one_holds(s3: S3) -> None:
    for _ in range(10):
        leases = [Lease(Store(s3.uri("runs/x")), "train") for _ in range(3)]
        taken: list[Lease] = []
        ready = threading.Barrier(3)

        def claim(one: Lease, ready: threading.Barrier = ready, taken: list[Lease] = taken) -> None:
            ready.wait()
            if one.try_acquire():
                taken.append(one)

        threads = [threading.Thread(target=claim, args=(one,)) for one in leases]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(taken) <= 1
        for one in taken:
            one.release()


def test_the_claim_of_a_killed_process_of_this_machine_is_void(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "SILENCE", 60.0)
    with subprocess.Popen([sys.executable, "-c", HOLD, s3.uri("runs/x")], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "held\n"
            with pytest.raises(LaunchError, match=f"process {process.pid} "):
                Lock(RunFolder(s3.uri("runs/x")), "train").acquire()
        finally:
            process.send_signal(signal.SIGKILL)
    began = time.monotonic()
    with Lock(RunFolder(s3.uri("runs/x")), "train"):
        assert time.monotonic() - began < 30


def test_another_machine_that_is_silent_is_dead_and_one_that_beats_is_not(
    s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = {"machine": "another", "host": "far", "pid": 7, "purpose": "train", "time": time.time(), "beat": 1}
    s3.client.put_object(Bucket="bucket", Key="runs/x/lock/a.json", Body=json.dumps(claim).encode())
    said: list[str] = []
    monkeypatch.setattr(lock, "_QUIET_SECONDS", 0.2)
    began = time.monotonic()
    with Lock(RunFolder(s3.uri("runs/x")), "train", say=said.append):
        assert 1.4 < time.monotonic() - began < 20
    assert len(said) == 1 and "process 7 on far" in said[0]

    s3.client.put_object(Bucket="bucket", Key="runs/x/lock/a.json", Body=json.dumps(claim).encode())
    stop = threading.Event()

    def beat() -> None:
        number = 1
        while not stop.wait(0.3):
            number += 1
            body = json.dumps({**claim, "beat": number}).encode()
            s3.client.put_object(Bucket="bucket", Key="runs/x/lock/a.json", Body=body)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(LaunchError, match="process 7 on far"):
            Lock(RunFolder(s3.uri("runs/x")), "train", timeout=3.0).acquire()
    finally:
        stop.set()
        thread.join()


def test_a_holder_whose_claim_was_taken_away_knows_it(s3: S3) -> None:
    with Lock(RunFolder(s3.uri("runs/x")), "train") as held:
        end = time.monotonic() + 20
        while held.error is None:
            assert time.monotonic() < end
            for name in s3.objects("runs/x/lock/"):  # it may be signing this moment
                s3.client.delete_object(Bucket="bucket", Key=f"runs/x/lock/{name}")
            time.sleep(0.05)
        assert isinstance(held.error, LaunchError) and "taken over" in str(held.error)


def test_a_claim_that_an_outage_kept_goes_when_the_storage_is_back(s3: S3) -> None:
    with Lock(RunFolder(s3.uri("runs/x")), "train"):
        s3.proxy.stop()
    s3.proxy.start()
    with Lock(RunFolder(s3.uri("runs/x")), "train", timeout=20):  # this process lives: its claim would count
        pass


def test_an_outage_alone_does_not_take_the_claim_away(s3: S3) -> None:
    with Lock(RunFolder(s3.uri("runs/x")), "train") as held:
        s3.proxy.stop()
        time.sleep(1.0)
        s3.proxy.start()
        time.sleep(3.0)
        assert held.error is None


def test_a_watcher_does_not_take_an_outage_for_the_silence_of_the_holder(s3: S3) -> None:
    claim = {"machine": "another", "host": "far", "pid": 7, "purpose": "train", "time": time.time()}

    def beat(number: int) -> None:
        body = json.dumps({**claim, "beat": number}).encode()
        s3.client.put_object(Bucket="bucket", Key="runs/x/lock/a.json", Body=body)

    beat(1)
    watcher = Lease(Store(s3.uri("runs/x")), "train")
    assert not watcher.try_acquire()
    s3.proxy.stop()
    back = threading.Timer(2.5, s3.proxy.start)  # longer than SILENCE; the holder could not beat meanwhile
    back.start()
    assert not watcher.try_acquire()  # answered when the storage is back
    back.join()
    beat(2)
    assert not watcher.try_acquire()
    began = time.monotonic()
    while not watcher.try_acquire():
        assert time.monotonic() - began < 20
        time.sleep(0.1)
    assert time.monotonic() - began > 1.4  # and silence while the storage answers is death, as ever
    watcher.release()


def test_a_folder_is_set_aside_whole_and_without_its_lock(s3: S3) -> None:
    folder = RunFolder(s3.uri("runs/x"))
    folder.store.write_bytes("config.yaml", b"run: {}")
    folder.store.write_bytes("checkpoints/step-00000001/manifest.json", b"{}")
    assert folder.set_aside() == "s3://bucket/runs/x.old-1"
    names = {name for name in s3.objects("runs/") if not name.endswith("/")}
    assert names == {"x.old-1/config.yaml", "x.old-1/checkpoints/step-00000001/manifest.json"}
    assert folder.set_aside() is None
