"""`BankBatch`: the Gram matrices of one probe batch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from lightning_cka.hsic.first_directions import FirstDirections
from lightning_cka.hsic.layer_sums import FirstSums
from lightning_cka.hsic.packed import PackedGrams


@dataclass(frozen=True)
class BankBatch:
    """The Gram matrices of one model's layers on one probe batch."""

    index: int
    """Index of the batch in the probe set."""
    grams: PackedGrams
    """Linear Gram matrices of all layers."""
    fingerprint: str
    """Hash of the inputs."""
    samples: tuple[int, ...]
    """Numbers that identify the samples; see `lightning_cka.probe.probe_set.ProbeBatch`."""
    bad_inputs: tuple[int, ...] = ()
    """Those of the samples whose inputs have ``nan`` or infinite values."""
    input_hashes: tuple[int, ...] = ()
    """A hash of each sample's inputs, equal for copies; empty if it is unknown."""
    cluster: int | None = None
    """Index of the first batch of the same sequences, on which this one's values depend. None: there is none."""

    directions: FirstDirections = field(default_factory=FirstDirections, init=False, repr=False, compare=False)
    """The leading directions of ``grams``. Copies made by `dataclasses.replace` have their own."""
    sums: FirstSums = field(default_factory=FirstSums, init=False, repr=False, compare=False)
    """What ``grams`` contribute to diagnostics of the layers. Copies made by `dataclasses.replace` have their own."""

    def host_copy(self) -> BankBatch:
        """Return a copy whose Gram matrices are in host memory."""
        copy = replace(self, grams=PackedGrams(*(part.to("cpu", copy=True) for part in self.grams)))
        for name in ("directions", "sums"):  # They are the same. The class is frozen.
            object.__setattr__(copy, name, getattr(self, name))
        return copy
