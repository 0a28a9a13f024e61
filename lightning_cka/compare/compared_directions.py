"""What some batches tell about the leading directions of pairs of layers, and second opinions on the same samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_cka.compare.direction_statistics import (
    AGREEMENT,
    MEMBERS,
    NEIGHBORS,
    NUM_ROWS,
    RIDGE,
    SEPARATION,
    SIZE,
    WHOLE,
    WITHIN,
    WITHOUT,
)
from lightning_cka.compare.influence import cka_of_sums
from lightning_cka.hsic.centered_grams import CenteredGrams, diagonal_part, dots, u_products
from lightning_cka.hsic.first_directions import Directions, FirstGrams
from lightning_cka.hsic.hat_matrices import Ridge
from lightning_cka.hsic.neighbors import MutualKNN
from lightning_cka.hsic.products import partner_products
from lightning_cka.hsic.removed import between_groups, direction, products_without_each, stacked

MIN_AGREEMENT = 0.5
"""Smallest squared cosine of the two layers' directions for which CKA without them is computed."""

MIN_HIGH_CKA = 0.8
"""Smallest CKA that a shared direction may cause, for which `Ridge` is computed."""

MAX_REMAINING = 0.5
"""Largest CKA without the shared direction for which `Ridge` is computed."""

MIN_SEPARATION = 0.8
"""Smallest part of the variance along a direction that two groups explain, for which CKA within them is computed."""


class Side(NamedTuple):
    """One side of p pairs of layers."""

    grams: FirstGrams
    """Gram matrices of the first samples."""
    found: Directions
    """Their leading directions."""

    @classmethod
    def joined(cls, sides: Sequence[Side]) -> Side:
        """Return the pairs of several batches of the same size, one after the other."""
        grams, found = zip(*sides, strict=True)
        return cls(FirstGrams.joined(grams), Directions.joined(found))


def compared(x: Side, y: Side, *, unbiased: bool) -> Tensor:
    """Return what the batches tell about p pairs, ``(NUM_ROWS, p)``.

    Args:
        x: The model's layers.
        y: The layers that they are compared with.
        unbiased: Whether the HSIC is unbiased.
    """
    k, ell = (side.grams.centered().double() for side in (x, y))
    scales = [side.grams.scales.double() for side in (x, y)]
    found = torch.full((NUM_ROWS, len(k.u)), torch.nan, dtype=torch.float64, device=k.u.device)
    found[SIZE] = n = k.u.shape[-1]
    found[AGREEMENT] = dots(x.found.vectors, y.found.vectors).square()
    found[WHOLE : WHOLE + 3] = whole = torch.stack([u_products(k, ell), x.found.squares, y.found.squares])
    if not unbiased:
        d = torch.stack([k.diagonal, ell.diagonal])
        found[WHOLE : WHOLE + 3] += diagonal_part(d[[0, 0, 1]], d[[1, 0, 1]])
    for place, side in enumerate((x, y)):
        lower = side.found.lower
        found[SEPARATION + place] = side.found.separation
        found[MEMBERS + place] = torch.where(lower > n / 2, n - lower, -lower).double()
    _add_remaining(found, (k, ell), (x, y), whole, unbiased=unbiased)
    of_scales = torch.stack([scales[0] * scales[1], scales[0].square(), scales[1].square()]).square()
    of_cka = slice(WHOLE, NEIGHBORS)
    found[of_cka] = found[of_cka].view(-1, 3, len(k.u)).mul(of_scales).flatten(0, 1)
    neighbors = MutualKNN().num_neighbors(n)
    found[NEIGHBORS] = (x.found.neighbors & y.found.neighbors).sum((1, 2))
    found[NEIGHBORS + 1 : NEIGHBORS + 3] = n * neighbors
    found[NEIGHBORS : NEIGHBORS + 3] -= n * neighbors**2 / (n - 1)  # Those in common by chance.
    return found


def _add_remaining(
    found: Tensor,
    grams: tuple[CenteredGrams, CenteredGrams],
    sides: tuple[Side, Side],
    whole: Tensor,
    *,
    unbiased: bool,
) -> None:
    """Fill in the products without the directions, within the groups of both directions, and those of `Ridge`.

    Args:
        found: What is known of the pairs; it gets the products.
        grams: The Gram matrices of both sides in float64.
        sides: The model's layers, and those that they are compared with.
        whole: <U_K, U_L>, <U_K, U_K> and <U_L, U_L>, ``(3, p)``.
        unbiased: Whether the HSIC is unbiased.
    """
    agrees, separation = found[AGREEMENT] >= MIN_AGREEMENT, found[SEPARATION : SEPARATION + 2].T
    needed = torch.cat([agrees[:, None], separation >= MIN_SEPARATION], 1)
    chosen = needed.any(1).nonzero().flatten()
    if not len(chosen):
        return
    whole, directions = whole[:, chosen], [side.found.select(chosen) for side in sides]
    groups = torch.stack([each.groups() for each in directions], 1)
    k, ell = (each.select(chosen) for each in grams)
    from_k, from_ell = (
        stacked([direction(own.values, own.vectors)]).followed_by(between_groups(each, groups))
        for each, own in zip((k, ell), directions, strict=True)
    )
    remaining = products_without_each(k, ell, from_k, from_ell, whole, unbiased=unbiased)
    remaining = remaining.where(needed[chosen], remaining.new_tensor(torch.nan))
    found[WITHOUT : WITHOUT + 3, chosen], found[WITHIN : WITHIN + 3, chosen], found[WITHIN + 3 : WITHIN + 6, chosen] = (
        remaining.unbind(2)
    )
    hidden = cka_of_sums(remaining[:, :, 0].unbind()) < MAX_REMAINING
    if len(chosen := chosen[hidden & (cka_of_sums(whole.unbind()) >= MIN_HIGH_CKA)]):
        hats = [Ridge().vectors(side.grams.select(chosen).packed()) for side in sides]
        found[RIDGE : RIDGE + 3, chosen] = partner_products(*hats)
