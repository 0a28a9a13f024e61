"""Find the Trainer's validation data, and choose the probe set from it."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from torch import nn

from lightning_cka.monitor.settings import ProbeOptions
from lightning_cka.monitor.trainer_state import is_trial
from lightning_cka.probe.given_batches import probe_set_of_loader
from lightning_cka.probe.probe_set import ProbeSet
from lightning_cka.probe.seeded_sampling import draw_probe_set
from lightning_cka.runtime.attributes import AttributeSnapshot
from lightning_cka.runtime.collectives import all_gather_bool
from lightning_cka.runtime.namespaces import class_names
from lightning_cka.runtime.rng import isolated_rng

FAST_DEV_RUN_SAMPLES = 32
"""Maximum size of the probe set in a ``fast_dev_run``."""


def build_probe_set(options: ProbeOptions, trainer: Trainer) -> ProbeSet:
    """Draw the probe set from the validation dataset, or take the user's ``dataloader``.

    Raises:
        ValueError: There are no validation data, or too few.
    """
    fast_dev_run = is_trial(trainer)
    if options.dataloader is not None:
        return probe_set_of_loader(
            options.dataloader,
            seed=options.seed,
            max_blocks=1 if fast_dev_run else None,
            gram_batch_size=options.gram_batch_size,
        )
    loaders = validation_loaders(trainer)
    if not loaders:
        raise ValueError(
            "CKAMonitor draws its probe set from the validation dataloader, but this Trainer has no validation "
            "loop (no val_dataloaders or validation_step, or limit_val_batches=0); give fit() one, or pass dataloader="
        )
    if not 0 <= options.dataloader_idx < len(loaders):
        raise ValueError(f"dataloader_idx is {options.dataloader_idx}, but there are {len(loaders)} validation loaders")
    num_samples = options.num_samples
    if fast_dev_run:
        num_samples = min(num_samples or FAST_DEV_RUN_SAMPLES, FAST_DEV_RUN_SAMPLES)
    return draw_probe_set(
        loaders[options.dataloader_idx],
        num_samples=num_samples,
        batch_size=options.batch_size,
        gram_batch_size=options.gram_batch_size,
        seed=options.seed,
    )


def check_all_validate(validates: bool, device: torch.device) -> None:
    """Reject validation on some processes only: they would wait for the others when they compare.

    Args:
        validates: Whether this process has validation batches.
        device: The device on which processes communicate.

    Raises:
        ValueError: Some processes have validation batches and others have none.
    """
    all_validate = all_gather_bool(validates, device)
    if any(all_validate) and not all(all_validate):
        idle = ", ".join(str(rank) for rank, each in enumerate(all_validate) if not each)
        raise ValueError(
            f"process {idle} has no validation batch, and would not compare when the others do: give each process at "
            "least one"
        )


def validation_loaders(trainer: Trainer) -> list[Any]:
    """Return the Trainer's validation loaders in order; without a validation loop, an empty list."""
    loaders = trainer.val_dataloaders
    if loaders is None and trainer.enable_validation:
        loaders = _loaders_of_later(trainer.fit_loop.epoch_loop.val_loop._data_source)
    if loaders is None or loaders in ([], (), {}):
        return []
    if "CombinedLoader" in class_names(loaders):
        loaders = loaders.iterables
    return list(CombinedLoader(loaders, "sequential").flattened)


def _loaders_of_later(source: Any) -> Any:
    """Call ``val_dataloader()``, which Lightning calls only later if ``check_val_every_n_epoch`` is above 1.

    It is called again then. What it writes to now, and the random numbers that it draws, must not change training.
    """
    owner = source.instance
    if not source.is_module():
        return source.dataloader()  # Loaders that were passed to ``fit()``.
    modules = list(owner.modules()) if isinstance(owner, nn.Module) else []
    kept = AttributeSnapshot(modules, callers=[type(owner).val_dataloader], owners=[] if modules else [owner])
    try:
        with isolated_rng(0):
            return source.dataloader()
    finally:
        kept.restore()
