"""Banks of one network at several moments of its training: their sources, their names, and what they must share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_cka.compare.run_files import bank_files
from lightning_cka.probe.bank import GramBank
from lightning_cka.runtime.spacing import spread_evenly
from lightning_cka.runtime.text import shortened

if TYPE_CHECKING:
    from lightning_cka.compare.result import CKAResult

    BankSource = str | Path | GramBank
else:
    # With GramBank, the help of LightningCLI would list its subclasses.
    BankSource = str | Path

INITIAL_LABEL = "init"
"""Name of the moment before training."""

STEP_LABEL = "step "
"""Start of the names of steps."""

_MAX_ENTRIES = 2**20
"""Largest number of matrix entries that are read from a file at a time, unless one batch has more: 4 MiB. The header
of the file is read and checked each time, which takes longer than small matrices."""


def sources_of_run(banks: str | Path | Sequence[BankSource], purpose: str, least: int) -> Sequence[BankSource]:
    """Return the banks of a run, in order of time.

    Args:
        banks: The banks, or the folder that `CKAMonitor(save_banks=True)` wrote.
        purpose: What needs the banks, for messages.
        least: Smallest number of banks, 1 or 2.

    Raises:
        ValueError: There are fewer banks.
        FileNotFoundError: There is no such folder.
    """
    number = "one epoch" if least == 1 else "two epochs"
    if isinstance(banks, str | Path):
        folder = Path(banks)
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {str(folder)!r}")
        banks = bank_files(folder)
        if len(banks) < least:
            raise ValueError(
                f"{purpose} needs the banks of at least {number}, but {str(folder)!r} has {len(banks)}; "
                "CKAMonitor(save_banks=True) writes them"
            )
    if len(banks) < least:
        words = "one bank" if least == 1 else "two banks"
        raise ValueError(f"{purpose} needs at least {words}, but got {len(banks)}")
    return banks


def check_same_layers_and_probe_set(banks: Sequence[GramBank]) -> None:
    """Check that banks have the same layers and the same probe set.

    Raises:
        ValueError: They do not.
    """
    first = banks[0]
    for bank in banks[1:]:
        if bank.layers != first.layers:
            raise ValueError(f"the banks of {first.title} and {bank.title} have different layers")
        if differences := first.probe_differences(bank):
            raise ValueError(
                f"the banks of {first.title} and {bank.title} have different probe sets: they differ in "
                f"{'; '.join(differences)}"
            )


def batches_at_a_time(bank: GramBank) -> list[list[int]]:
    """Return the indices of a bank's batches in order, in groups that are read from its file at a time."""
    groups: list[list[int]] = []
    left = 0
    for index in sorted(bank.probe):
        entries = len(bank.layers) * len(bank.probe[index].samples) ** 2 // 2
        if not groups or entries > left:
            groups.append([])
            left = _MAX_ENTRIES
        groups[-1].append(index)
        left -= entries
    return groups


def moment_names(banks: Sequence[GramBank] | Sequence[CKAResult]) -> tuple[str, ...]:
    """Return distinct names of the moments: epochs if these are known and distinct, else steps, else numbers.

    Args:
        banks: Banks or results of one run, in order of time.
    """
    by_steps = any(bank.epoch is None and bank.step for bank in banks)
    for names in (
        [] if by_steps else [_epoch_name(bank) for bank in banks],
        [f"{STEP_LABEL}{bank.step}" for bank in banks],
    ):
        if names and len(set(names)) == len(names):
            return tuple(names)
    return tuple(map(str, range(len(banks))))


def moment_words(name: str) -> str:
    """Return words for a name of `moment_names`, such as "epoch 3" for "3"; empty if the moment is unknown."""
    if name.isdigit():
        return f"epoch {name}"
    return {INITIAL_LABEL: "before training", "?": ""}.get(name, name)


def chosen_moments(
    banks: Sequence[GramBank],
    moments: Sequence[str],
    epochs: Sequence[int | str] | None,
    max_moments: int | None,
) -> list[int]:
    """Return the places of the chosen epochs: the last bank of each.

    Args:
        banks: Banks in order of time.
        moments: Their `moment_names`.
        epochs: Epochs; "init" is the moment before training. None: all moments.
        max_moments: Largest number of moments if ``epochs`` is None: evenly spaced ones of more.

    Raises:
        ValueError: An epoch has no bank, or none is chosen.
    """
    if epochs is None:
        return spread_evenly(range(len(banks)), len(banks) if max_moments is None else max_moments)
    names = [moment if bank.epoch is None else str(bank.epoch) for bank, moment in zip(banks, moments, strict=True)]
    places = {name: place for place, name in enumerate(names)}
    missing = [str(epoch) for epoch in epochs if str(epoch) not in places]
    if missing or not epochs:
        expected = shortened(list(places), 20)
        raise ValueError(f"epochs: expected some of {expected}, but got {', '.join(missing) or 'none'}")
    return sorted({places[str(epoch)] for epoch in epochs})


def chosen_batch(banks: Sequence[GramBank], batch: int | None, marked: Sequence[int]) -> int:
    """Return the index of a probe batch.

    Args:
        banks: Banks of one probe set.
        batch: The index. None: the batch of the first of the ``marked`` samples; without any, the first batch.
        marked: Numbers of samples.

    Raises:
        ValueError: A bank lacks it, or there is no batch.
    """
    common = sorted(set.intersection(*(set(bank.batches or bank.probe) for bank in banks)))
    if not common:
        raise ValueError("there is no probe batch that all banks have")
    if batch is not None and batch not in common:
        raise ValueError(f"batch: expected one of {shortened(list(map(str, common)), 20)}, but got {batch}")
    if batch is not None:
        return batch
    home = {sample: index for index in reversed(common) for sample in banks[0].probe[index].samples}
    return next((home[sample] for sample in marked if sample in home), common[0])


def _epoch_name(bank: GramBank | CKAResult) -> str:
    if bank.epoch is not None:
        return str(bank.epoch)
    return INITIAL_LABEL if bank.step == 0 else "?"
