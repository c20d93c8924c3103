"""`tiny_cnn`: a net small enough for a laptop's CPU, for small images."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["TinyCnn", "tiny_cnn"]


class TinyCnn(nn.Module):
    """Four 3x3 convolutions with batch norm, `width/2`, `width`, `2*width` and `4*width` channels.

    All but the first halve height and width, then the mean over positions feeds one linear layer. With
    `width=64` and 10 classes that are 0.39 M parameters and 18 M multiply-adds for an image of 32x32.
    Input `[B, 3, H, W]` with H and W of 8 or more, output logits `[B, num_classes]`.
    """

    def __init__(self, num_classes: int, width: int = 32, dropout: float = 0.0) -> None:
        super().__init__()
        if width < 2:
            raise ValueError(f"width must be 2 or more, it is {width}")
        # The last layer pads by 2, so that an image of 8x8 still leaves 2x2 positions: batch norm over a
        # single image needs more than one value per channel.
        self.features = nn.Sequential(
            *_layer(3, width // 2, stride=1, padding=1),
            *_layer(width // 2, width, stride=2, padding=1),
            *_layer(width, 2 * width, stride=2, padding=1),
            *_layer(2 * width, 4 * width, stride=2, padding=2),
        )
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(4 * width, num_classes)
        for module in self.features:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.dropout(self.features(images).mean(dim=(2, 3))))


def tiny_cnn(num_classes: int, width: int = 32, dropout: float = 0.0) -> TinyCnn:
    """A net for images of 8x8 to about 64x64 pixels, see `TinyCnn`.

    `width` sets all channel counts, `dropout` acts before the last layer.
    """
    return TinyCnn(num_classes, width, dropout)


def _layer(inputs: int, outputs: int, *, stride: int, padding: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=padding, bias=False)
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU()
