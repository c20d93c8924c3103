"""Single weights set to zero: the smallest of the whole network, through `torch.nn.utils.prune`."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils import prune

from raycls.config.sections.model import Pruned
from raycls.errors import ModelError
from raycls.models.pruned import MASK, masked_weights

__all__ = ["zero_smallest"]


def zero_smallest(model: nn.Module, ratio: float) -> tuple[dict[str, Pruned], dict[str, Tensor]]:
    """Set the part `ratio` of the weights that are smallest in magnitude to zero, in place.

    They are ranked over all convolutions, linear layers and attention together (L1, Han et al. 2015). Returns what
    `model.pruned` says of them, and the tensors of the network with a mask beside each.
    ModelError where there are no such weights.
    """
    names = masked_weights(model)
    if not names:
        raise ModelError(
            "this network has nothing that can be pruned",
            where="model.name",
            found="no convolution, linear layer or attention",
        )
    places = [(model.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2]) for name in names]
    prune.global_unstructured(places, pruning_method=prune.L1Unstructured, amount=ratio)
    masks = {name + MASK: getattr(module, own + MASK).bool() for name, (module, own) in zip(names, places, strict=True)}
    for module, own in places:
        prune.remove(module, own)
    return dict.fromkeys(names, "masked"), {**model.state_dict(), **masks}
