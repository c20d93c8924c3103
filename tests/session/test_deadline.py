"""Deadlines around what never returns."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from raycls.session.hanging.deadline import within


def test_within_returns_raises_and_gives_up() -> None:
    assert within(5, lambda a, b: a + b, 1, 2) == 3
    with pytest.raises(ZeroDivisionError):
        within(5, lambda: 1 // 0)
    never = threading.Event()
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=r"no answer within 0\.1 s"):
        within(0.1, never.wait)
    assert time.monotonic() - began < 5
    never.set()


_SCRIPT = """
import sys, time
from raycls.session.hanging.deadline import must_end
with must_end(20, lambda: print("early", flush=True)):
    pass
with must_end(float(sys.argv[1]), lambda: print("said", flush=True)):
    time.sleep(0.5)
print("went on")
"""


@pytest.mark.parametrize(("seconds", "code", "out"), [("0.05", 1, "said\n"), ("30", 0, "went on\n")])
def test_must_end(seconds: str, code: int, out: str) -> None:
    done = subprocess.run([sys.executable, "-c", _SCRIPT, seconds], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (code, out)
