#!/usr/bin/env bash
# torch 2.15.0: FlopCounterMode counts no operation at all in nn.MultiheadAttention and nn.TransformerEncoderLayer
# in evaluation mode without gradients.
#
# There both take torch's fused path (aten::_native_multi_head_attention, aten::_transformer_encoder_layer_fwd), for
# which the counter has no formula, and says nothing. With gradients enabled the same modules run as matrix products
# and are counted in full. By hand, for one sequence of 10 tokens, width 64, 4 heads: the input projection
# 2*10*64*192 = 245760, queries by keys and weights by values 2*2*4*10*10*16 = 25600, the output projection
# 2*10*64*64 = 81920: 353280 in all. A vision transformer that is counted as one would run it (eval, no_grad) keeps
# its patch embedding and its MLPs or loses these too: a budget of operations is then worth nothing.
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
from torch.utils.flop_counter import FlopCounterMode

tokens = torch.zeros(1, 10, 64)
attention = nn.MultiheadAttention(64, 4, batch_first=True).eval()
encoder = nn.TransformerEncoderLayer(64, 4, dim_feedforward=128, batch_first=True).eval()
calls = {
    "MultiheadAttention": lambda: attention(tokens, tokens, tokens, need_weights=False),
    "TransformerEncoderLayer": lambda: encoder(tokens),
}
print("torch", torch.__version__.split("+")[0])
for name, call in calls.items():
    counts = []
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients), FlopCounterMode(display=False) as counter:
            call()
        counts.append(counter.get_total_flops())
    print(f"{name}: {counts[0]} with gradients, {counts[1]} without")
PYTHON
diff "$T/seen" - <<'SEEN'
torch 2.15.0
MultiheadAttention: 353280 with gradients, 0 without
TransformerEncoderLayer: 680960 with gradients, 0 without
SEEN
