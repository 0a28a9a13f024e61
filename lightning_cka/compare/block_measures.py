"""`procrustes` and `predictivity`: measures of two Gram banks that need large blocks of samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from lightning_cka.compare.bank_pair import BankPair
from lightning_cka.compare.pairing import Pair
from lightning_cka.compare.permutation_test import PermutationTest, sample_orders
from lightning_cka.hsic.packed import PackedGrams, unpack, widened
from lightning_cka.hsic.predictivity import check_alpha, error_weights, errors_of_mean
from lightning_cka.hsic.procrustes import angle_of, angle_of_cosine, gram_factor, nuclear_norm, squared_distance
from lightning_cka.probe.bank import GramBank
from lightning_cka.probe.layers import Layers
from lightning_cka.probe.sample_selection import Exclude, SampleSelection

MIN_BLOCK = 256
"""Default of the smallest block. In smaller ones, unrelated layers of some hundred features are close to each other."""


def procrustes(
    a: GramBank | str | Path,
    b: GramBank | str | Path,
    *,
    layers: Layers = None,
    reference_layers: Layers = None,
    permutations: int = 100,
    seed: int = 0,
    min_samples: int = MIN_BLOCK,
    exclude: Exclude = None,
    strict: bool = True,
    pair: Pair = "name",
) -> PermutationTest:
    """Return the angular Procrustes distances of the layers of two models, with a permutation test.

    The distance is the angle between a layer's features and the closest rotation of the other layer's features:
    ``arccos(sum |X^T Y|_* / sqrt(sum tr K sum tr L))``, from 0 for features that a rotation and a scale make equal, to
    pi / 2. Sums are over blocks, and each block has its own rotation. Paper: Williams et al. 2021
    (https://arxiv.org/abs/2110.14739). `lightning_cka.functional.procrustes_distance` is that of one block.

    With fewer samples than features, unrelated layers are close, too. Compare values only at one size of blocks, and
    with the permuted samples.

    Args:
        a: Bank of the model (the rows), or the path of its file.
        b: Bank of the reference (the columns), or the path of its file. ``a`` again compares the model with itself.
        layers: Patterns of the model's layer names, such as ``"net.*"``; None: all layers of the bank.
        reference_layers: Patterns of the reference's layer names; None: the same as ``layers``.
        permutations: Number of permutations. Each takes a singular value decomposition for each pair of layers and
            block: some 0.03 s for blocks of 512 samples and layers with more features.
        seed: Seed of the permutations.
        min_samples: Fewest samples in a block, at least 4. Smaller batches are left out, such as a last one.
        exclude: Numbers of samples to leave out, as flags name them. The other samples are centered again.
        strict: Whether to raise an error if the probe sets differ; see `compare_banks`.
        pair: Which layers are paired, for `PermutationTest.same_named` and `PermutationTest.mean`; see `compare_banks`.

    Returns:
        Distances in radians, ``(L, R)``, with their values for permuted samples.

    Raises:
        ValueError: No batch has ``min_samples`` samples, the probe sets differ, a pattern matches no layer, or a number
            is out of range.
        TypeError: A number is not an integer.
        FileNotFoundError: A file does not exist.

    Example:
        >>> import torch
        >>> from lightning_cka import GramBank
        >>> from lightning_cka.compare import procrustes
        >>> _ = torch.manual_seed(0)
        >>> images = [torch.randn(64, 16) for _ in range(8)]
        >>> nets = [torch.nn.Sequential(torch.nn.Linear(16, 8)) for _ in range(2)]
        >>> a, b = (GramBank.from_model(net, images, gram_batch_size=512, progress_bar=False) for net in nets)
        >>> result = procrustes(a, b, permutations=20)
        >>> [round(value.item(), 2) for value in (result.matrix, result.null_mean, result.p_value)]
        [0.95, 1.48, 0.05]
    """
    banks = BankPair.of(a, b, (layers, reference_layers), strict=strict, pair=pair)
    banks = banks.selected(SampleSelection(exclude, None))
    batches = banks.large_batches(min_samples, "procrustes")
    orders = [sample_orders(each.batch, permutations, seed) for each in batches]
    own = [_factors(each.batch.grams) for each in batches]
    others = [_factors(each.reference_grams) for each in batches]
    squared, cosines = [], []
    for xs, ys, permuted in zip(_of_norm_one(own), _of_norm_one(others), orders, strict=True):
        squared.append(_stacked(squared_distance, xs, ys))
        cosines.append(torch.stack([_stacked(nuclear_norm, [x[order] for x in xs], ys) for order in permuted]))
    matrix, angles = angle_of(torch.stack(squared).sum(0)), angle_of_cosine(torch.stack(cosines).sum(0))
    return PermutationTest.of(banks, batches, "procrustes", matrix, angles, is_distance=True)


def predictivity(
    a: GramBank | str | Path,
    b: GramBank | str | Path,
    *,
    layers: Layers = None,
    reference_layers: Layers = None,
    alpha: float = 0.01,
    permutations: int = 100,
    seed: int = 0,
    min_samples: int = MIN_BLOCK,
    exclude: Exclude = None,
    strict: bool = True,
    pair: Pair = "name",
) -> PermutationTest:
    """Return how well the layers of a reference are linearly predicted from those of a model, with a permutation test.

    Ridge regression on a layer of the model (the row) predicts a layer of the reference (the column), for each sample
    from the other samples of its block. The value is ``R^2 = 1 - sum PRESS / sum PRESS_0``: the sum of squared errors
    over all blocks, divided by that of the mean of the other samples. It is not symmetric: exchange the banks for the
    other direction. `lightning_cka.functional.linear_predictivity` is that of one block, with formula and sources.

    With as many features as samples, the regression is poor, and values can be far below 0. Compare values only at one
    size of blocks, and with the permuted samples.

    Args:
        a: Bank of the model whose layers predict (the rows), or the path of its file.
        b: Bank of the reference whose layers are predicted (the columns), or the path of its file.
        layers: Patterns of the model's layer names, such as ``"net.*"``; None: all layers of the bank.
        reference_layers: Patterns of the reference's layer names; None: the same as ``layers``.
        alpha: The penalty as a part of the mean squared norm of the centered features; greater than 0.
        permutations: Number of permutations. They take little time.
        seed: Seed of the permutations.
        min_samples: Fewest samples in a block, at least 4. Smaller batches are left out, such as a last one.
        exclude: Numbers of samples to leave out, as flags name them. The other samples are centered again.
        strict: Whether to raise an error if the probe sets differ; see `compare_banks`.
        pair: Which layers are paired, for `PermutationTest.same_named` and `PermutationTest.mean`; see `compare_banks`.

    Returns:
        Values of at most 1, ``(L, R)``, with those for permuted samples. 0 is as good as the mean.

    Raises:
        ValueError: No batch has ``min_samples`` samples, the probe sets differ, a pattern matches no layer, or a number
            is out of range.
        TypeError: A number is not an integer.
        FileNotFoundError: A file does not exist.

    Example:
        >>> import torch
        >>> from lightning_cka import GramBank
        >>> from lightning_cka.compare import predictivity
        >>> _ = torch.manual_seed(0)
        >>> images = [torch.randn(64, 16) for _ in range(8)]
        >>> nets = [torch.nn.Sequential(torch.nn.Linear(16, width)) for width in (16, 8)]
        >>> a, b = (GramBank.from_model(net, images, gram_batch_size=512, progress_bar=False) for net in nets)
        >>> round(predictivity(a, b).matrix.item(), 2), round(predictivity(b, a).matrix.item(), 2)
        (1.0, 0.52)
    """
    check_alpha(alpha)
    banks = BankPair.of(a, b, (layers, reference_layers), strict=strict, pair=pair)
    banks = banks.selected(SampleSelection(exclude, None))
    batches = banks.large_batches(min_samples, "predictivity")
    errors, errors_of_means = [], []
    for batch, reference_grams in batches:
        orders = sample_orders(batch, permutations, seed)
        weights = torch.stack([error_weights(gram, alpha) for gram in _grams(batch.grams)])
        others = _grams(reference_grams)
        permuted = [weights[:, order[:, None], order].flatten(1) @ others.flatten(1).mT for order in orders]
        errors.append(torch.stack(permuted))
        errors_of_means.append(errors_of_mean(others))
    values = 1 - torch.stack(errors).sum(0) / torch.stack(errors_of_means).sum(0)
    return PermutationTest.of(banks, batches, "predictivity", values[0], values)


def _stacked(function: Callable[[Tensor, Tensor], Tensor], xs: Sequence[Tensor], ys: Sequence[Tensor]) -> Tensor:
    """Return the values of a function of the features of each pair of layers, ``(L, R)``."""
    return torch.stack([torch.stack([function(x, y) for y in ys]) for x in xs])


def _factors(packed: PackedGrams) -> list[Tensor]:
    return [gram_factor(gram) for gram in _grams(packed)]


def _grams(packed: PackedGrams) -> Tensor:
    """Return doubly centered Gram matrices, ``(L, n, n)`` in float64; zero for layers without variance."""
    wide = widened(packed)
    return unpack(wide) * wide.scales.square()[:, None, None]


def _of_norm_one(blocks: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
    """Return the features of each block and layer, divided by the layer's norm over all blocks."""
    squares = [torch.stack([layer.square().sum() for layer in layers]) for layers in blocks]
    norms = torch.stack(squares).sum(0).sqrt()
    return [[layer / norm for layer, norm in zip(layers, norms, strict=True)] for layers in blocks]
