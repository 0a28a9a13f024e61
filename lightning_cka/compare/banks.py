"""`compare_banks`: CKA between two Gram banks."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

from lightning_cka.compare.comparison import Comparison
from lightning_cka.compare.flag_messages import flag_messages
from lightning_cka.compare.flags import Thresholds, check_thresholds
from lightning_cka.compare.metric import undefined_message
from lightning_cka.compare.result import CKAResult
from lightning_cka.hsic.kernels import Kernel, check_feature_kernel, kernel_name
from lightning_cka.probe.bank import GramBank, open_bank
from lightning_cka.probe.bank_selection import aligned, bank_of_layers
from lightning_cka.probe.layers import Layers

_CPU = torch.device("cpu")


def compare_banks(
    a: GramBank | str | Path,
    b: GramBank | str | Path,
    *,
    layers: Layers = None,
    reference_layers: Layers = None,
    kernel: Kernel = "linear",
    unbiased: bool = True,
    thresholds: Thresholds | None = None,
    strict: bool = True,
) -> CKAResult:
    """CKA between the layers of two models that were shown the same probe set.

    Args:
        a: of the model; a bank or its file.
        b: of the reference; likewise.
        layers: patterns over the names of the model's layers; None: all that are in its bank.
        reference_layers: likewise for the reference; None: as ``layers``.
        kernel: as in `compare_models`.
        unbiased: likewise.
        thresholds: likewise.
        strict: False: compare them also if their probe sets differ, batch by batch where these have equally many
            samples, with a warning of what differs. Sample i of a batch is then taken to be sample i of the other:
            where it is not, the values mean nothing.

    Returns:
        As `compare_models` does.

    Raises:
        ValueError: the probe sets differ, a pattern matches no layer, or the kernel is unknown.
    """
    check_feature_kernel(kernel)
    a, b = open_bank(a), open_bank(b)
    is_self = a is b and reference_layers is None
    if differences := a.probe_differences(b):
        told = f"the banks are of different probe sets: they differ in {'; '.join(differences)}"
        if strict:
            raise ValueError(f"{told}. strict=False (--loose) compares batches of equal size all the same")
        a, b = aligned(a, b)
        if not a.batches:
            raise ValueError(f"{told}. No batch has equally many samples in both")
        warnings.warn(
            f"{told}. Compared are {a.num_samples} samples, as if they were the same in both; where they are not, the "
            "values mean nothing",
            stacklevel=2,
        )
    a = bank_of_layers(a, layers)
    b = (
        a
        if is_self
        else bank_of_layers(b, layers if reference_layers is None else reference_layers, "reference_layers")
    )
    comparison = Comparison(
        a.layers,
        {b.title: None if is_self else b},
        {kernel_name(kernel): kernel},
        _CPU,
        model_name=a.title if a.epoch is None else a.model_name,  # The result has the epoch.
        unbiased=unbiased,
        thresholds=check_thresholds(thresholds),
        sample_kind=a.sample_kind,
    )
    for batch in a:
        comparison.add(batch)
    return finished(comparison, epoch=a.epoch, step=None if a.epoch is None else a.step)


def finished(comparison: Comparison, **attributes: Any) -> CKAResult:
    (outcome,) = comparison.results(**attributes).values()
    if outcome.num_mismatched:
        raise ValueError(
            f"the dataloader gave other samples to the two models in {outcome.num_mismatched} batches; "
            "pass one that gives the same samples each time it is iterated"
        )
    for reason, names in outcome.undefined_layers.items():
        warnings.warn(undefined_message(reason, names), stacklevel=3)
    result = outcome.result
    for message in flag_messages(result.flags, comparison.sample_kind, result.kernel):
        warnings.warn(message, stacklevel=3)
    return result
