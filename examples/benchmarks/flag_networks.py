"""Twenty healthy networks of various kinds for `flags.py`, which train in seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks import flag_data as data


class Residual(nn.Module):
    """A block that adds its output to its input."""

    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return x + self.layers(x)


class Attention(nn.Module):
    """A transformer block."""

    def __init__(self, d, *, causal=False):
        super().__init__()
        self.norm1, self.norm2, self.qkv, self.out = (
            nn.LayerNorm(d),
            nn.LayerNorm(d),
            nn.Linear(d, 3 * d),
            nn.Linear(d, d),
        )
        self.mlp = nn.Sequential(nn.Linear(d, 2 * d), nn.GELU(), nn.Linear(2 * d, d))
        self.causal = causal

    def forward(self, x):
        n, t, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(n, t, 3, 2, d // 2).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + self.out(mixed.transpose(1, 2).reshape(n, t, d))
        return x + self.mlp(self.norm2(x))


class Tokens(nn.Module):
    """A transformer that gives one output per token, or one per sample."""

    def __init__(self, embedding, d, length, outputs, *, causal=False, pooled=True):
        super().__init__()
        self.embedding, self.position = embedding, nn.Parameter(0.1 * torch.randn(length, d))
        self.blocks = nn.Sequential(*(Attention(d, causal=causal) for _ in range(3)))
        self.norm, self.head, self.pooled = nn.LayerNorm(d), nn.Linear(d, outputs), pooled

    def forward(self, x):
        x = self.norm(self.blocks(self.embedding(x) + self.position))
        return self.head(x.mean(1) if self.pooled else x)


class Recurrent(nn.Module):
    """A recurrent network with a linear head on its last output."""

    def __init__(self, kind, width, outputs):
        super().__init__()
        self.rnn, self.hidden, self.head = (
            kind(1, width, batch_first=True),
            nn.Linear(width, width),
            nn.Linear(width, outputs),
        )

    def forward(self, x):
        return self.head(self.hidden(self.rnn(x)[0][:, -1]).relu())


class Variational(nn.Module):
    """A variational autoencoder, whose `forward` also returns mean and log-variance of the code."""

    def __init__(self, inputs, width, code):
        super().__init__()
        self.encoder = mlp(inputs, width, width, depth=2)
        self.mean, self.spread, self.decoder = nn.Linear(width, code), nn.Linear(width, code), mlp(code, width, inputs)

    def forward(self, x):
        hidden = self.encoder(x).relu()
        mean, spread = self.mean(hidden), self.spread(hidden)
        code = mean + torch.randn_like(mean) * (spread / 2).exp() if self.training else mean
        return self.decoder(code), mean, spread


class Adversarial(nn.Module):
    """A generator and a discriminator. The part that is compared is called in `forward`."""

    def __init__(self, width, *, compares):
        super().__init__()
        self.generator = mlp(16, width, 64)
        self.discriminator = nn.Sequential(nn.Flatten(), mlp(64, width, 1, act=lambda: nn.LeakyReLU(0.2)))
        self.compares = compares

    def forward(self, x):
        return getattr(self, self.compares)(x)


def mlp(inputs, width, outputs, depth=4, act=nn.ReLU, norm=None):
    """Return linear layers with activations."""
    layers = [nn.Flatten()]
    for i in range(depth - 1):
        layers += [nn.Linear(width if i else inputs, width), *([norm(width)] if norm else []), act()]
    return nn.Sequential(*layers, nn.Linear(width if depth > 1 else inputs, outputs))


def cnn(channels, width, outputs, norm=None):
    """Return convolutions with pooling, and a linear head."""
    layers = []
    for i in range(3):
        layers += [
            nn.Conv2d(width if i else channels, width, 3, padding=1),
            *([norm(width)] if norm else []),
            nn.ReLU(),
        ]
        layers += [nn.MaxPool2d(2)] if i == 0 else []
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, outputs))


def conv_autoencoder(width):
    """Return an autoencoder of images with three channels."""
    return nn.Sequential(
        *(nn.Conv2d(3, width, 3, 2, 1), nn.ReLU(), nn.Conv2d(width, 2 * width, 3, 2, 1), nn.ReLU()),
        *(nn.Conv2d(2 * width, 8, 1), nn.Conv2d(8, 2 * width, 1), nn.ReLU()),
        *(nn.ConvTranspose2d(2 * width, width, 2, 2), nn.ReLU(), nn.ConvTranspose2d(width, 3, 2, 2)),
    )


def denoiser(width):
    """Return a convolutional network that keeps the size of its input."""
    convs = (nn.Conv2d(width, width, 3, padding=1) for _ in range(3))
    hidden = (layer for conv in convs for layer in (nn.ReLU(), conv))
    return nn.Sequential(nn.Conv2d(3, width, 3, padding=1), *hidden, nn.ReLU(), nn.Conv2d(width, 3, 3, padding=1))


def vision_transformer(d):
    """Return a transformer over 2x2 patches of digits."""

    embedding = nn.Sequential(nn.PixelUnshuffle(2), nn.Flatten(2), _Transposed(), nn.Linear(4, d))
    return Tokens(embedding, d, 16, 10)


class _Transposed(nn.Module):
    def forward(self, x):
        return x.transpose(1, 2)


def classes(net, x, y):
    return functional.cross_entropy(net(x), y)


def next_token(net, x, y):
    return functional.cross_entropy(net(x).flatten(0, 1), y.flatten())


def binary(of):
    """Return a loss for a single logit; ``of`` makes the target of the classes."""
    return lambda net, x, y: functional.binary_cross_entropy_with_logits(net(x)[:, 0], of(y).float())


def regression(net, x, y):
    return functional.mse_loss(net(x)[:, 0], y)


def ink(net, x, y):
    """Predict how much ink the left and the right half of an image have."""
    return functional.mse_loss(net(x), torch.stack([half.mean((1, 2, 3)) for half in x.chunk(2, 3)], 1) * 4)


def several_labels(net, x, y):
    """Predict three properties of a digit."""
    labels = torch.stack([y % 2, (y > 4).long(), y % 3 // 2], 1).float()
    return functional.binary_cross_entropy_with_logits(net(x), labels)


def reconstruction(net, x, y):
    return functional.mse_loss(net(x).view_as(x), x)


def denoising(net, x, y):
    noise = 0.3 * torch.randn_like(x)
    return functional.mse_loss(net(x + noise), noise)


def variational(net, x, y):
    output, mean, spread = net(x)
    divergence = (mean.square() + spread.exp() - 1 - spread).sum(1).mean()
    return functional.mse_loss(output, x.flatten(1), reduction="sum") / len(x) + 0.3 * divergence


def contrastive(net, x, y):
    """Compare two views of each image: flipped, with other brightness and noise."""
    views = [
        net(view * (0.6 + 0.8 * torch.rand(len(x), 1, 1, 1)) + 0.1 * torch.randn_like(x)) for view in (x, x.flip(3))
    ]
    one, other = (functional.normalize(view, dim=1) for view in views)
    return functional.cross_entropy(one @ other.T / 0.2, torch.arange(len(x)))


def adversarial(net, x, y):
    """Return the losses of both players; each one's gradient stays in its own weights."""
    real = x if x.ndim == 4 else data.digits().x[torch.randint(len(data.digits().x), (len(x),))]
    fake = net.generator(torch.randn(len(x), 16)).tanh()
    logits = [net.discriminator(each) for each in (real, fake.detach())]
    targets = [torch.full_like(logits[0], value) for value in (0.9, 0.0)]
    own = sum(map(functional.binary_cross_entropy_with_logits, logits, targets))
    for parameter in net.discriminator.parameters():
        parameter.requires_grad_(False)
    fooled = functional.softplus(-net.discriminator(fake)).mean()
    for parameter in net.discriminator.parameters():
        parameter.requires_grad_(True)
    return own + fooled


@dataclass(frozen=True)
class Kind:
    """A kind of network.

    Attributes:
        make: Returns a new network of a given width.
        data: Returns its data.
        loss: Loss of the network for inputs and targets.
        epochs: Epochs of training.
        width: Width of the network.
        rate: Learning rate of Adam.
    """

    make: Callable[[int], nn.Module]
    data: Callable[[], data.Data]
    loss: Callable[[nn.Module, torch.Tensor, torch.Tensor], Any]
    epochs: int = 15
    width: int = 48
    rate: float = 2e-3

    @property
    def has_tokens(self):
        """Whether inputs are indices, which cannot be moved a little."""
        return not self.data().probe.is_floating_point()

    def trained(self, seed, epochs=None):
        """Return a network with its initial weights, and after training."""
        torch.manual_seed(seed)
        net = self.make(self.width)
        initial = {key: value.clone() for key, value in net.state_dict().items()}
        optimizer = torch.optim.Adam(net.parameters(), self.rate, betas=(0.8, 0.99))
        x, y = self.data().x, self.data().y
        net.train()
        for _ in range(self.epochs if epochs is None else epochs):
            for rows in torch.randperm(len(x)).split(64):
                optimizer.zero_grad()
                self.loss(net, x[rows], y[rows]).backward()
                optimizer.step()
        first = self.make(self.width)
        first.load_state_dict(initial)
        return first.eval(), net.eval()


def _image_patches():
    return data.patches()


KINDS = {
    "MLP classifier": Kind(lambda w: mlp(64, w, 10), data.digits, classes),
    "tanh MLP classifier": Kind(lambda w: mlp(64, w, 10, act=nn.Tanh), data.digits, classes),
    "residual MLP, LayerNorm": Kind(
        lambda w: nn.Sequential(
            nn.Flatten(),
            nn.Linear(64, w),
            *(Residual(nn.LayerNorm(w), nn.Linear(w, 2 * w), nn.GELU(), nn.Linear(2 * w, w)) for _ in range(3)),
            nn.Linear(w, 10),
        ),
        data.digits,
        classes,
    ),
    "CNN classifier": Kind(lambda w: cnn(1, w // 2, 10), data.digits, classes, 10),
    "CNN classifier, BatchNorm": Kind(lambda w: cnn(1, w // 2, 10, nn.BatchNorm2d), data.digits, classes, 10),
    "vision transformer": Kind(lambda w: vision_transformer(w), data.digits, classes, 10),
    "tabular classifier": Kind(lambda w: mlp(20, w, 6), data.blobs, classes),
    "binary MLP, balanced": Kind(lambda w: mlp(64, w, 1), data.digits, binary(lambda y: y % 2)),
    "binary CNN, one class in ten": Kind(lambda w: cnn(1, w // 2, 1), data.digits, binary(lambda y: y == 0), 8),
    "binary MLP, breast cancer": Kind(
        lambda w: mlp(30, w, 1), lambda: data.table("breast_cancer"), binary(lambda y: y > 0), 20
    ),
    "three labels": Kind(lambda w: mlp(64, w, 3, norm=nn.BatchNorm1d), data.digits, several_labels),
    "regression MLP": Kind(lambda w: mlp(10, w, 1), data.friedman, regression, 10),
    "regression MLP, diabetes": Kind(
        lambda w: mlp(10, w, 1), lambda: data.table("diabetes"), regression, 30, rate=1e-3
    ),
    "regression CNN, two outputs": Kind(lambda w: cnn(1, w // 2, 2), data.digits, ink, 8),
    "autoencoder": Kind(lambda w: mlp(64, w, 64, depth=5), data.digits, reconstruction),
    "convolutional autoencoder": Kind(lambda w: conv_autoencoder(w // 3), _image_patches, reconstruction, 6),
    "variational autoencoder": Kind(lambda w: Variational(64, w, 8), data.digits, variational, 15),
    "denoiser": Kind(lambda w: denoiser(w // 3), _image_patches, denoising, 6),
    "contrastive encoder": Kind(lambda w: cnn(3, w // 2, 16), _image_patches, contrastive, 6),
    "GAN, discriminator": Kind(lambda w: Adversarial(w, compares="discriminator"), data.digits, adversarial, 20),
    "GAN, generator": Kind(lambda w: Adversarial(w, compares="generator"), data.noise, adversarial, 12),
    "language model": Kind(
        lambda w: Tokens(nn.Embedding(128, w), w, data.LENGTH, 128, causal=True, pooled=False), data.text, next_token, 4
    ),
    "LSTM, regression": Kind(lambda w: Recurrent(nn.LSTM, w, 1), data.waves, regression, 8, rate=4e-3),
}
