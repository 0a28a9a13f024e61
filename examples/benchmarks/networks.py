"""The networks that the benchmarks train and compare."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from torch import nn


class BasicBlock(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = _shortcut(inputs, outputs, stride)

    def forward(self, x):
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (y + self.shortcut(x)).relu()


class Bottleneck(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        width = outputs // 4
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.shortcut = _shortcut(inputs, outputs, stride)

    def forward(self, x):
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())).relu()
        return (self.bn3(self.conv3(y)) + self.shortcut(x)).relu()


def _shortcut(inputs, outputs, stride):
    if stride == 1 and inputs == outputs:
        return nn.Sequential()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


def _resnet(stem, block, widths, depths, classes):
    blocks, inputs = [], 64
    for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        for i in range(depth):
            blocks.append(block(inputs, width, 2 if stage and not i else 1))
            inputs = width
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))


def resnet18():
    """ResNet-18 for 32x32 images."""
    stem = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    return _resnet(stem, BasicBlock, (64, 128, 256, 512), (2, 2, 2, 2), 10)


def resnet50():
    """ResNet-50 for 224x224 images."""
    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    return _resnet(stem, Bottleneck, (256, 512, 1024, 2048), (3, 4, 6, 3), 1000)


class Block(nn.Module):
    def __init__(self, d, heads):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.mlp = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d))
        self.heads = heads

    def forward(self, x):
        n, t, d = x.shape
        qkv = self.qkv(self.norm1(x)).view(n, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(*qkv)
        x = x + self.out(attended.transpose(1, 2).reshape(n, t, d))
        return x + self.mlp(self.norm2(x))


def transformer(d=192, depth=12, heads=3, vocabulary=0):
    """Transformer blocks without a head. The input is tokens: vectors, or indices into a vocabulary.

    The default has the size of ViT-Ti: 64 patches of a 32x32 image and a class token make 65 tokens.
    """
    embedding = [("embedding", nn.Embedding(vocabulary, d))] if vocabulary else []
    return nn.Sequential(OrderedDict([*embedding, *((f"block{i}", Block(d, heads)) for i in range(depth))]))


def large_transformer():
    """24 blocks with about 300 million parameters."""
    return transformer(1024, 24, 16, vocabulary=1000)


def mlp(width=512, depth=50):
    """Linear layers and ReLUs, initialised so that activations keep their scale over 50 layers."""
    net = nn.Sequential(*[m for _ in range(depth) for m in (nn.Linear(width, width), nn.ReLU())])
    for layer in net[::2]:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return net


@dataclass(frozen=True)
class Network:
    """A network, its inputs and the layers to compare.

    Attributes:
        make: Returns a new network.
        shape: The shape of one input.
        batch: The batch size.
        layers: The layers to compare.
        title: The name in tables.
        precision: The Trainer's precision.
        vocabulary: Number of tokens, for networks whose inputs are indices.
        peer_layers: The layers to compare with other packages, if not ``layers``. Their rounding errors are largest on
            layers that end in a ReLU.
    """

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    batch: int
    layers: Any
    title: str
    precision: str = "32-true"
    vocabulary: int = 0
    peer_layers: Any = None

    def inputs(self, samples):
        """Return random inputs (samples, *shape)."""
        if self.vocabulary:
            return torch.randint(self.vocabulary, (samples, *self.shape))
        return torch.randn(samples, *self.shape)


_TRANSFORMER_LAYERS = ["net.block*", "**.out", "**.mlp"]

NETWORKS = {
    "ResNet-18": Network(
        resnet18, (3, 32, 32), 128, [nn.Conv2d, BasicBlock], "ResNet-18 for 32x32 images"
    ),
    "transformer": Network(
        transformer, (65, 192), 128, _TRANSFORMER_LAYERS, "transformer, 12 blocks, d = 192, 65 tokens"
    ),
    "MLP": Network(mlp, (512,), 256, nn.Linear, "MLP, 50 layers of 512", peer_layers=nn.ReLU),
    "ResNet-50": Network(
        resnet50, (3, 224, 224), 128, [nn.Conv2d, Bottleneck], "ResNet-50 for 224x224 images"
    ),
    "large transformer": Network(
        large_transformer, (512,), 64, _TRANSFORMER_LAYERS, "transformer, 24 blocks, d = 1024, 512 tokens, bf16-mixed",
        precision="bf16-mixed", vocabulary=1000,
    ),
}  # fmt: skip

ON_CPU = ["ResNet-18", "transformer", "MLP"]
"""The networks that are small enough for a CPU."""


class Lit(L.LightningModule):
    """A LightningModule whose training step does nothing: the learning rate is zero."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        return self(batch[0][:4]).float().mean() * 0

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)
