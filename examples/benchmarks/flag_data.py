"""Small data sets for `flags.py`: digits, tables, patches of photos, text and sequences. Nothing is downloaded."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from sklearn import datasets

LENGTH = 24
"""Characters in a sample of text, and steps in a sequence."""


class Data(NamedTuple):
    """Samples for training and for the probe set, which do not overlap.

    Attributes:
        x: Inputs of training.
        y: Targets of training.
        probe: Inputs of the probe set.
        groups: A class of each probe sample, for plants that shift a class.
    """

    x: torch.Tensor
    y: torch.Tensor
    probe: torch.Tensor
    groups: torch.Tensor


def split(x, y, groups, num_probe):
    """Return shuffled samples, the first ``num_probe`` of them for the probe set."""
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    probe, rest = order[:num_probe], order[num_probe:]
    return Data(x[rest], y[rest], x[probe], groups[probe])


def scaled(x):
    """Return features with mean 0 and standard deviation 1."""
    x = torch.as_tensor(x, dtype=torch.float32)
    return (x - x.mean(0)) / x.std(0).clamp(min=1e-6)


@lru_cache
def digits():
    """Return 8x8 images of digits and their classes."""
    x, y = datasets.load_digits(return_X_y=True)
    x, y = torch.tensor(x, dtype=torch.float32).view(-1, 1, 8, 8) / 8 - 1, torch.tensor(y)
    return split(x, y, y, 768)


@lru_cache
def table(name):
    """Return a table of scikit-learn with scaled features and targets."""
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    y = torch.tensor(y, dtype=torch.float32)
    groups = (y > y.median()).long() if len(y.unique()) > 10 else y.long()
    return split(scaled(x), scaled(y), groups, 256)


@lru_cache
def friedman():
    """Return a regression with interactions of ten uniform features."""
    x, y = datasets.make_friedman1(4096, 10, noise=0.5, random_state=0)
    y = scaled(y)
    return split(scaled(x), y, (y > 1).long(), 1024)


@lru_cache
def blobs():
    """Return six classes of several clusters each in 20 dimensions."""
    options = {"n_features": 20, "n_informative": 10, "n_classes": 6, "n_clusters_per_class": 2}
    x, y = datasets.make_classification(4096, **options, random_state=0)
    return split(scaled(x), torch.tensor(y), torch.tensor(y), 1024)


@lru_cache
def patches(size=12):
    """Return square patches of two photos, with the photo as the class."""
    found, places = [], torch.Generator().manual_seed(0)
    for photo in datasets.load_sample_images().images:
        image = torch.tensor(photo.copy(), dtype=torch.float32).permute(2, 0, 1) / 127.5 - 1
        for _ in range(1500):
            row, column = (int(torch.randint(side - size, (), generator=places)) for side in image.shape[1:])
            found.append(image[:, row : row + size, column : column + size])
    x, y = torch.stack(found), torch.arange(2).repeat_interleave(1500)
    return split(x, y, y, 768)


@lru_cache
def text():
    """Return pieces of this repository's documents as characters; the targets are the next characters."""
    root = Path(__file__).parents[2]
    content = "".join(path.read_text() for path in (root / "README.md", root / "CHANGELOG.md"))
    codes = torch.tensor([min(ord(character), 127) for character in content])
    starts = torch.arange(0, len(codes) - LENGTH - 1, 8)
    windows = codes[starts[:, None] + torch.arange(LENGTH + 1)]
    return split(windows[:, :-1], windows[:, 1:], (windows[:, 0] == 32).long(), 768)


@lru_cache
def waves():
    """Return noisy sine waves; the target is the frequency."""
    made = torch.Generator().manual_seed(0)
    frequency = 0.1 + 0.8 * torch.rand(3072, 1, generator=made)
    phase = 6.3 * torch.rand(3072, 1, generator=made)
    x = (frequency * torch.arange(LENGTH) + phase).sin() + 0.3 * torch.randn(3072, LENGTH, generator=made)
    return split(x[..., None], scaled(frequency)[:, 0], (frequency[:, 0] > 0.7).long(), 768)


@lru_cache
def noise():
    """Return Gaussian noise, the input of a generator."""
    x = torch.randn(3072, 16, generator=torch.Generator().manual_seed(0))
    return split(x, x, (x[:, 0] > 1).long(), 768)
