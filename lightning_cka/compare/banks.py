"""`compare_banks`: CKA between two Gram banks, without a model or a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import overload

import torch

from lightning_cka.compare.bank_pair import BankPair
from lightning_cka.compare.checked_result import checked_results, one_or_all
from lightning_cka.compare.compared_banks import ComparedBanks
from lightning_cka.compare.comparison import Comparison
from lightning_cka.compare.flags import Thresholds, check_thresholds
from lightning_cka.compare.pairing import Pair, announce_pairing
from lightning_cka.compare.result import CKAResult
from lightning_cka.hsic.check_measures import Measures, OneMeasure, check_sizes, measures_of_features
from lightning_cka.hsic.kernels import Kernel
from lightning_cka.probe.bank import GramBank
from lightning_cka.probe.layers import Layers
from lightning_cka.probe.sample_selection import Exclude, Groups, SampleSelection

_CPU = torch.device("cpu")


@overload  # A string is a sequence of strings, but one measure: the first signature has it.
def compare_banks(  # type: ignore[overload-overlap]
    a: GramBank | str | Path,
    b: GramBank | str | Path,
    *,
    layers: Layers = None,
    reference_layers: Layers = None,
    measures: OneMeasure = "cka",
    kernel: Kernel = "linear",
    unbiased: bool = True,
    thresholds: Thresholds | None = None,
    exclude: Exclude = None,
    groups: Groups = None,
    strict: bool = True,
    pair: Pair = "name",
    model_name: str | None = None,
    reference_name: str | None = None,
) -> CKAResult: ...


@overload
def compare_banks(
    a: GramBank | str | Path,
    b: GramBank | str | Path,
    *,
    layers: Layers = None,
    reference_layers: Layers = None,
    measures: Sequence[OneMeasure],
    kernel: Kernel = "linear",
    unbiased: bool = True,
    thresholds: Thresholds | None = None,
    exclude: Exclude = None,
    groups: Groups = None,
    strict: bool = True,
    pair: Pair = "name",
    model_name: str | None = None,
    reference_name: str | None = None,
) -> dict[str, CKAResult]: ...


def compare_banks(
    a: GramBank | str | Path,
    b: GramBank | str | Path,
    *,
    layers: Layers = None,
    reference_layers: Layers = None,
    measures: Measures = "cka",
    kernel: Kernel = "linear",
    unbiased: bool = True,
    thresholds: Thresholds | None = None,
    exclude: Exclude = None,
    groups: Groups = None,
    strict: bool = True,
    pair: Pair = "name",
    model_name: str | None = None,
    reference_name: str | None = None,
) -> CKAResult | dict[str, CKAResult]:
    """Compare the layers of two models that were shown the same probe set.

    Paper: Kornblith et al. 2019, https://arxiv.org/abs/1905.00414. Layers whose CKA is ``nan`` or can mislead are named
    in warnings.

    Args:
        a: Bank of the model (the rows), or the path of its file.
        b: Bank of the reference (the columns), or the path of its file. ``a`` again compares the model with itself.
        layers: Patterns of the model's layer names, such as ``"net.*"``; None: all layers of the bank.
        reference_layers: Patterns of the reference's layer names; None: the same as ``layers``.
        measures: "cka" (with ``kernel``), "mutual_knn", "rsa", "ridge", an object such as `lightning_cka.MutualKNN`,
            or a list of these. A list gives a mapping of results by name.
        kernel: Kernel of CKA: "linear", "rbf", `lightning_cka.RBF`, "distance", or a function of ``(n, n)`` squared
            distances that returns an ``(n, n)`` Gram matrix.
        unbiased: Whether to use the unbiased HSIC. Values of the biased HSIC depend on the batch size.
        thresholds: Thresholds of the flags; None: the defaults of `Thresholds`.
        exclude: Numbers of samples to leave out, as flags name them. The other samples are centered again.
        groups: Labels of the samples, for CKA within groups: a sequence that is indexed by sample numbers, such as the
            labels of the dataset, or a mapping from them. Features are centered within each group of each batch. Groups
            of fewer than 4 samples in a batch are left out, with a warning.
        strict: Whether to raise an error if the probe sets differ. False compares the batches that have the same number
            of samples in both banks, and warns. It assumes that sample i of a batch is the same in both; otherwise the
            values are meaningless.
        pair: Which layers are paired, for `CKAResult.same_named` and `CKAResult.mean`: "name" (of the same names, also
            after the one pair of prefixes is removed that pairs most layers), "position", or a mapping {layer of ``a``:
            layer of ``b``}; see `lightning_cka.compare.pairing.pair_layers`.
        model_name: Name of the model for titles and axis labels, such as that of its run; None: that of the bank.
        reference_name: Name of the reference, likewise. Its epoch follows.

    Returns:
        The result ``(L, R)`` with standard errors, diagnostics and flags; for a list of measures, results by name. A
        result refers to the banks, for `CKAResult.null`.

    Raises:
        ValueError: The probe sets differ, a pattern matches no layer, layers cannot be paired, or a measure or the
            kernel is unknown.
        TypeError: The kernel is neither a name nor a function, or ``thresholds`` or ``pair`` has another type.
        FileNotFoundError: A file does not exist.

    Example:
        >>> import torch
        >>> from lightning_cka import GramBank, compare_banks
        >>> _ = torch.manual_seed(0)
        >>> batches = [torch.randn(64, 16) for _ in range(8)]
        >>> nets = [torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU()) for _ in range(2)]
        >>> a, b = (GramBank.from_model(net, batches, progress_bar=False) for net in nets)
        >>> result = compare_banks(a, b)
        >>> result.layers, result.num_samples
        (('0',), 512)
    """
    chosen = measures_of_features(measures, kernel, unbiased=unbiased)
    selection = SampleSelection(exclude, groups)
    banks = BankPair.of(a, b, (layers, reference_layers), strict=strict, pair=pair).named(model_name, reference_name)
    if not banks.is_self:
        announce_pairing(banks.pairing, len(banks.a.layers), "the bank of the reference")
    is_dated = banks.a.epoch is not None or bool(banks.a.step)
    comparison = Comparison(
        banks.a.layers,
        {banks.b.title: None if banks.is_self else banks.b},
        chosen,
        _CPU,
        model_name=banks.a.model_name if is_dated else banks.a.title,  # The result has the epoch or the step.
        thresholds=check_thresholds(thresholds),
        sample_kind=banks.a.sample_kind,
        selection=selection,
        keep_all_pairs=True,
        pairings={banks.b.title: banks.pairing},
    )
    check_sizes(chosen, (batch.grams.num_samples for batch in banks.a))
    for batch in banks.a:
        comparison.add(batch)
    results = checked_results(comparison, epoch=banks.a.epoch, step=banks.a.step if is_dated else None)
    found = {
        name: replace(
            result, banks=ComparedBanks(a, b, (layers, reference_layers), selection, chosen[name], strict, pair)
        )
        for name, result in results.items()
    }
    return one_or_all(found, measures)
