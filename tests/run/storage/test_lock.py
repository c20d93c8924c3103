from __future__ import annotations

import errno
import fcntl
import logging
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from raycls.errors import LaunchError
from raycls.run.folder import RunFolder
from raycls.run.storage.lock import Lock
from raycls.run.storage.store import Store

pytestmark = pytest.mark.faults


@contextmanager
def process(function: Callable[[], None]) -> Iterator[int]:
    """A forked process that runs `function` and then sleeps; killed at the end. Starts after its first byte."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        child = os.fork()
    if child == 0:
        try:
            function()
            os.write(write, b"x")
            time.sleep(60)
        finally:
            os._exit(1)
    try:
        os.close(write)
        assert os.read(read, 1) == b"x"
        yield child
    finally:
        os.close(read)
        try:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


def test_a_wait_is_told_once_and_names_the_holder(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raycls.run.storage.lock._QUIET_SECONDS", 0.1)
    said: list[str] = []
    with Lock(folder, "train"), pytest.raises(LaunchError):
        Lock(folder, "train", timeout=2, say=said.append).acquire()
    assert len(said) == 1
    assert f"process {os.getpid()} on " in said[0]
    Lock(folder, "train", timeout=0.5, say=said.append).acquire()
    assert len(said) == 1


def test_one_holder_at_a_time(folder: RunFolder) -> None:
    with Lock(folder, "train"):
        with pytest.raises(LaunchError) as caught:
            Lock(folder, "train").acquire()
        assert f"process {os.getpid()} on " in str(caught.value.found) and "to train" in str(caught.value.found)
        assert caught.value.where == folder.uri
    with Lock(folder, "train"):
        pass


def test_acquire_and_release_may_be_repeated(folder: RunFolder) -> None:
    lock = Lock(folder, "train")
    lock.acquire()
    lock.acquire()
    lock.release()
    lock.release()
    Lock(folder, "other").acquire()


def test_the_kernel_frees_the_lock_of_a_killed_process(folder: RunFolder) -> None:
    with process(lambda: Lock(folder, "train").acquire()) as child:
        with pytest.raises(LaunchError, match=f"process {child} "):
            Lock(folder, "train").acquire()
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with Lock(folder, "train"):
            pass


def test_children_of_the_holder_do_not_keep_it(folder: RunFolder) -> None:
    grandchildren = os.pipe()

    def hold_and_fork() -> None:
        lock = Lock(folder, "train")
        lock.acquire()
        grandchild = os.fork()
        if grandchild == 0:
            time.sleep(60)
            os._exit(0)
        os.write(grandchildren[1], str(grandchild).encode())
        _kept.append(lock)

    with process(hold_and_fork) as child:
        grandchild = int(os.read(grandchildren[0], 20))
        try:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.kill(grandchild, 0)  # it lives
            with Lock(folder, "train", timeout=5):
                pass
        finally:
            os.kill(grandchild, signal.SIGKILL)
            for end in grandchildren:
                os.close(end)


_kept: list[Lock] = []  # a lock that is collected is given back


def test_waits_for_the_holder(folder: RunFolder) -> None:
    first = Lock(folder, "train")
    first.acquire()
    timer = threading.Timer(0.3, first.release)
    started = time.monotonic()
    timer.start()
    with Lock(folder, "train", timeout=30):
        assert 0.25 < time.monotonic() - started < 20
    timer.join()


def test_a_folder_set_aside_while_waiting(folder: RunFolder) -> None:
    first = Lock(folder, "train")
    first.acquire()

    def move_and_release() -> None:
        Path(folder.uri).rename(folder.uri + ".old-1")
        first.release()

    timer = threading.Timer(0.3, move_and_release)
    timer.start()
    with Lock(folder, "train", timeout=30), pytest.raises(LaunchError):
        Lock(folder, "train").acquire()  # the lock is that of the folder that has the name now
    timer.join()
    assert (Path(folder.uri) / "lock").exists()


def test_a_folder_set_aside_between_open_and_lock(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    real, path = fcntl.flock, Path(folder.uri)

    def late(descriptor: int, operation: int) -> None:
        if not path.with_name("run.old-1").exists():
            path.rename(path.with_name("run.old-1"))
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with Lock(folder, "train", timeout=30), pytest.raises(LaunchError):
        Lock(folder, "train").acquire()
    assert (path / "lock").exists()


def test_a_folder_set_aside_between_made_and_open(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    real, path = Store.make_folder, Path(folder.uri)

    def made_and_moved(store: Store, name: str = "") -> None:
        real(store, name)
        if not path.with_name("run.old-1").exists():
            path.rename(path.with_name("run.old-1"))

    monkeypatch.setattr(Store, "make_folder", made_and_moved)
    with Lock(folder, "train", timeout=30):
        assert (path / "lock").exists()


def test_a_file_system_without_locks(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with caplog.at_level(logging.WARNING, logger="raycls"), Lock(folder, "train"):
        pass
    assert "no locks" in caplog.text


def test_makes_the_folder(tmp_path: Path) -> None:
    with Lock(RunFolder(Store(tmp_path / "a" / "b")), "train"):
        assert (tmp_path / "a" / "b" / "lock").exists()


def test_the_newest_of_a_family_takes_over_from_one_that_stands_still(
    folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its node is frozen: nobody can kill it. When it goes on, it learns that it is not the writer any more."""
    monkeypatch.setattr("raycls.run.storage.lock._FROZEN_SECONDS", 0.5)
    told, lost = tmp_path / "told", tmp_path / "lost"

    def hold() -> None:
        lock = Lock(folder, "train", family="a")
        lock.acquire()
        threading.Thread(target=watch, args=(lock,), daemon=True).start()

    def watch(lock: Lock) -> None:
        told.write_text(str(lock.error))
        while lock.error is None:
            time.sleep(0.01)
        lost.write_text(lock.error.what)

    with process(hold) as child:
        os.kill(child, signal.SIGSTOP)
        for family in ("", "b"):
            with pytest.raises(LaunchError, match="another process is using"):
                Lock(folder, "train", timeout=1.0, family=family).acquire()
        said: list[str] = []
        with Lock(folder, "train", timeout=20, family="a", say=said.append) as lock:
            assert f"taken over from process {child} on" in said[-1]
            os.kill(child, signal.SIGCONT)
            end = time.monotonic() + 20
            while not lost.exists() or not lost.read_text():
                assert time.monotonic() < end
                time.sleep(0.01)
            assert (told.read_text(), lock.error) == ("None", None)
            with pytest.raises(LaunchError):
                Lock(folder, "train").acquire()
    assert "another process has taken over" in lost.read_text()
    with Lock(folder, "train"):
        pass
