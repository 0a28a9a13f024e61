"""One probe batch in a Gram bank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from lightning_cka.hsic.packed import PackedGrams


@dataclass(frozen=True)
class BankBatch:
    """One probe batch, as a model saw it."""

    index: int
    """Its place in the probe set."""
    grams: PackedGrams
    """Linear Gram matrices of all layers."""
    fingerprint: str
    """Hash of the inputs."""
    samples: tuple[int, ...]
    """The numbers of its samples; see `lightning_cka.probe.probe_set.ProbeBatch`."""


class BatchInputs(NamedTuple):
    """What one probe batch was made of."""

    samples: tuple[int, ...]
    fingerprint: str
