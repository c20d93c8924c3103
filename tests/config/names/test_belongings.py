"""Arguments belong to the name they were set with, in every pair of a name and its arguments."""

from __future__ import annotations

from pathlib import Path

import pytest

from raycls.config.load import ConfigProblemsError, Loaded, from_dict, load, load_text, show, to_dict, to_yaml
from raycls.config.names.belongings import named, searched_notes
from raycls.config.space.check import apply, space_of

FILE = """
model: {name: tiny_cnn, args: {width: 64, depth: 2}}
data: {source: {name: folder, path: photos, args: {ignore: ["*.txt"]}}}
optim: {name: sgd, lr: 0.2, args: {momentum: 0.8, nesterov: true}}
schedule: {name: step, args: {every: 3ep, gamma: 0.5}, warmup: 1ep}
search: {scheduler: {name: asha, grace: 2ep, reduction: 3}}
"""


def loaded(folder: Path, *overrides: str, text: str = "", base: str = FILE) -> Loaded:
    (folder / "base.yaml").write_text(base)
    (folder / "mine.yaml").write_text("extends: base.yaml\n" + text)
    return load(folder / "mine.yaml", overrides)


def test_the_pairs_are_found_in_the_schema() -> None:
    assert set(named()) == {("model",), ("data", "source"), ("task",), ("loss",), ("optim",), ("schedule",)}


@pytest.mark.parametrize("typed", [True, False])
def test_another_name_drops_what_belongs_to_the_old_one(typed: bool, tmp_path: Path) -> None:
    if typed:
        found = loaded(tmp_path, "model.name=resnet18", "data.source.name=manifest")
    else:
        found = loaded(tmp_path, text="model: {name: resnet18}\ndata: {source: {name: manifest}}")
    assert (found.run.model.name, found.run.model.args) == ("resnet18", {})
    assert (found.run.data.source.path, found.run.data.source.args) == ("photos", {})
    assert found.origins["model.args"] == "default"
    notes = "\n".join(found.notes)
    for words in ("model.args {width: 64, depth: 2} of tiny_cnn", "model.name is resnet18", "data.source.args"):
        assert words in notes
    assert len(found.notes) == 2
    assert all(f"# {note}\n" in show(found) for note in found.notes)
    assert load_text(show(found)).run == found.run


@pytest.mark.parametrize("turned", [False, True])
def test_what_is_set_beside_the_new_name_or_later_stays(turned: bool, tmp_path: Path) -> None:
    words = ["model.args.dropout=0.5", "model.name=vgg11"]
    found = loaded(tmp_path, *(reversed(words) if turned else words))
    assert found.run.model.args == {"dropout": 0.5}
    beside = loaded(tmp_path, "model.args.last=1", text="model: {args: {dropout: 0.5}, name: vgg11}")
    assert beside.run.model.args == {"dropout": 0.5, "last": 1}


def test_the_same_name_keeps_its_arguments(tmp_path: Path) -> None:
    found = loaded(tmp_path, "model.name=tiny_cnn", "model.args.width=32", "optim.name=sgd")
    assert found.run.model.args == {"width": 32, "depth": 2}
    assert found.run.optim.args == {"momentum": 0.8, "nesterov": True}
    assert found.notes == ()


def test_the_default_name_is_a_name_too(tmp_path: Path) -> None:
    base = "model: {args: {zero_init_residual: true}}"
    assert loaded(tmp_path, "model.name=resnet18", base=base).run.model.args == {"zero_init_residual": True}
    other = loaded(tmp_path, "model.name=vgg11", base=base)
    assert other.run.model.args == {}
    assert "of resnet18 left out" in other.notes[0]


def test_a_name_that_comes_back_has_its_arguments_again(tmp_path: Path) -> None:
    found = loaded(tmp_path, "model.name=tiny_cnn", text="model: {name: vgg11, args: {dropout: 0.1}}")
    assert found.run.model.args == {"width": 64, "depth": 2}
    assert found.origins["model.args.width"] == "base.yaml:2"
    assert [note for note in found.notes if "model.args" in note] == [
        "model.args {dropout: 0.1} of vgg11 left out: model.name is tiny_cnn now"
    ]


def test_options_that_only_the_old_name_reads_are_dropped_and_told(tmp_path: Path) -> None:
    found = loaded(tmp_path, "optim.name=adamw", "schedule.name=cosine", "search.scheduler.name=median")
    assert (found.run.optim.lr, found.run.optim.args) == (0.2, {"betas": [0.9, 0.999], "eps": 1e-8})
    assert (found.run.schedule.args, str(found.run.schedule.warmup)) == ({"min_factor": 0.0}, "1ep")
    assert str(found.run.search.scheduler.grace) == "2ep"  # median reads it too
    told = [note.partition(" left out")[0] for note in found.notes]
    assert told == [
        "optim.args {momentum: 0.8, nesterov: true} of sgd",
        "schedule.args {every: 3ep, gamma: 0.5} of step",
        "search.scheduler.reduction 3",
    ]
    assert loaded(tmp_path, "optim.name=rmsprop").run.optim.args["momentum"] == 0.9  # rmsprop's own


def test_a_value_that_is_the_default_is_not_told(tmp_path: Path) -> None:
    whole = to_yaml(from_dict({"run": {"name": "a"}, "model": {"name": "tiny_cnn"}}))
    assert loaded(tmp_path, "optim.name=adamw", "schedule.name=cosine", "model.name=vgg11", base=whole).notes == ()


def test_an_argument_beside_the_new_name_must_be_one_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(ConfigProblemsError) as caught:
        loaded(tmp_path, "optim.name=adamw", "optim.args.momentum=0.5")
    assert [(problem.path, problem.where) for problem in caught.value.problems] == [("optim.args", "command line")]


def test_arguments_of_a_run_folder_do_not_go_to_another_source() -> None:
    kept = to_yaml(from_dict({"data": {"source": {"name": "folder", "args": {"ignore": ["x"]}}}}))
    assert load_text(kept, overrides=["data.source.name=manifest"]).run.data.source.args == {}
    assert load_text(kept, overrides=["data.source.path=a"]).run.data.source.args == {"ignore": ["x"]}


def test_a_trial_with_another_model_has_arguments_of_its_own() -> None:
    run = load_text(
        "model: {name: tiny_cnn, args: {width: 64}}\n"
        "search: {space: {model.name: [tiny_cnn, vgg11], "
        "model.args.dropout: {when: {model.name: vgg11}, values: [0.1]}}}"
    ).run
    models = [apply(run, chosen).model for chosen in space_of(run).combinations()]
    assert [(model.name, model.args) for model in models] == [("tiny_cnn", {"width": 64}), ("vgg11", {"dropout": 0.1})]
    assert to_dict(run)["model"]["args"] == {"width": 64}
    (note,) = searched_notes(run, space_of(run).paths)
    assert "{width: 64} of tiny_cnn" in note
    assert searched_notes(run, ("optim.lr",)) == []


@pytest.mark.parametrize(
    ("weights", "name", "left", "words"),
    [
        ("IMAGENET1K_V1", "tiny_cnn", None, "left out"),
        ("IMAGENET1K_V1", "resnet50", "IMAGENET1K_V1", "stays"),
        ("IMAGENET1K_SWAG_E2E_V1", "resnet50", None, "left out"),
        ("ResNet18_Weights.IMAGENET1K_V1", "resnet50", None, "left out"),
        ("mine.safetensors", "tiny_cnn", "mine.safetensors", ""),
        ("models/MINE", "tiny_cnn", "models/MINE", ""),
    ],
)
def test_the_name_of_published_weights_belongs_to_the_model(
    weights: str, name: str, left: str | None, words: str, tmp_path: Path
) -> None:
    base = f"model: {{name: resnet18, weights: {weights}}}"
    found = loaded(tmp_path, f"model.name={name}", base=base)
    assert found.run.model.weights == left
    assert [words in note and weights in note for note in found.notes] == ([True] if words else [])
    run = load_text(base).run
    assert apply(run, {"model.name": name}).model.weights == left
    assert bool(searched_notes(run, ["model.name"])) == bool(words)
    assert loaded(tmp_path, f"model.name={name}", "model.weights=X", base=base).run.model.weights == "X"
