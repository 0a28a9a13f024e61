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
        raise ValueError(
            f"ceiling needs the banks of at least two seeds, and three for an interval, not {len(ceiling)}"
        )
    for bank in ceiling:
        if not isinstance(bank, GramBank) and not Path(bank).exists():
            raise FileNotFoundError(f"ceiling: there is no bank or folder {str(bank)!r}")
    if all(reference.source == "self" for reference in references):
        raise ValueError("ceiling is for layers of the same name, but reference 'self' compares different layers")


def run_ceilings(
    settings: Settings, bank: GramBank | None, layers: Sequence[str], device: torch.device
) -> dict[str, SeedCeiling]:
    """Return the seed ceiling by measure; empty if the user wants none. Every process must call this.

    Args:
        settings: The monitor's settings.
        bank: A bank of this process on the run's probe set. None: there is none yet, and the inputs are not checked.
        layers: The live model's layers.
        device: The device that the processes communicate through.

    Raises:
        ValueError: A bank cannot be read, or has another probe set or none of the layers. All processes raise.
    """
    if settings.ceiling is None:
        return {}
    with synchronized_errors(device, "read the banks of the seed ceiling"):
        models = Models.of(settings.ceiling)
    probe = None if bank is None else _whole_probe(bank)
    with synchronized_errors(device, "compare the banks of the seed ceiling"):
        if probe is not None:
            for name, header in zip(models.names, models.headers, strict=True):
                if differences := header.probe_differences(probe):
                    raise ValueError(
                        f"ceiling: the bank of {name} is not of this run's probe set: it differs in "
                        f"{'; '.join(differences)}. Train it with the same arguments of the probe set, or make it with "
                        "GramBank.from_model(..., like=)"
                    )
                if missing := [layer for layer in layers if layer not in header.layers]:
                    raise ValueError(
                        f"ceiling: the bank of {name} lacks layers of this model: {shortened(missing)}; it has "
                        f"{shortened(header.layers)}"
                    )
        return ceilings_of(models, list(layers), settings.measures, settings.selection)


def _whole_probe(bank: GramBank) -> GramBank:
    """Return a bank without Gram matrices that has the batches of all processes."""
    whole = bank.empty()
    for part in all_gather_objects(bank.probe):
        whole.probe.update(part)
    return whole
