"""What a trained network answers in, by what it was trained in and where it is asked."""

from __future__ import annotations

import pytest
import torch

from raycls.session.trained.precision import answering


@pytest.mark.parametrize(
    ("trained", "asked", "chosen", "expected"),
    [
        ("cpu bf16", "cpu bf16", "auto", "bf16"),
        ("cpu bf16", "cpu none", "auto", "off"),
        ("cpu bf16", "cpu none", "bf16", "bf16"),  # it emulated while it trained, and does so again
        ("cuda bf16", "cpu bf16", "auto", "bf16"),
        ("cuda bf16", "cpu none", "bf16", "off"),  # nobody asked this CPU to emulate
        ("cuda fp16", "cpu bf16", "auto", "off"),
        ("cuda fp16", "cuda bf16", "auto", "fp16"),
        ("cuda bf16", "cuda none", "bf16", "off"),
        ("cpu off", "cuda bf16", "auto", "off"),
        ("cpu ", "cpu bf16", "auto", "off"),  # a plan that no start has completed
    ],
)
def test_what_a_trained_network_answers_in(
    trained: str, asked: str, chosen: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained_on, _, given = trained.partition(" ")
    kind, _, native = asked.partition(" ")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native == "bf16")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0) if native == "bf16" else (7, 5))
    assert answering(given, torch.device(kind), trained_on=trained_on, chosen=chosen) == expected
