"""Which arithmetic a run uses: mixed precision, threads, deterministic kernels."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from raycls.errors import TrainError

__all__ = ["arithmetic", "autocast", "cpu_kind", "emulated", "precision_dtype", "resolve_precision"]

_REFUSAL = " does not have a deterministic implementation"
"""What torch says of an operation, after its name (at::Context::alertNotDeterministic)."""


def native_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bf16 itself: CUDA from sm80 on, CPUs with AVX512-BF16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def native_fp16(device: torch.device) -> bool:
    """Whether the device multiplies fp16 itself: every CUDA device, CPUs with AVX512-FP16 or AMX-FP16."""
    if device.type == "cuda":
        return True
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_fp16") or capabilities.get("amx_fp16"))


def emulated(precision: str, device: torch.device) -> str | None:
    """Why training in `precision` (`bf16`, `fp16` or `off`) is slow on `device`, or None where it is native there."""
    native = {"bf16": native_bf16, "fp16": native_fp16}.get(precision)
    if native is None or native(device):
        return None
    return (
        f"train.amp {precision}: this CPU ({cpu_kind()}) has no {precision} arithmetic of its own and emulates it, "
        "which takes many times as long as off (38 times for a ResNet-18 on AVX2)"
    )


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """What a forward pass in `precision` (`bf16`, `fp16` or `off`) is run in; it may be entered again and again."""
    dtype = precision_dtype(precision)
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


def resolve_precision(choice: str, device: torch.device) -> str:
    """`bf16`, `fp16` or `off`; `auto` is decided by the device. TrainError where the device cannot do it."""
    if choice == "auto":
        if native_bf16(device):
            return "bf16"
        return "fp16" if device.type == "cuda" else "off"
    if choice == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise TrainError(
            "this GPU has no bf16",
            where="train.amp",
            found=torch.cuda.get_device_name(device),
            fix="set train.amp=fp16 or train.amp=off",
        )
    return choice


def precision_dtype(precision: str) -> torch.dtype | None:
    """The dtype that autocast uses, None where it is off."""
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)


def cpu_kind() -> str:
    """The instruction sets by which oneDNN and MKL choose their kernels, such as `AVX512+bf16`."""
    kind = torch.backends.cpu.get_cpu_capability()
    kind += "+bf16" if torch.cpu._is_avx512_bf16_supported() else ""
    return kind + ("+amx" if torch.cpu._is_amx_tile_supported() else "")


@contextmanager
def arithmetic(*, threads: int, strict: bool) -> Iterator[None]:
    """Set the CPU threads and deterministic kernels, and put both back: a debugger's process lives on.

    `strict` refuses an operation that has no deterministic kernel, with a TrainError; otherwise it is only warned of.
    """
    before = (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.deterministic,
    )
    torch.set_num_threads(threads)
    # cuBLAS sums in a fixed order only with a workspace of fixed size; read when it is first used
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=not strict)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False  # would choose kernels by their time, anew in each process
    torch.backends.cudnn.deterministic = True
    try:
        yield
    except RuntimeError as error:
        if _REFUSAL in str(error):
            raise _not_deterministic(str(error)) from error
        raise
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1], warn_only=before[2])
        torch.utils.deterministic.fill_uninitialized_memory = before[3]  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = before[4]
        torch.backends.cudnn.deterministic = before[5]


def _not_deterministic(text: str) -> TrainError:
    operation = text.partition(_REFUSAL)[0].rpartition("\n")[2]
    return TrainError(
        "the model needs an operation for which torch has no deterministic kernel on this device",
        where="train.reduction",
        found=f"{operation}, under exact",
        fix="use a layer without it, or set train.reduction=fast, which only warns of it; then start with --new",
    )
