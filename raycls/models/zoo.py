"""From the `model` section of a config to a network with its first weights."""

from __future__ import annotations

import copy
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torchvision.models import WeightsEnum

from raycls.config.names.builtin import MODELS
from raycls.config.sections.model import ModelConfig
from raycls.errors import ConfigError, ModelError, RayclsError, kind_and_line
from raycls.models import library, pruned
from raycls.models.networks import timm_models
from raycls.models.surgery import LAYERS, beside, buffers_kept, find_head, initialise, modes_kept
from raycls.models.weights import channels, find
from raycls.models.weights.find import Remote
from raycls.models.weights.loading import Loaded, load_into
from raycls.plugins import bind, resolve
from raycls.randomness import kept, seeded

__all__ = [
    "build",
    "check",
    "check_copy",
    "check_head",
    "forward_alone",
    "load",
    "not_trainable",
    "probe",
    "settled",
    "size_text",
]


def check(config: ModelConfig) -> None:
    """Check the model's name, arguments and weights without building it.

    Raises ConfigError for a name, an argument or a weights name that does not exist, and ModelError for a
    weights file that is not there.
    """
    _, offered = _find(config)
    if config.weights is not None:
        _locate(config, offered)


def build(
    config: ModelConfig, num_classes: int, seed: int, *, load: bool = True, classes: Sequence[str] | None = None
) -> nn.Module:
    """The network on the CPU, with its first weights: `[B, channels, H, W]` floats in, logits `[B, num_classes]` out.

    The weights depend on the arguments alone; torch's, numpy's and Python's global generators are left as
    they were found. With `load=False` the weights that the config names are not read, for a network that
    gets others anyway (a resumed run, an evaluation, `load`); its architecture is the same. `classes` are the names of
    the outputs, for weights that name theirs.

    Raises ConfigError as `check` does, and ModelError when the network cannot be built or its weights cannot
    be had or do not fit.
    """
    factory, offered = _find(config)
    published = find.published(config.weights, offered) if config.weights is not None else None
    if load and config.weights is not None:
        _locate(config, offered)  # before the network is built, which may take long
    with seeded(seed):
        model = _construct(config, factory, num_classes, published)
        channels.take(model, config.in_channels, config.name)
        initialise(model, config.init)
        pruned.apply(model, config.pruned)
    if load:
        _load(config, model, num_classes, classes)
    return model


def settled(config: ModelConfig) -> ModelConfig:
    """The same network without its weights: what those decide of it is among `args`."""
    factory, offered = _find(config)
    if offered is None:
        return config.model_copy(update={"weights": None})
    weights = find.published(config.weights, offered) if config.weights is not None else None
    return config.model_copy(update={"weights": None, "args": library.settled(factory, config.args, weights)})


def load(config: ModelConfig, model: nn.Module, classes: Sequence[str]) -> Loaded:
    """Load the weights that the config names into `model`, for these classes; what was done, for the user."""
    return _load(config, model, len(classes), classes)


def _load(config: ModelConfig, model: nn.Module, num_classes: int, classes: Sequence[str] | None) -> Loaded:
    if config.weights is None:
        loaded = Loaded((), None)
    else:
        loaded = load_into(
            model, _locate(config, _find(config)[1]), num_classes, classes, config.weights, config.in_channels
        )
    if not config.name.startswith(timm_models.PREFIX) or loaded.preprocessing is not None:
        return loaded
    told = timm_models.preprocessing_of(config.name, model)
    return loaded if told is None else replace(loaded, notes=(*loaded.notes, str(told)), preprocessing=told)


def _locate(config: ModelConfig, offered: type[WeightsEnum] | None) -> WeightsEnum | Path | Remote:
    """`find.locate` of the weights that the config names."""
    name = str(config.weights)
    try:
        return find.locate(name, offered)
    except ConfigError as error:
        if config.name.startswith(timm_models.PREFIX) and error.fix is None and "/" not in name:  # perhaps a tag
            raise timm_models.no_download(config.name, "model.weights", name) from error
        raise


def probe(model: nn.Module, example: tuple[Tensor, ...], outputs: tuple[int, ...] | None) -> None:
    """Run `example`, what the network takes for one sample, twice in a batch, in evaluation mode, on its device.

    Raises ModelError when the network cannot take it, or does not return a tensor of the shape `outputs`, where that is
    given. Weights, buffers, training flags and generators stay as they are.
    """
    try:
        with modes_kept(model), torch.no_grad(), seeded(0):
            output = model.eval()(*beside(model, example, 2))
    except RayclsError:
        raise
    except (Exception, SystemExit) as error:
        alone = len(example) == 1
        raise ModelError(
            f"the model cannot process {'images' if alone else 'what the task calls it with, tensors'} of "
            f"{size_text(example)}",
            found=_reason(error),
            fix="change data.image_size, or the model's arguments (model.args)"
            if alone
            else "let `example` of the task return what its `loss` calls the network with, and nothing else",
        ) from error
    found = f"shape {list(output.shape)}" if isinstance(output, torch.Tensor) else type(output).__name__
    if outputs is not None and (not isinstance(output, Tensor) or output.shape != outputs):
        raise ModelError(
            "the model does not return what the task needs of it, such as one row of logits per image",
            where="model.name",
            found=f"{found} for 2 images",
            valid=f"a tensor of shape {list(outputs)}",
        )


def forward_alone(model: nn.Module, example: tuple[Tensor, ...], train: Callable[[], object]) -> None:
    """One image through `model` in the mode that `train` sets, which leaves it as it was. No copy: some have none."""
    with buffers_kept(model), modes_kept(model), kept(), torch.no_grad():
        train()
        model(*example)


def not_trainable(error: BaseException, example: tuple[Tensor, ...]) -> ModelError:
    """What a network raised in a forward pass in training mode, as an error."""
    return ModelError(
        "the model cannot be trained: its forward pass fails in training mode",
        where="model.name",
        found=f"{kind_and_line(error)} (one image of {size_text(example)})",
        fix="correct the model, or its arguments (model.args)",
    )


def size_text(example: tuple[Tensor, ...]) -> str:
    """`224x224 pixels`, or the shapes where the network takes something else than images."""
    shapes = [list(part.shape[1:]) for part in example]
    if len(shapes) == 1 and len(shapes[0]) == 3:
        return f"{shapes[0][1]}x{shapes[0][2]} pixels"
    return "shape " + " and ".join(map(str, shapes))


def check_head(model: nn.Module, num_classes: int, example: tuple[Tensor, ...]) -> None:
    """Raise ModelError where the layer that `find_head` names is not the last with `num_classes` outputs to compute.

    Its rows are moved by the names of the classes; those of a layer inside of the network must not be.
    """
    head, called = find_head(model, num_classes), list[str]()
    hooks = [
        module.register_forward_hook(lambda module, inputs, output, name=name: called.append(name))
        for name, module in model.named_modules()
        if isinstance(module, LAYERS) and module.weight.shape[0] == num_classes
    ]
    try:
        probe(model, example, None)
    finally:
        for hook in hooks:
            hook.remove()
    if called and called[-1] != head:
        raise ModelError(
            "the rows of the head cannot be moved to the classes of the data: which layer it is, is not clear",
            where="model.name, model.weights",
            found=f"{head} is defined last, and {called[-1]} computes last, both with {num_classes} outputs",
            fix=f"define {called[-1]} after the other layers in the network's __init__",
        )


def check_copy(model: nn.Module, name: str, example: tuple[Tensor, ...]) -> None:
    """Raise ModelError where a moving average of `model`, which starts as a deep copy, would not be one.

    The copy fails, or shares weights with the original, or computes with the original's on `example` (a function that
    the network keeps, and that refers to it, is not copied). `name` is the model's.
    """
    try:
        copied = copy.deepcopy(model)
    except Exception as error:
        raise _no_copy(name, "it cannot be copied", _reason(error)) from error
    own = {tensor.data_ptr() for tensor in model.parameters() if tensor.numel()}
    shared = [key for key, tensor in copied.named_parameters() if tensor.numel() and tensor.data_ptr() in own]
    if shared:
        raise _no_copy(name, "its copy shares weights with it", ", ".join(shared[:5]))
    trained = {key: tensor for key, tensor in model.named_parameters() if tensor.requires_grad}
    try:
        with seeded(0), torch.enable_grad():
            output = copied.eval()(*beside(model, example))
            found = torch.autograd.grad(output.sum(), list(trained.values()), allow_unused=True)
    except Exception:  # noqa: BLE001 - nothing of the original took part, or the forward pass itself tells what is wrong
        return
    used = [key for key, gradient in zip(trained, found, strict=True) if gradient is not None]
    if used:
        raise _no_copy(name, "its copy computes with the weights of the original", ", ".join(used[:5]))


def _no_copy(name: str, what: str, found: str) -> ModelError:
    return ModelError(
        f"optim.ema averages a copy of the model, and {what}",
        where="optim.ema, model.name",
        found=f"{name}: {found}",
        valid="a network that copy.deepcopy copies whole",
        fix="optim.ema=off, or correct the network (its __deepcopy__, or what it keeps besides parameters and modules)",
    )


def _find(config: ModelConfig) -> tuple[Callable[..., nn.Module], type[WeightsEnum] | None]:
    """The function that builds the network, and the weights that torchvision offers for it."""
    if config.name.startswith(timm_models.PREFIX):
        factory = timm_models.builder(config.name, config.args)
        bind(factory, config.args, given=("num_classes",), where="model.args")
        return factory, None
    known = library.builtins()
    factory = resolve("model", config.name, {**MODELS, **known})
    if config.name not in known:
        bind(factory, config.args, given=("num_classes",), where="model.args")
        return factory, None
    bind(library.declared(factory), config.args, given=("num_classes",), where="model.args")
    return factory, library.weights_of(factory)


def _construct(
    config: ModelConfig, factory: Callable[..., Any], num_classes: int, source: WeightsEnum | None
) -> nn.Module:
    try:
        if config.name in library.builtins():
            model = library.construct(factory, num_classes, config.args, source)
        else:
            model = factory(num_classes=num_classes, **config.args)
    except RayclsError:
        raise
    except (Exception, SystemExit) as error:
        raise ModelError(
            f"the model {config.name} cannot be built",
            where="model.args",
            found=_reason(error),
            fix="correct model.args" if config.args else None,
        ) from error
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"{config.name} did not return a network",
            where="model.name",
            found=type(model).__name__,
            valid="a function or class that returns a torch.nn.Module",
        )
    lazy = [name for name, parameter in model.named_parameters() if is_lazy(parameter)]
    if lazy:
        raise ModelError(
            f"{config.name} has parameters whose shape is not known yet",
            where="model.name",
            found=", ".join(lazy[:5]),
            fix="give all layers their sizes instead of using lazy modules",
        )
    return model


def _reason(error: BaseException) -> str:
    """The error in one line, with the place that raised it: the last one in the user's own code, where there is one."""
    frames = traceback.extract_tb(error.__traceback__)
    last = next((frame for frame in reversed(frames) if _is_own(Path(frame.filename))), frames[-1])
    return f"{kind_and_line(error)} ({last.filename}:{last.lineno})"


def _is_own(file: Path) -> bool:
    """Whether a file of code is under the working directory and of no package that is installed, nor of raycls."""
    foreign = "site-packages" in file.parts or file.is_relative_to(Path(__file__).parents[1])
    return file.is_relative_to(Path.cwd()) and not foreign
