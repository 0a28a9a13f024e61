"""Compare many banks of one probe set, one layer at a time: as if the banks were the layers of one model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from tqdm.auto import tqdm

from lightning_cka.compare.bank_series import BankSource
from lightning_cka.compare.comparison import Comparison
from lightning_cka.compare.flags import Thresholds
from lightning_cka.compare.result import CKAResult
from lightning_cka.hsic.measure import Measure
from lightning_cka.hsic.packed import PackedGrams, select_layers
from lightning_cka.probe.bank import GramBank, open_bank
from lightning_cka.probe.bank_batch import BankBatch
from lightning_cka.probe.sample_selection import SampleSelection

_CPU = torch.device("cpu")

_BANKS = 1.5
"""Memory that layers may take that are compared at the same time, in banks. Reading takes up to one more."""

_BYTES_OF_ENTRY, _BYTES_OF_SAMPLE = 2, 64
"""Bytes of a Gram matrix by number of entries, and of what flags need by number of samples."""


@dataclass(frozen=True)
class LayerByLayer:
    """Banks, and which of their layers belong together.

    Attributes:
        sources: The banks, or their files, which are read one probe batch at a time.
        headers: The same banks; those of files without their batches.
        names: Names of the banks, which become the layers of the results.
        rows: By layer, its row in each bank.
        least_bytes: Memory that may be used in any case, even if it is that of more than three banks. Where it is too
            little for all layers, files are read several times.
    """

    sources: Sequence[BankSource]
    headers: Sequence[GramBank]
    names: Sequence[str]
    rows: Mapping[str, Sequence[int]]
    least_bytes: int = 2**25

    def results(
        self,
        measures: Mapping[str, Measure],
        *,
        thresholds: Thresholds | None = None,
        selection: SampleSelection | None = None,
        progress: str | None = None,
    ) -> dict[str, dict[str, CKAResult]]:
        """Compare all pairs of banks, for each layer.

        Args:
            measures: Measures by name.
            thresholds: Thresholds of the flags; None: the defaults.
            selection: Which samples are compared; None: all.
            progress: Title of a progress bar; None: there is none.

        Returns:
            By measure and layer, a result ``(M, M)`` for M banks. Its layers are the banks, its ``model_name`` is the
            layer.

        Raises:
            ValueError: A file is damaged, or an excluded sample is unknown.
        """
        first = self.headers[0]
        parts = self._parts(keeps_batches=any(measure.needs_median for measure in measures.values()))
        total = len(parts) * len(first.probe) * len(self.sources)
        found: dict[str, dict[str, CKAResult]] = {measure: {} for measure in measures}
        with tqdm(desc=progress, total=total, unit="batch", disable=progress is None) as bar:
            for part in parts:
                comparisons = {
                    layer: Comparison(
                        tuple(self.names),
                        {layer: None},
                        measures,
                        _CPU,
                        model_name=layer,
                        thresholds=thresholds,
                        sample_kind=first.sample_kind,
                        selection=selection,
                        keep_all_pairs=True,
                    )
                    for layer in part
                }
                for index in sorted(first.probe):
                    for layer, batch in zip(part, self._stacked(part, index, bar), strict=True):
                        comparisons[layer].add(batch)
                for layer, comparison in comparisons.items():
                    for (_, measure), outcome in comparison.results().items():
                        found[measure][layer] = outcome.result
        return found

    def _parts(self, *, keeps_batches: bool) -> list[list[str]]:
        """Return the layers in parts, such that the Gram matrices of each fit into memory.

        Args:
            keeps_batches: Whether all batches of a part are in memory at the same time, not only one.
        """
        sizes = [len(batch.samples) for batch in self.headers[0].probe.values()]
        entries = [_BYTES_OF_ENTRY * n**2 for n in sizes]
        kept = sum(entries) if keeps_batches else max(entries, default=0)
        of_layer = len(self.sources) * (kept + _BYTES_OF_SAMPLE * sum(sizes))
        bank = sum(entries) * max(len(bank.layers) for bank in self.headers)
        size = max(1, int(max(_BANKS * bank, self.least_bytes) / max(1, of_layer)))
        layers = list(self.rows)
        return [layers[start : start + size] for start in range(0, len(layers), size)]

    def _stacked(self, part: Sequence[str], index: int, bar: tqdm[None]) -> Iterator[BankBatch]:
        """Yield one probe batch of each layer, with the Gram matrices of all banks."""
        batches = []
        for place, source in enumerate(self.sources):
            batch = open_bank(source, batches=[index]).batches[index]
            batches.append(replace(batch, grams=select_layers(batch.grams, [self.rows[name][place] for name in part])))
            bar.update()
        for row in range(len(part)):
            grams = [[field[row] for field in batch.grams] for batch in batches]
            yield replace(batches[0], grams=PackedGrams(*map(torch.stack, zip(*grams, strict=True))))
