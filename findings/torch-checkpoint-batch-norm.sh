#!/usr/bin/env bash
# torch 2.15.0: torch.utils.checkpoint updates the running statistics of batch norm twice in one training step, without a
# word, and batch norm does not count what it does to them as a change.
#
# A block that is checkpointed runs a second time in the backward pass. Generators and autocast are put back for it, so
# gradients are the same; running_mean and running_var are moved again, and num_batches_tracked goes up by two: the
# network in evaluation mode is another one. Who looks for buffers that a block changed by `_version` does not find them.
# With momentum 0.5, all inputs 1 and first statistics 0, running_mean is 0.5 after one pass and 0.75 after two.
#
# Exit 0: still so. Exit 1: it has changed.
set -euo pipefail
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
python3 -m venv "$T/venv"
"$T/venv/bin/python" -m pip install --quiet uv==0.13.9
"$T/venv/bin/uv" pip install --quiet --python "$T/venv/bin/python" torch==2.15.0 numpy==2.4.6
"$T/venv/bin/python" - <<'PYTHON' | tee "$T/seen"
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

print("torch", torch.__version__.split("+")[0])
for again in (False, True):
    norm = nn.BatchNorm1d(1, momentum=0.5)
    block = nn.Sequential(norm, nn.Sigmoid())
    version = norm.running_mean._version
    values = torch.ones(4, 1)
    output = checkpoint(block, values, use_reentrant=False) if again else block(values)
    output.sum().backward()
    print(
        "checkpoint:" if again else "plain:",
        "running_mean", norm.running_mean.item(),
        "batches", norm.num_batches_tracked.item(),
        "changes counted", norm.running_mean._version - version,
    )
PYTHON
diff "$T/seen" - <<'SEEN'
torch 2.15.0
plain: running_mean 0.5 batches 1 changes counted 0
checkpoint: running_mean 0.75 batches 2 changes counted 0
SEEN
