"""Show a model the probe set without a Trainer: on a chosen device, with a progress bar."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn
from tqdm.auto import tqdm

from lightning_cka.probe.bank_batch import BankBatch
from lightning_cka.probe.block_grams import Observer
from lightning_cka.probe.chosen_layers import announce_layers
from lightning_cka.probe.dry_run import dry_run
from lightning_cka.probe.exchangeability import BatchVariation, Variation
from lightning_cka.probe.fit_blocks import fit_blocks
from lightning_cka.probe.forward import ForwardSettings
from lightning_cka.probe.layers import LayerPlan, LayerSelector
from lightning_cka.probe.probe_set import ProbeSet
from lightning_cka.probe.show_probe_set import Consumer, show_probe_set
from lightning_cka.probe.tokens import tokens_per_sequence
from lightning_cka.runtime.devices import sums_device
from lightning_cka.runtime.placement import on_device


class CollectedBatches(NamedTuple):
    """The Gram matrices of one model on the whole probe set."""

    layers: tuple[str, ...]
    """Names of the layers, in the order of the Gram matrices' rows."""
    batches: list[BankBatch]
    """One entry per probe batch, in host memory."""
    variation: list[Variation]
    """Layers whose batches are not exchangeable."""


def collect_batches(
    model: nn.Module,
    probe: ProbeSet,
    selectors: tuple[LayerSelector, ...] | None,
    forward_settings: ForwardSettings,
    *,
    progress_bar: bool,
) -> CollectedBatches:
    """Find a model's layers, show it the probe set, and return its Gram matrices.

    Args:
        model: The model. It is restored afterwards, on its own device.
        probe: The probe set.
        selectors: See `dry_run`.
        forward_settings: How a batch is passed to the model, and on which device.
        progress_bar: Whether to show a progress bar.

    Raises:
        ValueError: See `dry_run`.
    """
    batches: list[BankBatch] = []
    with on_device(model, forward_settings.device):
        plan = dry_run(model, probe, selectors, forward_settings)
        probe, plan = fit_blocks(probe, plan, forward_settings.device)
        announce_layers(plan, model, selectors)
        variation = BatchVariation(plan.names, sums_device(forward_settings.device))
        show_with_progress(
            model,
            probe,
            plan,
            forward_settings,
            lambda batch: batches.append(batch.host_copy()),
            variation.add,
            progress_bar=progress_bar,
        )
    return CollectedBatches(plan.names, batches, variation.result(distributed=False))


def show_with_progress(
    model: nn.Module,
    probe: ProbeSet,
    plan: LayerPlan,
    forward_settings: ForwardSettings,
    consume: Consumer,
    observe: Observer | None = None,
    *,
    progress_bar: bool,
) -> None:
    """Show a model the whole probe set, with a progress bar.

    Args:
        model: See `show_probe_set`, as for the next five arguments.
        probe: The probe set.
        plan: The layers.
        forward_settings: How a batch is passed to the model.
        consume: Called after each batch.
        observe: Called with each layer's features.
        progress_bar: Whether to show the progress bar.
    """
    total = probe.num_blocks
    total = None if total is None else total * (tokens_per_sequence(forward_settings.feature_fn) or 1)
    with tqdm(desc=f"CKA: {type(model).__name__}", total=total, unit="batch", disable=not progress_bar) as bar:

        def consume_and_count(batch: BankBatch) -> None:
            consume(batch)
            bar.update()

        show_probe_set(model, probe, plan, forward_settings, consume_and_count, observe=observe)
        bar.update((total or bar.n) - bar.n)  # Count the batches that were skipped because they are too small.
