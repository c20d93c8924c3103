#!/usr/bin/env bash
# torch 2.15.0: AveragedModel of a network that calls its layers through a closure computes with the weights of the
# network that is trained, and not with the average, without a word.
#
# AveragedModel deep-copies the network. A function keeps what it closed over, which copy.deepcopy does not follow, so
# the copy's function still calls the layers of the original: the average in its parameters is right, is saved, and is
# never used in its own forward pass. A bound method in the same place is rebound to the copy.
# Here one weight goes from 1 to 3 and the average, of decay 0.5, is first copied and then 0.5 * 1 + 0.5 * 3 = 2.
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
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class Network(nn.Module):
    def __init__(self, closure: bool) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1, bias=False)
        self.apply_layer = (lambda x: self.layer(x)) if closure else self.call

    def call(self, x):
        return self.layer(x)

    def forward(self, x):
        return self.apply_layer(x)


print("torch", torch.__version__.split("+")[0])
for closure in (False, True):
    network = Network(closure)
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    with torch.no_grad():
        for value in (1.0, 3.0):
            network.layer.weight.fill_(value)
            average.update_parameters(network)
        output = average(torch.ones(1, 1)).item()
    print("closure:" if closure else "method:", "averaged weight", average.module.layer.weight.item(), "output", output)
PYTHON
diff "$T/seen" - <<'SEEN'
torch 2.15.0
method: averaged weight 2.0 output 2.0
closure: averaged weight 2.0 output 3.0
SEEN
