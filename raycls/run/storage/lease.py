"""One writer per run folder where there are no locks: claims, which their holders renew.

`lock/<claim>.json` says who holds the folder, with a beat that its holder counts up. Whoever wants it puts a claim and
then looks: alone, it holds the folder; beside another one that lives it takes its own back. As an object store shows
what was put before, two processes that claim at the same time cannot both be alone. A claim whose beat stands still for
`SILENCE` seconds, or whose process is gone from this machine, is dead and taken away; a holder that finds its own claim
gone knows that it is not the holder any more.

This is less than a lock. A holder that is cut off, or stopped, for longer than `SILENCE` learns of its loss at its next
beat, and may write until then.
"""

from __future__ import annotations

import json
import os
import random
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from raycls.errors import CheckpointError, LaunchError, RayclsError
from raycls.run.storage.store import Store

__all__ = ["BEAT", "SILENCE", "Lease", "holder", "is_of_the_dead", "signature"]

BEAT = 5.0
"""Seconds between two beats: 720 small requests an hour."""
SILENCE = 25.0
"""Seconds without a beat after which a holder counts as dead, by the clock of the one who watches and while the storage
answers."""
_FOLDER = "lock"
_ROUNDING = 2.0
"""Seconds by which the start of a process and the clock may differ."""


@dataclass
class _Watched:
    """What a watcher knows of somebody else's claim."""

    beat: int
    looked: float
    """When the storage last answered."""
    silence: float = 0.0
    """Seconds for which the beat stood still. What lies between two answers counts for one beat at most: in an outage
    of the storage, which makes a look wait, the holder could not show that it lives either."""


class Lease:
    """The claim of this process on the folder of `store`, for `purpose`."""

    def __init__(self, store: Store, purpose: str) -> None:
        self._store = store
        self._purpose = purpose
        self._name = ""
        self._beats = 0
        self._watched: dict[str, _Watched] = {}
        self._seen_alive = False
        self._buried: set[str] = set()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._process = 0
        self.lost = False

    @property
    def error(self) -> RayclsError | None:
        """Why this process must not write any more, None while it may."""
        if not self.lost:
            return None
        return LaunchError(
            "another process has taken over this run folder: this one did not show for a while that it lives",
            where=self._store.describe(),
            found=self.holder(),
            fix="let the other one run; a run that was cut off from its storage ends like this",
        )

    def try_acquire(self) -> bool:
        """Claim the folder; whether it is held now. Raises CheckpointError."""
        if self._rivals():
            return False
        self._name, self._beats = f"{_FOLDER}/{uuid4().hex}.json", 0
        try:
            self._sign(self._store)
            rivals = self._rivals()
        except CheckpointError:
            self._take_back()
            raise
        if rivals:
            self._store.delete(self._name)
            self._name = ""
            time.sleep(random.uniform(0.05, 0.5))  # noqa: S311 - the next try must not be that of the other one again
            return False
        self._ended.clear()
        self._process = os.getpid()
        self._thread = threading.Thread(target=self._renew, name="raycls-lease", daemon=True)
        self._thread.start()
        return True

    @property
    def is_certain(self) -> bool:
        """Whether another holder was seen to live, and not only its claim."""
        return self._seen_alive

    def holder(self) -> str:
        """Who holds the folder, for messages."""
        claims = [claim for name, claim in self._claims(self._store.without_retry()).items() if name != self._name]
        return holder(claims[0] if claims else {})

    def release(self) -> None:
        """Give the folder back. Where the storage is away, the claim goes when it is back, or with this process."""
        if not self._name or os.getpid() != self._process:
            return
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        self._take_back()

    def _take_back(self) -> None:
        """Take the claim away, now or later: of a process of this machine it counts for as long as that lives."""
        store, name, self._name = self._store.without_retry(), self._name, ""

        def is_gone() -> bool:
            with suppress(CheckpointError):
                store.delete(name)
                return True
            return False

        def later() -> None:
            while not is_gone():
                time.sleep(BEAT)

        if not is_gone():
            threading.Thread(target=later, name="raycls-lease-end", daemon=True).start()

    def _renew(self) -> None:
        store = self._store.without_retry()
        while not self._ended.wait(BEAT):
            try:
                if not store.exists(self._name):
                    self.lost = True
                    return
                self._sign(store)
                for name in self._buried:  # one that was taken for dead may have signed once more
                    store.delete(name)
            except CheckpointError:
                continue  # the storage is away: for others too

    def _sign(self, store: Store) -> None:
        self._beats += 1
        claim = {**signature(self._purpose), **_process(os.getpid()), "beat": self._beats}
        store.write_bytes(self._name, json.dumps(claim).encode())

    def _rivals(self) -> list[str]:
        """The claims of others that may live. Dead ones are taken away."""
        rivals: list[str] = []
        for name, claim in self._claims(self._store).items():
            if name == self._name:
                continue
            if self._is_dead(name, claim):
                self._store.delete(name)
                self._buried.add(name)
            else:
                rivals.append(name)
        return rivals

    def _is_dead(self, name: str, claim: dict[str, Any]) -> bool:
        here = _process(os.getpid())
        if here and claim.get("machine") == here["machine"]:
            dead = _process(int(claim.get("pid", 0))).get("started") != claim.get("started")
            self._seen_alive = self._seen_alive or not dead
            return dead
        beat, now = int(claim.get("beat", 0)), time.monotonic()
        known = self._watched.setdefault(name, _Watched(beat, now))
        if beat != known.beat:
            self._watched[name], self._seen_alive = _Watched(beat, now), True
            return False
        known.silence += min(now - known.looked, BEAT)
        known.looked = now
        return known.silence >= SILENCE

    def _claims(self, store: Store) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for entry in store.list(_FOLDER):
            data = store.find_bytes(f"{_FOLDER}/{entry}")
            if data is None:  # given back meanwhile
                continue
            try:
                claim = json.loads(data)
            except ValueError:
                claim = {}
            found[f"{_FOLDER}/{entry}"] = claim if isinstance(claim, dict) else {}
        return found


def is_of_the_dead(signed: Mapping[str, Any]) -> bool:
    """Whether the process with this `signature` is known to have ended: one of this host that is not there any more, or
    that started after it signed, so that it is another one."""
    try:
        if signed["host"] != socket.gethostname():
            return False
        pid, began = int(signed["pid"]), float(signed["time"])
        ticks = _process(pid).get("started")
        with open("/proc/stat", encoding="ascii") as file:
            boot = next(float(line.split()[1]) for line in file if line.startswith("btime "))
    except (OSError, ValueError, KeyError, TypeError, StopIteration):
        return False
    return ticks is None or boot + int(ticks) / os.sysconf("SC_CLK_TCK") > began + _ROUNDING


def signature(purpose: str) -> dict[str, Any]:
    """What this process says of itself where it takes a run folder."""
    return {"pid": os.getpid(), "host": socket.gethostname(), "time": time.time(), "purpose": purpose}


def holder(signed: Mapping[str, Any]) -> str:
    """The process with this `signature`, for messages."""
    try:
        minutes = max(0.0, time.time() - float(signed["time"])) / 60
        who = f"process {signed['pid']} on {signed['host']}"
        return f"{who}, for {minutes:.0f} minutes, to {signed['purpose']}"
    except (ValueError, KeyError, TypeError):
        return "a process that did not leave its name"  # it took the folder a moment ago


def _process(pid: int) -> dict[str, str]:
    """This machine, as far as a process can tell it from others, and when the process started; {} where unknown.

    Containers share a kernel but not the numbers of processes, so the namespace of those belongs to the machine.
    """
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read().strip()
        machine = f"{boot}:{os.stat('/proc/self/ns/pid').st_ino}"
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return {}
    return {"machine": machine, "started": fields[19]} if fields[0] != "Z" else {}
