"""Which arithmetic is chosen, and that a process gets its own back."""

from __future__ import annotations

import pytest
import torch

from raycls.errors import TrainError
from raycls.train import precision
from raycls.train.precision import arithmetic, emulated, precision_dtype, resolve_precision

_CPU = torch.device("cpu")


def _settings() -> tuple[object, ...]:
    return (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.deterministic,
    )


@pytest.mark.parametrize("native", [True, False])
def test_auto_on_a_cpu(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: native)
    assert resolve_precision("auto", _CPU) == ("bf16" if native else "off")


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "fp16"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_auto_on_a_gpu(capability: tuple[int, int], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert resolve_precision("auto", torch.device("cuda")) == expected


def test_emulated_bf16_is_refused_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "an old GPU")
    with pytest.raises(TrainError, match="no bf16"):
        resolve_precision("bf16", torch.device("cuda"))


@pytest.mark.parametrize("choice", ["bf16", "fp16", "off"])
def test_a_choice_is_kept(choice: str) -> None:
    assert resolve_precision(choice, _CPU) == choice


def test_dtypes() -> None:
    assert [precision_dtype(name) for name in ("bf16", "fp16", "off")] == [torch.bfloat16, torch.float16, None]


@pytest.mark.parametrize("strict", [True, False])
def test_settings_are_put_back_after_an_error(strict: bool) -> None:
    before = _settings()
    with pytest.raises(KeyError), arithmetic(threads=1, strict=strict):
        assert _settings() == (1, True, False, False, True)
        assert torch.is_deterministic_algorithms_warn_only_enabled() is not strict
        raise KeyError
    assert _settings() == before


def test_an_operation_without_a_deterministic_kernel_is_named() -> None:
    before = _settings()
    with pytest.raises(TrainError, match="no deterministic kernel") as caught, arithmetic(threads=1, strict=True):
        torch.zeros(3).put_(torch.tensor([0, 0]), torch.ones(2))
    assert caught.value.found == "put_, under exact"
    assert "train.reduction=fast" in str(caught.value.fix)
    assert _settings() == before


def test_such_an_operation_is_only_warned_of_where_bits_are_not_promised() -> None:
    with pytest.warns(UserWarning, match="put_ does not have"), arithmetic(threads=1, strict=False):
        torch.zeros(3).put_(torch.tensor([0, 0]), torch.ones(2))


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes") as caught, arithmetic(threads=1, strict=True):
        torch.mm(torch.ones(2, 3), torch.ones(2, 3))
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("capabilities", "slow"),
    [
        ({"avx2": True, "avx512_f": True}, ["bf16", "fp16"]),
        ({"avx512_bf16": True, "amx_fp16": False}, ["fp16"]),
        ({"amx_tile": True}, ["fp16"]),
        ({"amx_tile": True, "amx_fp16": True}, []),
        ({"avx512_bf16": True, "avx512_fp16": True}, []),
        ({}, ["bf16", "fp16"]),
    ],
)
def test_what_a_cpu_emulates(capabilities: dict[str, bool], slow: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: capabilities.get("avx512_bf16", False))
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: capabilities.get("amx_tile", False))
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert [name for name in ("bf16", "fp16", "off") if emulated(name, _CPU)] == slow
    assert all(f"train.amp {name}" in (emulated(name, _CPU) or "") for name in slow)


def test_a_gpu_emulates_no_fp16() -> None:
    assert emulated("fp16", torch.device("cuda")) is None


def test_nothing_but_bf16_counts_as_native(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert precision.native_bf16(_CPU)
