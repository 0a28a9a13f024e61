"""`compare_many`: the CKA of many models with each other, from Gram banks of one probe set."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Literal

from lightning_cka.compare.bank_series import BankSource, sources_of_run
from lightning_cka.compare.layer_by_layer import LayerByLayer
from lightning_cka.compare.pairing import announced_pairing
from lightning_cka.compare.run_files import BANK_SUFFIX, names_of_runs
from lightning_cka.decisions.model_comparison import ModelComparison
from lightning_cka.hsic.check_measures import OneMeasure, check_sizes, measures_of_features
from lightning_cka.hsic.kernels import Kernel
from lightning_cka.hsic.measure import Measure
from lightning_cka.probe.bank import GramBank, open_bank
from lightning_cka.probe.bank_selection import bank_of_layers
from lightning_cka.probe.layers import Layers
from lightning_cka.probe.sample_selection import Exclude, SampleSelection
from lightning_cka.runtime.text import shortened


def compare_many(
    banks: Sequence[BankSource],
    layer: Layers = None,
    *,
    measure: OneMeasure = "cka",
    kernel: Kernel = "linear",
    unbiased: bool = True,
    names: Sequence[str] | None = None,
    pair: Literal["name", "position"] = "name",
    exclude: Exclude = None,
    progress_bar: bool = True,
) -> ModelComparison:
    """Compare many models with each other: for each pair of models, the mean CKA of the layers that all of them have.

    Two models have the value of ``compare_banks(a, b).mean()``, if all models have the same layers. Files are read one
    probe batch at a time, so that 20 models take the memory of three; with a bandwidth, that of five or six. Paper:
    Kornblith et al. 2019, https://arxiv.org/abs/1905.00414.

    Args:
        banks: At least two banks of one probe set, their files, or folders of runs of ``CKAMonitor(save_banks=True)``.
            Of a folder, the last bank is taken.
        layer: A layer, or patterns such as ``"net.*"``, over which the mean is taken; None: all layers that all models
            have. They are names of the first model's layers.
        measure: "cka" (with ``kernel``), "mutual_knn", "rsa", "ridge", or an object such as `lightning_cka.MutualKNN`.
        kernel: Kernel of CKA: "linear", "rbf", `lightning_cka.RBF`, "distance", or a function of ``(n, n)`` squared
            distances that returns an ``(n, n)`` Gram matrix. With a bandwidth, files are read several times.
        unbiased: Whether to use the unbiased HSIC. Values of the biased HSIC depend on the batch size.
        names: Different names of the models. None: the parts of their paths that differ, or the names of their classes.
        pair: Which layers of a model belong to those of the first model: see `compare_banks`.
        exclude: Numbers of samples to leave out, as flags name them.
        progress_bar: Whether to show a progress bar.

    Raises:
        ValueError: There are fewer than two banks, they have different probe sets or no common layers, a pattern
            matches none of these, the number of names is wrong, or a measure or the kernel is unknown.
        TypeError: An argument has another type.
        FileNotFoundError: A file or folder does not exist.
    """
    chosen = measures_of_features(measure, kernel, unbiased=unbiased)
    selection = SampleSelection(exclude, None)
    models = Models.of(banks, names)
    found = models.compared(layer, chosen, selection, pair=pair, progress_bar=progress_bar)
    comparison = next(iter(found.values()))
    for message in comparison.problems():
        warnings.warn(message, stacklevel=2)
    return comparison


class Models:
    """Banks of several models on one probe set.

    Args:
        sources: The banks or their files.
        names: Names of the models.

    Raises:
        ValueError: The probe sets differ.
    """

    def __init__(self, sources: Sequence[BankSource], names: Sequence[str]) -> None:
        self.sources = sources
        self.names = tuple(names)
        self.headers = [open_bank(source, batches=()) for source in sources]
        self._check_probe_sets()

    @classmethod
    def of(cls, banks: Sequence[BankSource], names: Sequence[str] | None = None, least: int = 2) -> Models:
        """Return the models of banks, files and folders; see `compare_many`."""
        if isinstance(banks, str | Path | GramBank):
            raise TypeError(f"expected a sequence of banks, files or folders of runs, but got {banks!r}")
        if len(banks) < least:
            raise ValueError(f"expected at least {least} banks, files or folders of runs, but got {len(banks)}")
        found = names_of_banks(banks) if names is None else list(names)
        if len(found) != len(banks) or len(set(found)) < len(found):
            raise ValueError(f"names: expected {len(banks)} different names, but got {shortened(found, 20)}")
        return cls([_last_bank(source) for source in banks], found)

    def compared(
        self,
        layer: Layers,
        measures: Mapping[str, Measure],
        selection: SampleSelection,
        *,
        pair: Literal["name", "position"] = "name",
        progress_bar: bool = False,
    ) -> dict[str, ModelComparison]:
        """Return the comparison of all models by measure; see `compare_many`."""
        first = self.headers[0]
        check_sizes(measures, (len(batch.samples) for batch in first.probe.values()))
        rows = self._rows(layer, pair)
        progress = f"CKA: {len(self.names)} models" if progress_bar else None
        layers = LayerByLayer(self.sources, self.headers, self.names, rows)
        results = layers.results(measures, selection=selection, progress=progress)
        return {name: ModelComparison.of_layers(self.names, by_layer) for name, by_layer in results.items()}

    def _rows(self, layer: Layers, pair: Literal["name", "position"]) -> dict[str, list[int]]:
        """Return the row in each bank, by each layer of the first model that all models have."""
        first, *others = self.headers
        if pair not in ("name", "position"):
            raise ValueError(f"pair must be 'name' or 'position', but is {pair!r}")
        pairs = [dict(zip(first.layers, first.layers, strict=True))]
        for name, bank in zip(self.names[1:], others, strict=True):
            pairing = announced_pairing(first.layers, bank.layers, pair=pair, reference=f"model '{name}'").layers
            pairs.append(dict(pairing))
            if not pairing:
                raise ValueError(
                    f"{self.names[0]} and {name} have no common layers: {shortened(first.layers, 4)}, and "
                    f"{shortened(bank.layers, 4)}"
                )
        common = tuple(each for each in first.layers if all(each in layers for layers in pairs))
        if not common:
            raise ValueError(f"no layer of {self.names[0]} is in all models, but only in some of them")
        chosen = bank_of_layers(first.empty(common), layer, "layer").layers
        banks = list(zip(self.headers, pairs, strict=True))
        return {each: [bank.layers.index(layers[each]) for bank, layers in banks] for each in chosen}

    def _check_probe_sets(self) -> None:
        """Check that all banks have one probe set.

        Raises:
            ValueError: They do not. The message names those that differ from the bank that most others agree with.
        """
        differences = [[one.probe_differences(other) for other in self.headers] for one in self.headers]
        usual = max(range(len(self.names)), key=lambda row: sum(not each for each in differences[row]))
        if unlike := [place for place, each in enumerate(differences[usual]) if each]:
            details = "; ".join(differences[usual][unlike[0]])
            raise ValueError(
                f"all banks must have one probe set, but that of {shortened([self.names[p] for p in unlike], 20)} is "
                f"not that of {self.names[usual]}: {self.names[unlike[0]]} differs in {details}"
            )


def _last_bank(source: BankSource) -> BankSource:
    """Return a bank or a file as it is, and the file of the last bank of a folder."""
    if isinstance(source, GramBank) or not Path(source).is_dir():
        return source
    return sources_of_run(source, "a comparison of many models", 1)[-1]


def names_of_banks(banks: Sequence[BankSource]) -> list[str]:
    """Return different names: the parts of the paths that differ, and the classes of banks in memory."""
    paths = [Path(os.path.abspath(bank)) for bank in banks if not isinstance(bank, GramBank)]  # noqa: PTH100  # Path.resolve would follow links to other names.
    paths = [path.with_suffix("") if path.suffix == BANK_SUFFIX else path for path in paths]
    of_paths = iter(names_of_runs(paths) if paths else [])
    found: list[str] = []
    for bank in banks:
        base = bank.title if isinstance(bank, GramBank) else next(of_paths)
        tried = (base if number == 1 else f"{base} ({number})" for number in count(1))
        found.append(next(name for name in tried if name not in found))
    return found
