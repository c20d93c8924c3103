"""What medical images need and the package does not bring: the extra `medical`."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

from raycls.errors import ConfigError

__all__ = ["INSTALL", "module", "quiet"]

INSTALL = "pip install 'raycls[medical]'"


def module(name: str) -> ModuleType:
    """The module `name` of pydicom or nibabel; ConfigError with the line that installs it where it is missing."""
    try:
        return import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"this data needs the package {name.partition('.')[0]}",
            where="data.source.name",
            found=f"it cannot be imported: {error}",
            fix=INSTALL,
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing is warned of or logged by the libraries: their messages quote values, which may be a patient's."""
    loggers = [logging.getLogger(name) for name in ("pydicom", "nibabel.global")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.CRITICAL + 1)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
