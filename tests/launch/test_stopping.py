"""A signal to a command: what the block that it ends is left with."""

from __future__ import annotations

import os
import signal

import pytest

from raycls.launch.stopping import interrupted_by_sigterm


def test_sigterm_interrupts_a_block_and_ends_with_its_code() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen: list[str] = []
    with pytest.raises(SystemExit) as leaving, interrupted_by_sigterm():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            seen.append("went on")
        except KeyboardInterrupt:
            seen.append("interrupted")
            raise RuntimeError from None  # as a library may make of it
    assert (leaving.value.code, seen) == (143, ["interrupted"])
    assert signal.getsignal(signal.SIGTERM) is before


def test_ctrl_c_stays_what_it_is() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), interrupted_by_sigterm():
        raise KeyboardInterrupt
    with interrupted_by_sigterm():
        pass
    assert signal.getsignal(signal.SIGTERM) is before
