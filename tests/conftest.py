"""What the tests on a real Ray share: one cluster that they join, one data set, one run to compare with."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from harness.runs import Foreign, Site

CONFIG = """
data:
  source: {name: arrays, path: images.npz}
  batch_size: 64
  image_size: 12
augment:
  train:
    - random_crop: {size: 12, padding: 2}
    - horizontal_flip
    - color_jitter: {brightness: 0.2}
    - pacing:paced: {flag: FLAG}
  eval: []
model: {name: tiny_cnn, args: {width: 8, dropout: 0.1}}
loss: {label_smoothing: 0.1}
optim: {lr: 0.05, clip_norm: 1.0, ema: 0.9}
schedule: {name: cosine, warmup: 5st}
train: {duration: 5ep, micro_batches: 4, reduction: exact, amp: "off", ledger: pixels}
checkpoint: {every: 7st}
track: {log_every: 1st}
"""

PACING = '''
"""An augmentation that changes nothing and takes its time while the file `flag` is there."""

import os
import time


def paced(flag):
    def wait(image):
        if os.path.exists(flag):
            time.sleep(0.004)
        return image

    return wait
'''


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A working directory with a config, its 1,003 training images, and a finished run without Ray."""
    from harness.jobs import write_arrays  # here, because most tests need no torch
    from harness.runs import Site

    folder = tmp_path_factory.mktemp("site")
    write_arrays(folder / "images.npz", train=1003, val=67)
    (folder / "pacing.py").write_text(PACING)
    (folder / "small.yaml").write_text(CONFIG.replace("FLAG", str(folder / "slow")))
    made = Site(folder)
    with made.raycls("train", "small.yaml", "scale.workers=0", "run.name=reference") as command:
        assert command.wait(120) == 0, command.said()
    return made


@pytest.fixture(scope="session")
def foreign() -> Iterator[Foreign]:
    """A cluster as somebody else would have started it: `ray start --head`, with a token, on ports of its own."""
    from harness.processes import start
    from harness.runs import Foreign

    from raycls.launch.guard import guarded

    folder = Path(tempfile.mkdtemp(prefix="rt-", dir="/tmp"))  # short: sockets lie below it
    port = _free_port()
    token = secrets.token_hex(32)
    outside = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        "RAY_TMPDIR": str(folder),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ADDRESS": "",
        "HOME": str(folder),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
    }
    words = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", f"--port={port}"]
    words += ["--num-cpus=3", "--include-dashboard=false", f"--temp-dir={folder}"]
    words += [f"--ray-client-server-port={_free_port()}", "--dashboard-agent-listen-port=0"]
    words += ["--min-worker-port=0", "--max-worker-port=0", "--disable-usage-stats"]
    # The guard is for pytest itself: a time limit ends it without a teardown.
    with guarded(str(folder)), start(words, folder, name="foreign", env=outside) as head:
        head.until(lambda: "Ray runtime started" in head.stdout, 120)
        environment = {"RAY_ADDRESS": f"127.0.0.1:{port}", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
        yield Foreign(head, environment)
        head.kill_all()  # it would drain for half a minute
        head.assert_gone(10)
    shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]
