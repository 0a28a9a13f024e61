"""Populations of features with known CKA: the infinite data that samples of `coverage.py` are drawn from.

A draw has the features x of a model, y of its reference, and z of the model at a later epoch.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning_cka.hsic.centering import u_centered
from lightning_cka.hsic.median import median_distance
from torch import Tensor

BATCH_SIZE = 64
"""Number of samples in a probe batch."""

NUM_FEATURES = 16
FAR = 10.0
"""Distance of the far samples, in units of the others'."""

VALUES = Path(__file__).parent / "population_values.json"
"""True values of CKA by population and kernel; this script computes them."""

Draw = Callable[[torch.Generator, int, int], tuple[Tensor, Tensor, Tensor]]
"""From a generator, the number of batches and the batch size: x, y and z, each ``(batches, n, features)``."""


def gaussian(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator)


def student_t3(generator: torch.Generator, *shape: int) -> Tensor:
    """Independent features with Student's t of 3 degrees of freedom, which have no fourth moment."""
    squares = gaussian(generator, *shape, 3).square().sum(-1)
    return gaussian(generator, *shape) / (squares / 3).sqrt()


def one_percent_far(generator: torch.Generator, *shape: int) -> Tensor:
    """Normal features; each sample is far away with a probability of 1 %."""
    is_far = torch.rand((*shape[:-1], 1), generator=generator) < 0.01
    return gaussian(generator, *shape) * torch.where(is_far, FAR, 1.0)


def fixed_matrix(seed: int, rows: int, columns: int = NUM_FEATURES) -> Tensor:
    """Return a random matrix that is a constant of the population."""
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) / rows**0.5


@dataclass(frozen=True)
class LinearFeatures:
    """x, y and z are linear functions of independent variables that have one law.

    Args:
        law: Draws independent variables of equal variance.
        x: Matrix of x, ``(variables, features)``.
        y: Matrix of y.
        z: Matrix of z.
    """

    law: Callable[..., Tensor]
    x: Tensor
    y: Tensor
    z: Tensor

    def __call__(self, generator: torch.Generator, batches: int, n: int) -> tuple[Tensor, Tensor, Tensor]:
        variables = self.law(generator, batches, n, len(self.x))
        return variables @ self.x, variables @ self.y, variables @ self.z

    def linear_truths(self) -> tuple[float, float]:
        """Return linear CKA of x and y, and of z and y: HSIC is the squared norm of a covariance matrix."""

        def hsic(one: Tensor, other: Tensor) -> Tensor:
            return (one.double().T @ other.double()).square().sum()

        own = hsic(self.y, self.y)
        x, z = ((hsic(each, self.y) / (hsic(each, each) * own).sqrt()).item() for each in (self.x, self.z))
        return x, z


def related(law: Callable[..., Tensor], noise: float, size: int = NUM_FEATURES, *, same_view: bool = False) -> Draw:
    """x and z are views of y's variables with noise. The noise of z is 1.2 times as large, and mostly that of x."""
    if size == 1:
        view = other_view = torch.ones(1, 1)
    else:
        view = fixed_matrix(1, size)
        other_view = view if same_view else fixed_matrix(2, size)
    nothing = torch.zeros_like(view)
    x = torch.cat([view, noise * view, nothing])
    y = torch.cat([other_view, nothing, nothing])
    z = torch.cat([view, 1.08 * noise * view, 0.52 * noise * view])
    return LinearFeatures(law, x, y, z)


def independent(generator: torch.Generator, batches: int, n: int) -> tuple[Tensor, Tensor, Tensor]:
    x, y, z = (gaussian(generator, batches, n, NUM_FEATURES) for _ in range(3))
    return x, y, z


def relu_features(generator: torch.Generator, batches: int, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Two random layers on normal inputs: x is the first, y the second; z is x with other weights in part."""
    inputs = gaussian(generator, batches, n, 12)
    weights, others = (2**0.5 * fixed_matrix(seed, 12, 32) for seed in (3, 4))
    x = (inputs @ weights).relu()
    return x, (x @ fixed_matrix(5, 32, 32)).relu(), (inputs @ (0.8 * weights + 0.6 * others)).relu()


def classes(generator: torch.Generator, batches: int, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Ten classes with normal noise around their means. z lies closer to the means."""
    labels = torch.randint(10, (batches, n), generator=generator)
    means, other_means = (10**0.5 * fixed_matrix(seed, 10) for seed in (6, 7))
    noise, other_noise = (gaussian(generator, batches, n, NUM_FEATURES) for _ in range(2))
    return means[labels] + noise, other_means[labels] + other_noise, means[labels] + 0.8 * noise


POPULATIONS: dict[str, Draw] = {
    "Gaussian": related(gaussian, 1.0),
    "ReLU features": relu_features,
    "classes": classes,
    "independent": independent,
    "near 0": related(gaussian, 3.0),
    "near 1": related(gaussian, 0.05, same_view=True),
    "one-dimensional": related(gaussian, 1.0, 1),
    "t3": related(student_t3, 1.0),
    "1 % far": related(one_percent_far, 1.0),
}
ORDINARY = tuple(POPULATIONS)[:7]
"""Populations without heavy tails."""


def squared_distances(x: Tensor) -> Tensor:
    """Return the squared distances within each batch, ``(batches, n, n)`` in float64."""
    x = x.double() - x.double().mean(-2, keepdim=True)
    half = x.square().sum(-1) / 2
    products = (x @ x.mT).sub_(half[..., :, None]).sub_(half[..., None, :]).mul_(-2)
    products.diagonal(dim1=-2, dim2=-1).zero_()
    return products


def chunks(draw: Draw, num_samples: int, n: int, seed: int) -> Iterator[tuple[Tensor, ...]]:
    """Yield squared distances of x, y and z in batches of n samples, a few batches at a time."""
    generator = torch.Generator().manual_seed(seed)
    step = max(1, 2**20 // n**2)
    for _ in range(max(1, num_samples // (step * n))):
        yield tuple(map(squared_distances, draw(generator, step, n)))


def sampled_truths(draw: Draw, kernel: str, num_samples: int) -> tuple[float, float]:
    """Return CKA of x and y, and of z and y, from many samples.

    Bandwidths are those that a bank of infinitely many batches has: the mean of the medians of batches of 64.

    Args:
        draw: The population.
        kernel: "linear" or "rbf".
        num_samples: Number of samples.
    """
    medians = torch.ones(3, dtype=torch.float64)
    if kernel == "rbf":
        means = [[median_distance(d).mean() for d in each] for each in chunks(draw, num_samples, BATCH_SIZE, seed=1)]
        medians = torch.tensor(means, dtype=torch.float64).mean(0)
    sums = torch.zeros(5, dtype=torch.float64)
    for distances in chunks(draw, num_samples, 4 * BATCH_SIZE, seed=2):
        x, y, z = (
            u_centered(-d if kernel == "linear" else torch.expm1(-d / (0.5 * median)))
            for d, median in zip(distances, medians, strict=True)
        )
        sums += torch.stack([(x * y).sum(), (z * y).sum(), (x * x).sum(), (z * z).sum(), (y * y).sum()])
    return (sums[0] / (sums[2] * sums[4]).sqrt()).item(), (sums[1] / (sums[3] * sums[4]).sqrt()).item()


def true_values(name: str, kernel: str) -> tuple[float, float]:
    """Return CKA of x and y, and of z and y, in a population.

    They are in closed form where there is one. Otherwise they are from many samples, as computed by this script.
    """
    draw = POPULATIONS[name]
    if draw is independent:
        return 0.0, 0.0
    if kernel == "linear" and isinstance(draw, LinearFeatures):
        return draw.linear_truths()
    x, z = json.loads(VALUES.read_text())[name][kernel]
    return x, z


def main() -> None:
    """Compute the values of all populations from samples, also those that have a closed form."""
    parser = argparse.ArgumentParser(description=main.__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--samples", type=int, default=2**21, help="samples that stand for the population")
    args = parser.parse_args()
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for name, draw in POPULATIONS.items():
        found[name] = {kernel: sampled_truths(draw, kernel, args.samples) for kernel in ("linear", "rbf")}
        print(name, found[name], flush=True)
        VALUES.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
