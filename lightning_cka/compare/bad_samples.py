"""Find the samples that make layers undefined, and the first place where each is ``nan`` or infinite."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_cka.compare.flags import INPUT, Flag
from lightning_cka.compare.undefined_layers import ALL_SAMPLES_BAD, NO_ROWS, SOME_SAMPLES_BAD, TOO_FAR_OUT
from lightning_cka.hsic.packed import MISSING, NOT_FINITE, TOO_FAR
from lightning_cka.runtime.collectives import all_gather, all_reduce_sum

MAX_NAMED = 8
"""Number of samples that are named for each place."""


class BadSamples(NamedTuple):
    """Why layers of one model are undefined."""

    reasons: Mapping[str, str]
    """Reasons by layer name, as `lightning_cka.compare.undefined_layers` words them; other layers are missing."""
    places: Mapping[str, tuple[int, tuple[int, ...]]]
    """For the input and for each layer where samples are the first time not finite: the number of these samples, and
    the lowest of their numbers, at most 8. Layers in which all samples are bad are left out."""

    def names_inputs_of(self, other: BadSamples) -> bool:
        """Whether the samples with bad inputs that are named for another model are named here, too."""
        count, samples = self.places.get(INPUT, (0, ()))
        other_count, other_samples = other.places.get(INPUT, (0, ()))
        return other_count <= count and set(other_samples) <= set(samples)

    def flags(self, *, of_reference: bool, known: Collection[str] = ()) -> list[Flag]:
        """Return a flag for each place, except those in ``known``."""
        return [
            Flag(place, "bad_sample", float(count), 0.0, samples, of_reference)
            for place, (count, samples) in self.places.items()
            if place not in known
        ]


class _Record(NamedTuple):
    states: Tensor
    """State of each sample in each layer, ``(L, n)``."""
    samples: tuple[int, ...]
    bad_inputs: tuple[int, ...]
    """The samples whose inputs are not finite."""


class SampleStates:
    """Collects the states of all samples, batch by batch.

    Args:
        layers: Names of the L layers.
        execution_order: Names of layers in the order in which they ran. Others keep their place in ``layers``.
        device: The device that the processes communicate through.
    """

    def __init__(self, layers: tuple[str, ...], execution_order: Sequence[str], device: torch.device) -> None:
        self._layers = layers
        places = {name: place for place, name in enumerate(execution_order)}
        self._order = sorted(range(len(layers)), key=lambda row: places.get(layers[row], row))
        self._device = device
        self._records: list[_Record] = []

    def add(self, states: Tensor, samples: tuple[int, ...], bad_inputs: tuple[int, ...]) -> None:
        """Add one batch.

        Args:
            states: State of each sample in each layer, ``(L, n)``; see `row_states`.
            samples: Numbers of the n samples.
            bad_inputs: Those whose inputs are not finite.
        """
        self._records.append(_Record(states, samples, bad_inputs))

    def result(self, *, distributed: bool) -> BadSamples:
        """Return the bad samples. If processes share the batches (``distributed``), all of them must call this."""
        codes = (MISSING, NOT_FINITE, TOO_FAR)
        counts = torch.zeros(len(codes) + 1, len(self._layers), dtype=torch.int64, device=self._device)
        if self._records:
            states = torch.cat([record.states for record in self._records], 1)
            found = torch.stack([(states == code).sum(1) for code in codes]).to(counts)
            counts = torch.cat([found, torch.full_like(found[:1], states.shape[1])])
        counts = all_reduce_sum(counts, distributed=distributed).cpu()
        if not counts[:-1].any():  # The sums are equal on all processes, so that all of them return here.
            return BadSamples({}, {})
        return self._explain(counts, distributed=distributed)

    def _explain(self, counts: Tensor, *, distributed: bool) -> BadSamples:
        """Return the bad samples, given the number of samples per state, and of all samples, ``(4, L)``."""
        reasons = {
            name: reason
            for name, column in zip(self._layers, counts.T.tolist(), strict=True)
            if (reason := _reason(*column)) is not None
        }
        names = [INPUT, *(self._layers[row] for row in self._order)]
        first = self._first_places()
        # Each row has the number of a place's samples, and the lowest of their numbers.
        rows = []
        for place in range(len(names)):
            named = sorted(sample for sample, own in first.items() if own == place)
            listed = named[:MAX_NAMED]
            rows.append([len(named), *listed, *[-1] * (MAX_NAMED - len(listed))])
        local = torch.tensor(rows, dtype=torch.int64, device=self._device)
        merged = torch.cat(all_gather(local, distributed=distributed), 1).cpu()
        totals = merged[:, :: 1 + MAX_NAMED].sum(1).tolist()
        merged[:, :: 1 + MAX_NAMED] = -1
        return BadSamples(
            reasons,
            {
                name: (total, tuple(sorted(sample for sample in samples if sample >= 0)[:MAX_NAMED]))
                for name, total, samples in zip(names, totals, merged.tolist(), strict=True)
                if total and reasons.get(name) != ALL_SAMPLES_BAD
            },
        )

    def _first_places(self) -> dict[int, int]:
        """Return the first place of each bad sample of this process: 0 is the input, i the i-th layer that ran."""
        first: dict[int, int] = {}
        for states, samples, bad_inputs in self._records:
            is_bad = (states[self._order] == NOT_FINITE).cpu()
            places = (1 + is_bad.to(torch.int8).argmax(0)).tolist()
            for sample, has_any, place in zip(samples, is_bad.any(0).tolist(), places, strict=True):
                if has_any:
                    first[sample] = 0 if sample in bad_inputs else place
        return first


def _reason(missing: int, not_finite: int, too_far: int, total: int) -> str | None:
    reasons = {
        NO_ROWS: missing > 0,
        ALL_SAMPLES_BAD: not_finite == total,
        SOME_SAMPLES_BAD: not_finite > 0,
        TOO_FAR_OUT: too_far > 0,
    }
    return next((reason for reason, applies in reasons.items() if applies), None)
