"""torchvision's classification models as its source lists them: names, weights and arguments, without importing it.

Importing torchvision takes seconds; a misspelt name should be told at once. The models are the functions of
`torchvision/models/*.py` that are decorated with `@register_model()`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from raycls.config.names.definitions import Definition, Definitions, read

__all__ = ["VIDEO", "TorchvisionModel", "arguments_of", "find", "names"]

VIDEO = frozenset(("r3d_18", "mc3_18", "r2plus1d_18", "swin3d_t"))
"""Those of `torchvision.models.video` that take volumes of any size."""

# Set by the builders themselves, or without a meaning here: auxiliary heads would change what the model returns.
_FIXED: Mapping[str, frozenset[str]] = {
    "DenseNet": frozenset({"growth_rate", "block_config", "num_init_features"}),
    "EfficientNet": frozenset({"last_channel"}),
    "GoogLeNet": frozenset({"aux_logits", "dropout_aux", "init_weights"}),
    "Inception3": frozenset({"aux_logits", "init_weights"}),
    "SqueezeNet": frozenset({"version"}),
    "SwinTransformer": frozenset({"stochastic_depth_prob"}),
    "SwinTransformer3d": frozenset({"stochastic_depth_prob"}),
}
# Taken by the builder before the class sees them, with the builder's defaults.
_ADDED: Mapping[str, Mapping[str, Any]] = {
    "EfficientNet": {"dropout": None},  # each size has its own
    "MaxVit": {"input_size": (224, 224)},
    "MobileNetV3": {"width_mult": 1.0, "reduced_tail": False, "dilated": False},
    "VisionTransformer": {"image_size": 224},
}
# Classes and functions, which a config file cannot hold.
_OBJECTS = frozenset(
    {
        "activation",
        "activation_layer",
        "block",
        "block_type",
        "blocks",
        "conv_stem_configs",
        "downsample_layer",
        "inception_blocks",
        "inverted_residual",
        "inverted_residual_setting",
        "norm_layer",
        "patch_embed",
        "stem_type",
    }
)


@dataclass(frozen=True)
class TorchvisionModel:
    """`weights` are the names of its weights enum, which is called `enum`; `signature` as a config may call it."""

    name: str
    enum: str
    weights: tuple[str, ...]
    signature: inspect.Signature | None


def arguments_of(name: str, written: inspect.Signature) -> inspect.Signature:
    """The arguments that a config may give to models of the class `name`, beside `num_classes`, all by keyword."""
    left_out = _FIXED.get(name, frozenset()) | _OBJECTS | {"num_classes"}
    own = written.parameters.values()
    defaults = {p.name: p.default for p in own if p.default is not p.empty and p.name not in left_out}
    defaults |= _ADDED.get(name, {})
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter("num_classes", keyword)]
    parameters += [inspect.Parameter(key, keyword, default=value) for key, value in defaults.items()]
    return inspect.Signature(parameters)


@cache
def names() -> tuple[str, ...]:
    """The name of every classification model, sorted; empty where torchvision is not installed as files."""
    return tuple(sorted(name for file in _files() if (found := read(str(file))) for name in _models(found, file)))


@cache
def find(name: str) -> TorchvisionModel | None:
    """The model of this name, or None. Only the file that defines it is looked at closely."""
    pattern = re.compile(rf"^def {re.escape(name)}\(", re.MULTILINE)
    for file in _files():
        if pattern.search(file.read_text(encoding="utf-8")) is None:
            continue
        found = read(str(file))
        if found is not None and name in _models(found, file):
            return _model(name, found)
    return None


def _files() -> list[Path]:
    spec = find_spec("torchvision")  # a package of the top level is found without running any of it
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    return sorted(
        file for folder in folders for sub in ("", "video") for file in Path(folder, "models", sub).glob("*.py")
    )


def _models(found: Definitions, file: Path) -> dict[str, Definition]:
    """The registered models of one file. One that is registered under another name than its own is not known here."""
    return {
        name: definition
        for name, definition in found.names.items()
        if any(decorator.partition("(")[0] == "register_model" for decorator in definition.decorators)
        and (file.parent.name != "video" or name in VIDEO)
    }


def _model(name: str, found: Definitions) -> TorchvisionModel:
    written = found.names[name].signature
    annotation = written.parameters["weights"].annotation if written and "weights" in written.parameters else ""
    enum = next((each for each in re.findall(r"\w+", annotation) if each in found.classes), "")
    weights = tuple(key for key in found.classes[enum].names if not key.startswith("_")) if enum else ()
    cls = written.return_annotation if written is not None else ""
    started = found.names[cls].signature if cls in found.names else None
    return TorchvisionModel(name, enum, weights, None if started is None else arguments_of(cls, started))
