"""What medical images need and the package does not bring: the extra `medical`."""

from __future__ import annotations

import logging
import re
import warnings
from importlib import import_module
from types import ModuleType

from raycls.errors import ConfigError

__all__ = ["INSTALL", "module"]

INSTALL = "pip install 'raycls[medical]'"
_SILENT = ("ignore", None, Warning, re.compile(r"(pydicom|nibabel|raycls\.data\.volumes)(\.|$)"), 0)
_LOGGERS = ("pydicom", "nibabel.global", "pylibjpeg", "openjpeg", "libjpeg")


def module(name: str) -> ModuleType:
    """The module `name` of pydicom or nibabel, which says nothing on its own from now on: its messages quote values of
    a file, which may be a patient's. ConfigError with the line that installs it where it is missing."""
    if _SILENT not in warnings.filters:
        warnings.filterwarnings("ignore", module=_SILENT[3].pattern)
    for logger in map(logging.getLogger, _LOGGERS):
        logger.setLevel(logging.CRITICAL + 1)
    try:
        return import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"this data needs the package {name.partition('.')[0]}",
            where="data.source.name",
            found=f"it cannot be imported: {error}",
            fix=INSTALL,
        ) from error
