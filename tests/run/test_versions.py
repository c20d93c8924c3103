"""Versions of here and there."""

from __future__ import annotations

import sys

import numpy
import torch

from raycls import __version__
from raycls.run.versions import differences, installed


def test_installed_is_what_the_modules_say() -> None:
    found = installed()
    assert found["numpy"] == numpy.__version__
    assert found["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert (found["raycls"], found["python"]) == (__version__, sys.version.split()[0])


def test_builds_and_patch_levels_of_python_are_no_difference() -> None:
    here = {"python": "3.11.7", "torch": "2.15.0+cpu", "ray": "2.60.0", "numpy": "2.4.6"}
    assert differences({"python": "3.11.2", "torch": "2.15.0+cu126", "ray": "2.60.0", "numpy": "2.4.6"}, here) == []
    there = {"python": "3.12.7", "torch": "2.15.1+cpu", "ray": "2.60.0", "numpy": "missing", "other": "1"}
    assert differences(there, here) == [
        "python 3.12.7 (here 3.11.7)",
        "torch 2.15.1+cpu (here 2.15.0+cpu)",
        "numpy missing (here 2.4.6)",
    ]
