"""The peer of `startup.py`: the same network and images under `torchrun`, gloo, DistributedDataParallel, a DataLoader.

    torchrun --nproc-per-node 2 tests/benchmarks/startup_torchrun.py IMAGES STEPS.jsonl

Writes the time at which each step was done on rank 0.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler
from torchvision import datasets, transforms

_STEPS, _BATCH, _WIDTH = 4, 32, 16


def network(classes: int) -> nn.Sequential:
    """Three stages of convolution, normalisation and halving, as `tiny_cnn`."""
    layers: list[nn.Module] = []
    channels = 3
    for width in (_WIDTH, 2 * _WIDTH, 4 * _WIDTH):
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        layers += [nn.MaxPool2d(2)]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def main() -> None:
    images, log = sys.argv[1:]
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    rank, world = distributed.get_rank(), distributed.get_world_size()
    augment = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    data = datasets.ImageFolder(f"{images}/train", transforms.Compose(augment))
    sampler = DistributedSampler(data, seed=0)
    loader = DataLoader(data, batch_size=_BATCH // world, sampler=sampler, num_workers=1, persistent_workers=True)
    model = DistributedDataParallel(network(len(data.classes)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    step, epoch = 0, 0
    with Path(log).open("w") as file:
        while step < _STEPS:
            sampler.set_epoch(epoch)
            for pixels, labels in loader:
                loss = nn.functional.cross_entropy(model(pixels), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                step += 1
                if rank == 0:
                    file.write(json.dumps({"step": step, "time": time.time(), "loss": loss.item()}) + "\n")
                    file.flush()
                if step == _STEPS:
                    break
            epoch += 1
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
