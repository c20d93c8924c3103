"""A network without its head, with what contrastive pretraining puts after it."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from raycls.errors import ModelError
from raycls.models.surgery import LAYERS, find_head
from raycls.randomness import seeded

__all__ = ["Momentum", "Projected"]


class Projected(nn.Module):
    """`encoder`, the network with an identity for its head; `projection`, which the contrastive loss looks at; and
    `probe`, a linear layer from the features to the classes that no gradient leaves: it measures what they are worth
    (the online evaluation of Chen et al. 2020's code).

    The projection is a perceptron with one hidden layer as wide as the features (section 3 there). In evaluation mode
    the network is a classifier: images `[B, 3, H, W]` to the logits `[B, num_classes]` of the probe.
    """

    def __init__(self, network: nn.Module, num_classes: int, dimensions: int, seed: int) -> None:
        """`network` is taken over. Raises ModelError where it has no head that can be taken off."""
        super().__init__()
        self.encoder, width = _without_head(network, num_classes)
        with seeded(seed):
            self.projection = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, dimensions))
            self.probe = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Any:
        """In training mode the projections `[B, dimensions]` and the logits."""
        if not self.training:
            return self.probe(self.encoder(images))
        return self.projected(images)

    def projected(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.encoder(images)
        return self.projection(features), self.probe(features.detach())


class Momentum(Projected):
    """`Projected` with what momentum contrast (He et al. 2020) needs besides: a second encoder and projection that
    follow the first ones slowly, and a queue of the keys that they gave.

    Both are buffers, which a checkpoint holds and the exact reduction keeps equal on all workers. A buffer becomes the
    mean of what the micro-batches of a step made of it, each from the same start. So all of them do the same to the
    slow encoder and to the queue; and each leaves its keys in its own rows of `incoming` and zeros in the others, which
    gives all keys, divided by the number of micro-batches: their length is 1 again when the next step queues them.
    """

    queue: Tensor
    """`[queue, dimensions]`, rows of length 1."""
    incoming: Tensor
    """`[batch_size, dimensions]`: the keys of the step before, which are not queued yet."""
    place: Tensor
    """Where the next key goes in the queue."""

    def __init__(
        self,
        network: nn.Module,
        num_classes: int,
        dimensions: int,
        seed: int,
        *,
        queue: int,
        batch_size: int,
        momentum: float,
        groups: int,
    ) -> None:
        super().__init__(network, num_classes, dimensions, seed)
        self._momentum, self._groups = momentum, groups
        self.slow = nn.Module()
        for name, tensor in self._followed().items():
            self.slow.register_buffer(_flat(name), tensor.detach().clone())
        with seeded(seed):
            self.register_buffer("queue", F.normalize(torch.randn(queue, dimensions), dim=1))
        self.register_buffer("incoming", torch.zeros(batch_size, dimensions))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))

    def forward(self, images: Tensor, others: Tensor | None = None, start: int = 0) -> Any:
        """In training mode the projections of `images`, their logits, and the keys `[B, dimensions]` of `others`, which
        are the rows from `start` on of the global batch. Batch normalisation sees `groups` parts of a micro-batch, for
        the keys in another order: else it tells which key belongs to which image (section 3.3)."""
        if not self.training:
            return self.probe(self.encoder(images))
        parts = max(1, min(self._groups, len(images) // 2))
        found = [self.projected(part) for part in images.tensor_split(parts)]
        keys = self._keys(images if others is None else others, parts, start)
        return torch.cat([each for each, _ in found]), torch.cat([each for _, each in found]), keys

    @torch.no_grad()
    def _keys(self, images: Tensor, parts: int, start: int) -> Tensor:
        self._enqueue()
        self._follow()
        order = torch.randperm(len(images)).to(images.device)
        keys = torch.cat([self._slow(part) for part in images[order].tensor_split(parts)])
        keys = F.normalize(keys[order.argsort()].float(), dim=1)
        self.incoming.zero_()
        self.incoming[start : start + len(keys)] = keys
        return keys

    def _enqueue(self) -> None:
        keys = self.incoming[self.incoming.norm(dim=1) > 0]
        places = (self.place + torch.arange(len(keys), device=keys.device)) % len(self.queue)
        self.queue[places] = F.normalize(keys, dim=1)
        self.place.copy_((self.place + len(keys)) % len(self.queue))

    def _follow(self) -> None:
        """Parameters follow by `momentum`; the statistics of batch normalisation are the slow encoder's own."""
        trained = dict(self.named_parameters())
        for name in self._followed():
            if name in trained:
                self._held(name).lerp_(trained[name].to(self._held(name).dtype), 1 - self._momentum)

    def _slow(self, images: Tensor) -> Tensor:
        held: dict[str, dict[str, Tensor]] = {"encoder": {}, "projection": {}}
        for name in self._followed():
            module, _, rest = name.partition(".")
            held[module][rest] = self._held(name)
        features = functional_call(self.encoder, held["encoder"], (images,))
        return functional_call(self.projection, held["projection"], (features,))

    def _held(self, name: str) -> Tensor:
        return self.slow.get_buffer(_flat(name))

    def _followed(self) -> dict[str, Tensor]:
        """What the slow ones have a copy of, by its name here."""
        found = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        return {name: tensor for name, tensor in found.items() if name.startswith(("encoder.", "projection."))}


def _flat(name: str) -> str:
    """A name without dots: buffers have none. A file of these weights holds no second network under its own names."""
    return name.replace(".", "/")


def _without_head(network: nn.Module, num_classes: int) -> tuple[nn.Module, int]:
    """The network with an identity for its head, and how many features came to that."""
    name = find_head(network, num_classes)
    if not name:
        raise ModelError(
            "the network has no head that can be taken off for pretraining",
            where="model.name",
            valid=f"a network whose last linear layer or convolution has one output per class, here {num_classes}",
        )
    parent, _, last = name.rpartition(".")
    head = network.get_submodule(name)
    width = head.in_features if isinstance(head, nn.Linear) else head.in_channels
    if not isinstance(head, LAYERS) or not isinstance(width, int):
        raise ModelError("the head of the network is of no known kind", where="model.name", found=type(head).__name__)
    setattr(network.get_submodule(parent), last, nn.Identity())
    return network, width
