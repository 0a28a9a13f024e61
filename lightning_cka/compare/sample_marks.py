"""`SampleMarks`: the samples that the flags of results name, and others that a user wants to see."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lightning_cka.compare.flags import INPUT
from lightning_cka.compare.result import CKAResult


class SampleMarks:
    """Which samples are marked in which layer of a model.

    Args:
        samples: Samples that are marked in all layers.
        results: Results of the model, whose flags mark samples. Flags of the input mark them in all layers.
    """

    def __init__(self, samples: Iterable[int] = (), results: Sequence[CKAResult] = ()) -> None:
        self._samples = tuple(samples)
        self._flags = [flag for result in results for flag in result.flags if not flag.of_reference]

    @property
    def layers(self) -> list[str]:
        """Return the names of layers with flags that name samples."""
        return list(dict.fromkeys(flag.layer for flag in self._flags if flag.samples and flag.layer != INPUT))

    def of(self, layer: str) -> list[int]:
        """Return the samples that are marked in a layer, in the order of the arguments and flags."""
        flagged = (sample for flag in self._flags if flag.layer in (layer, INPUT) for sample in flag.samples)
        return list(dict.fromkeys((*self._samples, *flagged)))
