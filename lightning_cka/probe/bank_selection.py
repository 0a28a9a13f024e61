"""Select a part of a bank: some of its layers, or the batches that fit another bank."""

from __future__ import annotations

import warnings
from dataclasses import replace

from lightning_cka.hsic.packed import select_layers
from lightning_cka.probe.bank import GramBank
from lightning_cka.probe.chosen_layers import point_out_missed
from lightning_cka.probe.layer_patterns import hint_of_dots, names_matching
from lightning_cka.probe.layers import Layers, LayerSelector, check_layers, takes_away
from lightning_cka.runtime.text import shortened


def bank_of_layers(bank: GramBank, layers: Layers, argument: str = "layers") -> GramBank:
    """Return a bank of some of a bank's layers, in their order there.

    Args:
        bank: The bank.
        layers: Names and name patterns; see `lightning_cka.probe.layer_patterns`. Those with a leading ``!`` take
            away what the others choose, or from all layers if there are no others. None returns the bank itself.
        argument: The user's name of the argument ``layers``, for messages.

    Raises:
        ValueError: A pattern matches no layer, or all layers are taken away.
    """
    selectors = check_layers(layers, argument)
    if selectors is None:
        return bank
    point_out_missed(selectors, bank.layers, stacklevel=6)
    chosen: set[str] = set() if any(not takes_away(s, bank.layers) for s in selectors) else set(bank.layers)
    without: set[str] = set()
    for selector in selectors:
        if takes_away(selector, bank.layers):
            without |= set(_names_of(str(selector)[1:], bank, argument))
        else:
            chosen |= set(_names_of(selector, bank, argument))
    if chosen <= without:
        raise ValueError(f"{argument}: {list(selectors)} takes away all layers that it chooses")
    rows = [row for row, name in enumerate(bank.layers) if name in chosen - without]
    part = bank.empty(tuple(bank.layers[row] for row in rows))
    for batch in bank:
        part.add(replace(batch, grams=select_layers(batch.grams, rows)))
    return part


def _names_of(selector: LayerSelector, bank: GramBank, argument: str) -> list[str]:
    """Return the layers of a bank that a selector matches.

    Raises:
        ValueError: There are none.
    """
    names = names_matching(selector, bank.layers) if isinstance(selector, str) else []
    if not names:
        hint = ". A bank knows the names of layers, not their classes"
        if isinstance(selector, str):
            hint = hint_of_dots(selector, bank.layers)
            hint = f". {hint}" if hint else ""
        raise ValueError(f"{argument}: {selector!r} matches none of the bank's layers: {shortened(bank.layers)}{hint}")
    return names


def aligned(a: GramBank, b: GramBank) -> tuple[GramBank, GramBank]:
    """Return the batches that have equally many samples in both banks, as if their inputs were the same."""
    left, right = a.empty(), b.empty()
    for batch in a:
        other = b.batches.get(batch.index)
        if other is not None and other.grams.num_samples == batch.grams.num_samples:
            left.add(batch)
            right.add(replace(other, fingerprint=batch.fingerprint))
    return left, right


def with_one_probe_set(a: GramBank, b: GramBank, *, strict: bool, stacklevel: int = 3) -> tuple[GramBank, GramBank]:
    """Return two banks of one probe set.

    Args:
        a: The first bank.
        b: The second bank.
        strict: Whether the probe sets must be the same. False reduces the banks to the batches of equal size, with a
            warning.
        stacklevel: Place of the warning, as in `warnings.warn`. 3: the caller of the function that calls this one.

    Raises:
        ValueError: The probe sets differ; or ``strict`` is False, and no batch has the same size in both.
    """
    differences = a.probe_differences(b)
    if not differences:
        return a, b
    problem = f"the banks have different probe sets: they differ in {'; '.join(differences)}"
    if strict:
        raise ValueError(
            f"{problem}. strict=False (--no-strict) compares batches of equal size anyway, which is right if sample i "
            "of one belongs to sample i of the other"
        )
    a, b = aligned(a, b)
    if not a.batches:
        raise ValueError(f"{problem}. No batch has the same number of samples in both")
    warnings.warn(
        f"{problem}. {a.num_samples} samples are compared as if they were the same in both banks; otherwise the values "
        "are meaningless",
        stacklevel=stacklevel,
    )
    return a, b
