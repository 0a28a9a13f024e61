"""The HSIC of each probe batch, from all processes, and the standard errors that follow by the jackknife."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_cka.compare.left_out_batches import LeftOutBatches
from lightning_cka.compare.result import CKAResult
from lightning_cka.hsic.jackknife import effective_batches, jackknife_error, without_each_batch
from lightning_cka.runtime.collectives import gather_rows
from lightning_cka.runtime.devices import to_device


class BatchProducts(NamedTuple):
    """What one probe batch contributes to the sums of HSIC, and what identifies the batch."""

    place: int
    """Index of the batch in the probe set; of dependent batches, a number that they share."""
    batch: int
    """Index of the batch in the probe set."""
    identity: int
    """Hash of the samples and the inputs, from `batch_identity`."""
    weight: float
    """Weight of the batch in the sums."""
    products: tuple[Tensor, Tensor, Tensor]
    """``(L, R)``, ``(L,)`` and ``(R,)``; see `lightning_cka.hsic.products.hsic_products`."""


class AllProducts(NamedTuple):
    """The products of all k batches of all processes, in the order of the probe set, in float64 in host memory.

    Batches that depend on each other, of tokens of the same sequences, are one batch here.
    """

    members: tuple[tuple[int, ...], ...]
    """For each of them, the indices of its batches in the probe set: one, or those that depend on each other."""
    identities: tuple[str, ...]
    weights: Tensor
    """``(k,)``."""
    pairs: Tensor
    """``(k, L, R)``."""
    layers: Tensor
    """``(k, L)``."""
    references: Tensor
    """``(k, R)``."""


def batch_identity(samples: tuple[int, ...], fingerprint: str) -> int:
    """Return a hash of 64 bits of a batch's samples and inputs."""
    digest = hashlib.blake2b(f"{samples} {fingerprint}".encode(), digest_size=8)
    return int.from_bytes(digest.digest(), "big", signed=True)


def gathered_products(
    batches: Sequence[BatchProducts], shape: tuple[int, int], device: torch.device, *, distributed: bool
) -> AllProducts:
    """Return the products of the batches of all processes, on each process.

    Args:
        batches: Batches of this process.
        shape: Numbers of layers, L and R.
        device: Device that the processes communicate through.
        distributed: Whether several processes share the batches. Then all of them must call this.
    """
    keys = torch.tensor([(each.place, each.identity, each.batch) for each in batches], dtype=torch.int64, device="cpu")
    rows = [torch.cat([part.flatten() for part in each.products]) for each in batches]
    length = shape[0] * shape[1] + sum(shape)
    values = torch.stack(rows) if rows else torch.zeros(0, length, dtype=torch.float64, device=device)
    weights = torch.tensor([each.weight for each in batches], dtype=values.dtype, device="cpu")
    keys = to_device(keys.reshape(-1, 3), device)
    values = torch.cat([values, to_device(weights, values.device)[:, None]], 1)
    keys, values = (gather_rows(part, distributed=distributed).cpu() for part in (keys, values))
    values = values.double()
    places, rows_of = torch.unique(keys[:, 0], return_inverse=True)
    # Of dependent batches, the products are added up, and so are the identities.
    joined = values.new_zeros(len(places), values.shape[1]).index_add_(0, rows_of, values)
    sums = keys.new_zeros(len(places)).index_add_(0, rows_of, keys[:, 1])  # Modulo 2^64.
    identities = tuple(f"{identity & (2**64 - 1):016x}" for identity in sums.tolist())
    members = tuple(tuple(keys[rows_of == row, 2].sort().values.tolist()) for row in range(len(places)))
    sections = [shape[0] * shape[1], *shape, 1]
    pairs, layers, references, weights = torch.split(joined, sections, 1)
    return AllProducts(members, identities, weights[:, 0], pairs.reshape(-1, *shape), layers, references)


def with_jackknife_errors(
    result: CKAResult, products: AllProducts, of_bandwidths: Tensor | None = None, *, keep_all_pairs: bool
) -> CKAResult:
    """Return a result with the standard errors of its values and of their mean, by the jackknife over batches.

    Args:
        result: The result.
        products: Products of all batches.
        of_bandwidths: By how much CKA changes without each batch because bandwidths change, ``(k, L, R)``; None: the
            kernel has no bandwidth.
        keep_all_pairs: Whether the result keeps CKA without each batch for all pairs of layers, not only for those
            that are paired.
    """
    value, left_out = without_each_batch(products.pairs, products.layers, products.references)
    if of_bandwidths is not None:
        left_out = left_out + of_bandwidths
    error = jackknife_error(value, left_out, products.weights)
    cells = result.mean_cells()
    mean_error = jackknife_error(value[cells].mean(), left_out[:, cells].mean(1), products.weights)
    pairs = result.same_named_pairs()
    rows, columns = [row for row, _ in pairs.values()], [column for _, column in pairs.values()]
    kept = LeftOutBatches(
        products.identities,
        products.weights,
        tuple(pairs),
        left_out[:, rows, columns].T.contiguous(),
        left_out if keep_all_pairs else None,
    )
    return replace(
        result,
        standard_error=error,
        mean_standard_error=float(mean_error),
        effective_batches=effective_batches(products.weights),
        left_out_batches=kept,
    )
