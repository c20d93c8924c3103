from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from raycls.run.strict_json import dumps


def test_what_json_has_no_word_for() -> None:
    value = {"a": float("nan"), "b": [float("inf"), -float("inf")], "c": np.float32("nan"), 1: (1, 2)}
    assert json.loads(dumps(value)) == {"a": "nan", "b": ["inf", "-inf"], "c": "nan", "1": [1, 2]}


def test_scalars_of_other_libraries_are_plain_numbers() -> None:
    value = [np.int64(3), np.float64(0.1), torch.tensor(2.5), np.bool_(True), True, None]
    assert dumps(value) == "[3,0.1,2.5,true,true,null]"


def test_floats_come_back_exactly() -> None:
    values = [0.1, 1e-310, 1.7976931348623157e308, -0.0, 1 / 3]
    assert [item.hex() for item in json.loads(dumps(values))] == [item.hex() for item in values]


def test_text_that_is_no_utf8_can_be_written() -> None:
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    assert json.loads(dumps({"class": name}).encode()) == {"class": name}
    assert dumps("Käfer") == '"Käfer"'


def test_anything_else_is_refused() -> None:
    with pytest.raises(TypeError, match="set"):
        dumps({"a": {1, 2}})
