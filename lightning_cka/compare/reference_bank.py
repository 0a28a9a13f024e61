"""Make the Gram bank of the reference of `compare_models`."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from lightning_cka.probe.bank import GramBank
from lightning_cka.probe.chosen_layers import announce_layers
from lightning_cka.probe.dry_run import dry_run
from lightning_cka.probe.fit_blocks import check_blocks
from lightning_cka.probe.forward import ForwardSettings
from lightning_cka.probe.layers import LayerSelector
from lightning_cka.probe.probe_set import ProbeSet


def reference_bank(
    reference: nn.Module,
    probe: ProbeSet,
    selectors: tuple[LayerSelector, ...] | None,
    settings: ForwardSettings,
    show: Callable[..., None],
) -> GramBank:
    """Return the Gram bank of a reference on the probe set.

    Args:
        reference: The reference.
        probe: The probe set.
        selectors: Its layers; see `dry_run`.
        settings: How it is shown batches.
        show: `show_with_progress`, with the choice of a progress bar.

    Raises:
        ValueError: See `dry_run` and `check_blocks`.
    """
    try:
        plan = dry_run(reference, probe, selectors, settings, argument="reference_layers")
        check_blocks(plan, settings.device)
        announce_layers(plan, reference, selectors, "layers of the reference")
    except ValueError as error:
        raise ValueError(f"reference: {error} (reference_layers= chooses its layers)") from error
    bank = GramBank(plan.names, type(reference).__name__, settings.sample_kind(probe))
    show(reference, probe, plan, settings, bank.add)
    return bank
