"""What one value or rule that is wrong is told as. Whole files are in test_load.py."""

from __future__ import annotations

from typing import Any

import pytest

from raycls.config.load import ConfigProblemsError, Problem, from_dict


def problems(values: dict[str, Any]) -> dict[str, Problem]:
    with pytest.raises(ConfigProblemsError) as caught:
        from_dict(values)
    found = {problem.path: problem for problem in caught.value.problems}
    assert len(found) == len(caught.value.problems)
    return found


@pytest.mark.parametrize(
    ("section", "key", "value", "what", "fix"),
    [
        ("optim", "lr", "0.1", "type", "write 0.1"),
        ("optim", "lr", True, "type", None),
        ("optim", "lr", 0, "range", None),
        ("optim", "lr", float("inf"), "range", None),
        ("optim", "lr", None, "type", "leave the key out to use the default"),
        ("data", "executor", "inlin", "choices", "did you mean inline?"),
        ("data", "executor", "123", "choices", None),
        ("optim", "clip_norm", "none", "choices", "did you mean off?"),
        ("optim", "clip_norm", False, "type", "write off"),
        ("optim", "clip_norm", -1, "range", None),
        ("scale", "workers", -1, "range", None),
        ("data", "batch_size", 64.0, "type", "write 64"),
        ("data", "batch_size", 64.5, "type", None),
        ("data", "formats", "jpeg", "type", "write [jpeg]"),
        ("run", "name", "../x", "not allowed", None),
        ("run", "name", 2026, "type", "write '2026'"),
        ("run", "storage", "", "not allowed", None),
        ("train", "duration", 10, "type", "write 10ep or write 10st"),
        ("train", "budget", "soon", "choices", None),
        ("schedule", "warmup", "1.5st", "whole", None),
        ("model", "args", [1], "type", None),
        ("augment", "train", "resize", "type", "write [resize]"),
    ],
)
def test_one_wrong_value(section: str, key: str, value: Any, what: str, fix: str | None) -> None:
    found = problems({section: {key: value}})
    assert list(found) == [f"{section}.{key}"]
    problem = found[f"{section}.{key}"]
    assert what in problem.what
    assert problem.fix == fix
    assert problem.valid


@pytest.mark.parametrize(
    ("section", "key", "value", "path"),
    [
        ("augment", "train", ["resize", 5], "augment.train[1]"),
        ("augment", "std", [0.5, 0.5, -1], "augment.std[2]"),
        ("data", "formats", ["png", "jpg"], "data.formats[1]"),
    ],
)
def test_the_item_of_a_list_is_named(section: str, key: str, value: Any, path: str) -> None:
    assert list(problems({section: {key: value}})) == [path]


@pytest.mark.parametrize(
    ("values", "path", "words"),
    [
        ({"data": {"split": {"train": 0.5}}}, "data.split", "must be 1"),
        ({"data": {"split": {"train": 0, "val": 0.9}}}, "data.split.train", "greater than 0"),
        ({"data": {"executor": "ray"}, "scale": {"workers": 0}}, "data.executor", "scale.workers of 1 or more"),
        ({"scale": {"workers": 3}, "train": {"micro_batches": 2}}, "scale.workers", "must not exceed"),
        ({"schedule": {"name": "multistep"}}, "schedule.name", "needs schedule.args.milestones"),
        ({"train": {"duration": "2h"}}, "train.duration", "in epochs or steps"),
        ({"checkpoint": {"every": "0st"}}, "checkpoint.every", "greater than 0"),
        ({"optim": {"args": {"nesterov": True, "momentum": 0.0}}}, "optim", "needs args.momentum greater than 0"),
        ({"track": {"print_every": "5st"}}, "track.print_every", "a time"),
    ],
)
def test_rules_over_several_options(values: dict[str, Any], path: str, words: str) -> None:
    found = problems(values)
    assert list(found) == [path]
    assert words in found[path].what
    assert found[path].found


@pytest.mark.parametrize("key", ["storage", "storag"])
def test_credentials_in_an_address_are_refused_and_not_shown(key: str) -> None:
    found = problems({"run": {key: "s3://AKIA:hush@bucket/runs"}})
    assert list(found) == [f"run.{key}"]
    assert "s3://***@bucket/runs" in str(found[f"run.{key}"].found)
    assert "hush" not in repr(found)


@pytest.mark.parametrize(
    "address",
    [
        "runs",
        "a:b@c",
        "s3://bucket/a@b?region=eu",
        "hdfs://me@node:8020/runs",
        "abfs://box@account.dfs.core.windows.net/x",
    ],
)
def test_an_address_without_credentials_is_fine(address: str) -> None:
    assert from_dict({"run": {"storage": address}}).run.storage == address


def test_broken_rules_do_not_hide_each_other() -> None:
    found = problems(
        {
            "data": {"executor": "ray", "split": {"val": 0.5}, "batch_size": 2},
            "scale": {"workers": 0},
            "train": {"duration": "2h", "budget": "3ep", "micro_batches": 4},
            "schedule": {"name": "multistep"},
        }
    )
    assert set(found) == {
        "data.split",
        "data.executor",
        "train.duration",
        "train.budget",
        "train.micro_batches",
        "schedule.name",
    }


def test_a_rule_is_silent_about_an_option_that_is_wrong_itself() -> None:
    # without train the fractions are 0.7 + 0.1 + 0.1, which nobody wrote
    assert list(problems({"data": {"split": {"train": "0.8", "val": 0.1}}})) == ["data.split.train"]
    # an unreadable number of workers is not more than the micro-batches
    assert list(problems({"scale": {"workers": "8"}, "train": {"micro_batches": 4}})) == ["scale.workers"]


def test_a_number_is_no_name_of_an_operation_and_no_text() -> None:
    assert problems({"augment": {"train": [42]}})["augment.train[0]"].fix is None
    assert problems({"data": {"executor": "123"}})["data.executor"].found == "123"
    assert problems({"data": {"executor": "inlin"}})["data.executor"].found == "inlin (string)"


def test_unknown_keys_at_any_depth() -> None:
    found = problems({"modell": {"name": 3}, "train": {"early_stop": {"pacience": 3}}, "data": {"workers": 4, "lr": 1}})
    assert {path: problem.fix for path, problem in found.items()} == {
        "modell": "did you mean model?",
        "train.early_stop.pacience": "did you mean train.early_stop.patience?",
        "data.workers": "did you mean scale.workers?",
        "data.lr": "did you mean optim.lr?",
    }
    assert found["train.early_stop.pacience"].valid == "patience, min_delta"
    assert "optim" in str(found["modell"].valid)


def test_a_dotted_key_in_a_file_is_explained() -> None:
    fix = problems({"data.source.name": "folder"})["data.source.name"].fix
    assert fix == "keys are nested in a file: data: {source: {name: ...}}"


def test_keys_of_args_are_free() -> None:
    assert from_dict({"model": {"args": {"anything": {"deep": 1}}}}).model.args == {"anything": {"deep": 1}}


def test_a_section_without_values_is_empty_and_one_that_is_a_value_is_wrong() -> None:
    assert from_dict({"optim": None, "model": {"args": None}}) == from_dict({})
    assert problems({"optim": "adam"})["optim"].found == "adam (string)"
    assert problems({"data": {"source": ["x"]}})["data.source"].valid == "a section with name, path, args"


def test_the_loaded_config_shares_nothing_with_its_source() -> None:
    values: dict[str, Any] = {"model": {"args": {"list": [1]}}}
    run = from_dict(values)
    values["model"]["args"]["list"].append(2)
    assert run.model.args == {"list": [1]}
