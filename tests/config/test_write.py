from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
import yaml

from raycls.config.load import from_dict, load_text
from raycls.config.sections.run import Run
from raycls.config.write import flow, leaves, override, render, schema_json, to_dict, to_yaml, word

HARD = [
    "no",
    "1e-3",
    "0o17",
    "",
    " x",
    "a: b",
    "a # b",
    "two\nlines",
    "null",
    "*a",
    "12:30",
    "é 𝄞",
    "\u2028",
    "'",
    "[a",
]


@pytest.mark.parametrize("text", HARD)
def test_texts_survive_writing_and_reading(text: str) -> None:
    run = from_dict({"model": {"args": {"x": text, "list": [text, {"k": text}]}}})
    assert load_text(to_yaml(run)).run == run
    assert yaml.safe_load(to_yaml(run))["model"]["args"]["x"] == text  # a reader of YAML 1.1 sees the same


@pytest.mark.parametrize("value", [*HARD, ["*.txt", "it's"], {"a b": [1, None]}, 3, 1e-7, True])
def test_an_override_survives_a_shell(value: Any) -> None:
    typed = override("model.args.x", value)
    word = subprocess.run(["bash", "-c", f"printf %s {typed}"], capture_output=True, check=True).stdout.decode()
    path, _, text = word.partition("=")
    assert (path, load_text(f"model: {{args: {{x: {text}}}}}").run.model.args["x"]) == ("model.args.x", value)


@pytest.mark.parametrize(
    "text", [*HARD, "my photos", "001", "it's", "$HOME", "-x", "~/a", '"', '"a"', "'a'", "a\\b", "`id`"]
)
def test_an_override_of_a_text_survives_a_shell(text: str) -> None:
    typed = override("data.source.path", text)
    word = subprocess.run(["bash", "-c", f"printf %s {typed}"], capture_output=True, check=True).stdout.decode()
    assert load_text("", overrides=[word]).run.data.source.path == text


def test_an_override_is_quoted_no_more_than_it_must_be() -> None:
    assert override("run.name", "001") == "run.name=001"
    assert override("model.args.x", "001") == """model.args.x='"001"'"""
    assert override("data.source.path", "my photos") == "data.source.path='my photos'"
    assert override("optim.lr", 0.1) == "optim.lr=0.1"
    assert override("optim.ema", "off") == "optim.ema=off"


@pytest.mark.parametrize(("path", "typed"), [("runs/a", "runs/a"), ("my runs/a", "'my runs/a'"), ("-x/a", "./-x/a")])
def test_a_path_is_one_word_of_a_command_and_never_an_option(path: str, typed: str) -> None:
    assert word(path) == typed


def test_a_config_with_everything_survives_both_ways() -> None:
    values: dict[str, Any] = {
        "data": {"formats": ["png", "jpeg"], "source": {"args": {"big": 10**30, "none": None, "e": {}, "l": []}}},
        "augment": {"train": ["resize", {"rotation": {"degrees": 1e-07}}], "mean": [0, 0.5, 1]},
        "train": {"duration": "300st", "micro_batches": 4, "budget": "2h"},
        "optim": {"name": "adam", "clip_norm": 1.0, "args": {"eps": 1e-12}},
        "schedule": {"name": "multistep", "args": {"milestones": ["30ep", "60ep"]}},
    }
    run = from_dict(values)
    assert from_dict(json.loads(json.dumps(to_dict(run)))) == run
    assert load_text(to_yaml(run)).run == run


def test_the_plain_form_holds_plain_values_only() -> None:
    kinds = {type(value) for _, value in leaves(to_dict(Run()))}
    assert kinds <= {str, int, float, bool, type(None), list, dict}
    assert to_dict(Run())["train"]["duration"] == "10ep"


def test_flow_is_one_line() -> None:
    assert flow({"a": [1, "off"]}) == "{a: [1, 'off']}"
    assert "\n" not in flow("word " * 100)
    assert flow(None) == "null"


def test_comments_stand_behind_their_values() -> None:
    text = render({"optim": {"lr": 0.1, "name": "sgd"}}, {"optim.lr": "a.yaml:2", "optim.name": "default"})
    assert text == "optim:\n  lr: 0.1    # a.yaml:2\n  name: sgd  # default\n"


def test_the_schema_names_every_option_with_its_description() -> None:
    schema = json.loads(schema_json())
    assert schema["additionalProperties"] is False
    assert list(schema["properties"]) == ["extends", *Run.model_fields]
    batch_size = schema["$defs"]["DataConfig"]["properties"]["batch_size"]
    assert batch_size["minimum"] == 1
    assert batch_size["default"] == 64
    assert "global batch" in batch_size["description"]
