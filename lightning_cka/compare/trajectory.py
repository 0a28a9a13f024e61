"""How each layer's representation moves while a network trains, from the banks of its epochs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from lightning_cka.compare.comparison import Comparison
from lightning_cka.compare.flags import Thresholds, check_thresholds
from lightning_cka.compare.result import CKAResult
from lightning_cka.compare.run_files import bank_files
from lightning_cka.hsic.kernels import Kernel, check_feature_kernel, kernel_name
from lightning_cka.hsic.packed import PackedGrams
from lightning_cka.probe.bank import GramBank, open_bank
from lightning_cka.probe.bank_batch import BankBatch
from lightning_cka.probe.bank_selection import bank_of_layers
from lightning_cka.probe.layers import Layers

_CPU = torch.device("cpu")


def trajectories(
    banks: str | Path | Sequence[str | Path | GramBank],
    layers: Layers = None,
    *,
    kernel: Kernel = "linear",
    unbiased: bool = True,
    thresholds: Thresholds | None = None,
) -> dict[str, CKAResult]:
    """CKA of each layer with itself at the other epochs.

    Args:
        banks: at least two of one network on one probe set, in order; banks, their files, or the folder that
            `CKAMonitor(save_banks=True)` wrote. Of files, one probe batch is in memory at a time, but all
            of them where a kernel's bandwidth is to be fixed first.
        layers: patterns over the names of the layers; None: all that are in the banks.
        kernel: as in `compare_models`.
        unbiased: likewise.
        thresholds: likewise.

    Returns:
        By layer: the ``(E, E)`` matrix of E moments, whose "layers" are these moments: "init", the epochs, or steps
        where an epoch has several.

    Raises:
        ValueError: fewer than two banks, other layers or probe sets among them, or a pattern that matches no layer.
        FileNotFoundError: there is no such folder or file.
    """
    check_feature_kernel(kernel)
    sources = _sources(banks)
    # Of files, what there is to know without their Gram matrices.
    headers = [open_bank(source, batches=()) for source in sources]
    _check_one_history(headers)
    names = bank_of_layers(headers[0], layers).layers
    moments = _moments(headers)
    first = headers[0]
    comparisons = {
        name: Comparison(
            moments,
            {name: None},
            {kernel_name(kernel): kernel},
            _CPU,
            model_name=name,
            unbiased=unbiased,
            thresholds=check_thresholds(thresholds),
            sample_kind=first.sample_kind,
        )
        for name in names
    }
    for index in sorted(first.probe):
        grams = [open_bank(source, batches=[index]).batches[index].grams for source in sources]
        for name, comparison in comparisons.items():
            row = first.layers.index(name)
            stacked = PackedGrams(*(torch.stack([part[row] for part in parts]) for parts in zip(*grams, strict=True)))
            inputs = first.probe[index]
            comparison.add(BankBatch(index, stacked, inputs.fingerprint, inputs.samples))
    return {name: outcome.result for name, each in comparisons.items() for outcome in each.results().values()}


def _sources(banks: str | Path | Sequence[str | Path | GramBank]) -> Sequence[str | Path | GramBank]:
    if isinstance(banks, str | Path):
        folder = Path(banks)
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {str(folder)!r}")
        banks = bank_files(folder)
        if len(banks) < 2:
            raise ValueError(
                f"a trajectory needs the banks of at least two epochs, but {str(folder)!r} has {len(banks)}; "
                "CKAMonitor(save_banks=True) writes them"
            )
    if len(banks) < 2:
        raise ValueError(f"a trajectory needs at least two banks, but got {len(banks)}")
    return banks


def _check_one_history(banks: Sequence[GramBank]) -> None:
    first = banks[0]
    for bank in banks[1:]:
        if bank.layers != first.layers:
            raise ValueError(f"the banks of {first.title} and {bank.title} are of different layers")
        if differences := first.probe_differences(bank):
            raise ValueError(
                f"the banks of {first.title} and {bank.title} are of different probe sets: they differ in "
                f"{'; '.join(differences)}"
            )


def _moments(banks: Sequence[GramBank]) -> tuple[str, ...]:
    """Distinct names: epochs where these are enough, else steps, else places."""
    for names in (
        [("init" if bank.step == 0 else "?") if bank.epoch is None else str(bank.epoch) for bank in banks],
        [f"step {bank.step}" for bank in banks],
    ):
        if len(set(names)) == len(names):
            return tuple(names)
    return tuple(str(place) for place in range(len(banks)))
