"""`on_error="warn"`: if a comparison fails during training, its results are ``nan`` and training continues."""

from __future__ import annotations

import traceback
from collections.abc import Sequence

import torch
from lightning.pytorch import LightningModule, Trainer

from lightning_cka.compare.layer_ranks import LayerRanks
from lightning_cka.compare.pair import Outcome
from lightning_cka.compare.result import CKAResult
from lightning_cka.hsic.measure import Measure
from lightning_cka.monitor.epoch_comparison import EpochComparison, compare_epoch
from lightning_cka.monitor.live_probe import LiveProbe
from lightning_cka.monitor.reference import Reference
from lightning_cka.monitor.settings import Settings
from lightning_cka.monitor.trainer_state import Moment
from lightning_cka.monitor.warn_once import WarnOnce
from lightning_cka.runtime.collectives import gather_objects, synchronized_errors
from lightning_cka.runtime.devices import sums_device
from lightning_cka.runtime.namespaces import class_names


def compare_or_warn(
    trainer: Trainer,
    module: LightningModule,
    probe: LiveProbe,
    references: Sequence[Reference],
    settings: Settings,
    warn: WarnOnce,
    when: Moment,
    earlier: LayerRanks | None = None,
) -> EpochComparison | None:
    """Compare like `compare_epoch`. If that raises on one process, all processes get results that are ``nan``.

    Sharded models are an exception: if a forward pass fails on one process only, the others wait for it.
    """
    ready = [reference for reference in references if reference.is_ready]
    try:
        with synchronized_errors(sums_device(module.device), "compare"):
            return compare_epoch(trainer, module, probe, references, settings, warn, when, earlier)
    except Exception as error:  # A dataset or a model raises anything. The user asked for a warning.
        if "SIGTERMException" in class_names(error):
            raise
        failure = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}"
        # Frames of the traceback hold tensors, which may be what filled the memory.
        traceback.clear_frames(error.__traceback__)
    for reference in references:
        if reference.epoch is not None and reference.epoch == when.epoch:
            reference.clear_bank()  # Its bank is empty, or has a part of the batches.
    _warn_about(failure, when, warn)
    name = type(module).__name__
    outcomes = {
        (reference.name, key): Outcome(
            _undefined_result(probe.plan.names, reference, measure, name, when),
            {},
            0,
        )
        for reference in ready
        for key, measure in settings.measures.items()
    }
    return EpochComparison(outcomes, {reference.name: reference.title for reference in ready}, when)


def _warn_about(failure: str, when: Moment, warn: WarnOnce) -> None:
    """Warn once per run, with the error of the process that failed. Every process must call this."""
    failures = gather_objects(failure, distributed=True)
    if not failures or not warn.is_new("comparison failed"):
        return
    # The other processes only know that one has failed.
    own = [each for each in failures if "; see its error" not in each]
    of_epoch = "" if when.epoch is None else f" of epoch {when.epoch}"
    warn(
        f"the comparison at step {when.step}{of_epoch} failed: {(own or failures)[0]}. Its CKA is nan, and "
        "training continues because of on_error='warn'. Later failures give no warning"
    )


def _undefined_result(
    layers: tuple[str, ...],
    reference: Reference,
    measure: Measure,
    model_name: str,
    when: Moment,
) -> CKAResult:
    """Return a result whose values are all ``nan``."""
    columns = layers if reference.bank is None else reference.bank.layers
    nan = torch.full((len(layers), len(columns)), torch.nan, dtype=torch.float64, device="cpu")
    return CKAResult(
        nan,
        layers,
        columns,
        standard_error=nan,
        num_samples=0,
        num_batches=0,
        epoch=when.epoch,
        step=when.step,
        model_name=model_name,
        reference_name=reference.name,
        measure=measure.name,
        kernel=measure.kernel,
        self_comparison=reference.source == "self",
        unbiased=measure.is_unbiased,
        mean_standard_error=torch.nan,
        pairing=reference.pairing,
    )
