"""What an export needs and the package does not bring: the extra `export`."""

from __future__ import annotations

from importlib import import_module

from raycls.errors import ConfigError

__all__ = ["check_extra"]


def check_extra() -> None:
    """ConfigError with the line that installs it where onnx, onnxscript or onnxruntime is missing."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        try:
            import_module(package)
        except ImportError as error:
            raise ConfigError(
                f"an export needs the package {package}",
                found=f"it cannot be imported: {error}",
                fix="pip install 'raycls[export]'",
            ) from error
