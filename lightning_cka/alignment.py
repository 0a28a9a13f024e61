"""Which parts of banks can be compared with each other."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from lightning_cka.bank import GramBank
from lightning_cka.layers import Layers, check_layers, names_matching, shortened
from lightning_cka.packed import select_layers


def loaded(bank: GramBank | str | Path, batches: Collection[int] | None = None) -> GramBank:
    """A bank that may be a file; of a file, the batches that are asked for, None: all."""
    return bank if isinstance(bank, GramBank) else GramBank.load(bank, batches=batches)


def probe_differences(a: GramBank, b: GramBank) -> list[str]:
    """In which ways the probe sets of two banks differ, in words; empty if they are one."""
    found = []
    if a.seed != b.seed:
        found.append(f"the seed ({a.seed} and {b.seed})")
    if alone := a.probe.keys() ^ b.probe.keys():
        found.append(f"the number of batches ({len(a.probe)} and {len(b.probe)}, {len(alone)} of them not in both)")
    common = sorted(a.probe.keys() & b.probe.keys())
    other = [index for index in common if a.probe[index].samples != b.probe[index].samples]
    if other or a.sample_kind != b.sample_kind:
        found.append(f"the samples of {len(other)} of {len(common)} batches ({a.sample_kind} and {b.sample_kind})")
    if other := [index for index in common if a.probe[index].fingerprint != b.probe[index].fingerprint]:
        found.append(f"the inputs in {len(other)} of {len(common)} batches")
    return found


def bank_of_layers(bank: GramBank, layers: Layers, argument: str = "layers") -> GramBank:
    """A bank of some of a bank's layers, in their order there; the bank itself for None.

    Raises:
        ValueError: a pattern matches none of them.
    """
    selectors = check_layers(layers, argument)
    if selectors is None:
        return bank
    places: set[int] = set()
    for selector in selectors:
        matching = names_matching(selector, bank.layers) if isinstance(selector, str) else []
        if not matching:
            raise ValueError(f"{argument}: {selector!r} matches none of the bank's layers: {shortened(bank.layers)}")
        places |= set(map(bank.layers.index, matching))
    chosen = sorted(places)
    part = bank.empty(tuple(bank.layers[i] for i in chosen))
    for batch in bank:
        part.add(replace(batch, grams=select_layers(batch.grams, chosen)))
    return part


def aligned(a: GramBank, b: GramBank) -> tuple[GramBank, GramBank]:
    """The batches that have equally many samples in both, as if their inputs were the same."""
    left, right = a.empty(), b.empty()
    for batch in a:
        other = b.batches.get(batch.index)
        if other is not None and other.grams.num_samples == batch.grams.num_samples:
            left.add(batch)
            right.add(replace(other, fingerprint=batch.fingerprint))
    return left, right
