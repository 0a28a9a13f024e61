"""The seed ceiling of a run: read its banks, check that they are of this run's probe set, and compare them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from lightning_cka.compare.bank_series import BankSource
from lightning_cka.decisions.ceiling import SeedCeiling
from lightning_cka.decisions.compare_many import Models
from lightning_cka.decisions.seed_ceiling import ceilings_of
from lightning_cka.monitor.reference import Reference
from lightning_cka.monitor.settings import Settings
from lightning_cka.probe.bank import GramBank
from lightning_cka.runtime.collectives import all_gather_objects, synchronized_errors
from lightning_cka.runtime.text import shortened


def check_ceiling(ceiling: Sequence[BankSource] | None, references: Sequence[Reference]) -> None:
    """Check the argument ``ceiling`` as far as that is possible without the model.

    Raises:
        ValueError: There are fewer than two banks, or the only reference is "self".
        TypeError: It is not a sequence.
        FileNotFoundError: A bank does not exist.
    """
    if ceiling is None:
        return
    if isinstance(ceiling, str | Path | GramBank):
        raise TypeError(f"ceiling must be a sequence of banks of other seeds, but is {ceiling!r}")
    if len(ceiling) < 2:
        raise ValueError(f"ceiling needs banks of at least two seeds, and of three for an interval, not {len(ceiling)}")
    for bank in ceiling:
        if not isinstance(bank, GramBank) and not Path(bank).exists():
            raise FileNotFoundError(f"ceiling: there is no bank or folder {str(bank)!r}")
    if all(reference.source == "self" for reference in references):
        raise ValueError("ceiling is for layers of the same name, but reference 'self' compares different layers")


def read_ceilings(settings: Settings, layers: Sequence[str], probe: GramBank | None = None) -> dict[str, SeedCeiling]:
    """Return the seed ceiling by measure; empty if the user wants none.

    Args:
        settings: The monitor's settings.
        layers: The live model's layers.
        probe: A bank of the run's probe set. None: the probe set is not known, and not checked.

    Raises:
        ValueError: A bank cannot be read, or has another probe set or lacks layers.
        FileNotFoundError: A bank does not exist any more.
    """
    if settings.ceiling is None:
        return {}
    models = Models.of(settings.ceiling)
    for name, bank in zip(models.names, models.headers, strict=True):
        if probe is not None and (differences := bank.probe_differences(probe)):
            raise ValueError(
                f"ceiling: the bank of {name} is not of this run's probe set: they differ in {'; '.join(differences)}. "
                "Give both runs the same data and arguments, or make the bank with GramBank.from_model(..., like=)"
            )
        if missing := [layer for layer in layers if layer not in bank.layers]:
            raise ValueError(
                f"ceiling: the bank of {name} lacks layers of this model: {shortened(missing)}; it has "
                f"{shortened(bank.layers)}"
            )
    return ceilings_of(models, list(layers), settings.measures, settings.selection)


def run_ceilings(
    settings: Settings, bank: GramBank | None, layers: Sequence[str], device: torch.device
) -> dict[str, SeedCeiling]:
    """Return the seed ceiling by measure, before the first training step. Every process must call this.

    Args:
        settings: The monitor's settings.
        bank: A bank of this process on the run's probe set.
        layers: The live model's layers.
        device: The device that the processes communicate through.

    Raises:
        ValueError: See `read_ceilings`. All processes raise.
    """
    if settings.ceiling is None:
        return {}
    probe = None
    if bank is not None:
        probe = bank.empty()
        for part in all_gather_objects(bank.probe):
            probe.probe.update(part)
    with synchronized_errors(device, "compare the banks of the seed ceiling"):
        return read_ceilings(settings, layers, probe)
