"""The vectors that measures make of a bank's batches, kept for a bank that is compared with again and again."""

from __future__ import annotations

from lightning_cka.hsic.measure import CKA, Measure
from lightning_cka.hsic.packed import PackedGrams
from lightning_cka.hsic.products import Vectors
from lightning_cka.runtime.devices import to_device


class BankVectors:
    """Computes the vectors of measures, once for each batch from the call of `keep` on.

    They stay in host memory. For L layers and n samples in a batch, `MutualKNN` takes L n^2 bytes, and `RSA` and
    `Ridge` take 2 L n^2 bytes each, which is about as much as the bank itself in float32. The vectors of CKA are not
    kept: those of the linear kernel are the bank's own matrices, and others follow bandwidths.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[Measure, int], Vectors] | None = None

    def keep(self) -> None:
        """Keep from now on what is computed."""
        self._kept = {} if self._kept is None else self._kept

    def of(self, measure: Measure, index: int, grams: PackedGrams) -> Vectors:
        """Return the vectors of one batch, on the device of its Gram matrices.

        Args:
            measure: The measure.
            index: Index of the batch.
            grams: Its Gram matrices, as `Measure.grams` returns them.
        """
        if self._kept is None or isinstance(measure, CKA):
            return measure.vectors(grams)
        found = self._kept.get((measure, index))
        if found is not None:
            return _moved(found, grams)
        made = measure.vectors(grams)
        self._kept[measure, index] = made._replace(values=made.values.cpu(), factors=made.factors.cpu())
        return made

    def forget(self, index: int) -> None:
        """Forget the vectors of one batch, whose Gram matrices have changed."""
        if self._kept is not None:
            self._kept = {key: vectors for key, vectors in self._kept.items() if key[1] != index}


def _moved(vectors: Vectors, grams: PackedGrams) -> Vectors:
    device = grams.halves.device
    return vectors._replace(values=to_device(vectors.values, device), factors=to_device(vectors.factors, device))
