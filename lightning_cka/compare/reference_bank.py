"""Make the Gram bank of the reference of `compare_models`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from lightning_cka.compare.pairing import Pairing
from lightning_cka.probe.bank import GramBank
from lightning_cka.probe.chosen_layers import announce_layers
from lightning_cka.probe.dry_run import dry_run
from lightning_cka.probe.fit_blocks import check_blocks
from lightning_cka.probe.forward import ForwardSettings
from lightning_cka.probe.forward_messages import ForwardFailedError
from lightning_cka.probe.layers import LayerSelector
from lightning_cka.probe.probe_set import ProbeSet


def reference_bank(
    reference: nn.Module,
    probe: ProbeSet,
    selectors: tuple[LayerSelector, ...] | None,
    settings: ForwardSettings,
    show: Callable[..., None],
    pair_with: Callable[[Sequence[str]], Pairing],
    num_samples: int,
) -> tuple[GramBank, Pairing]:
    """Return the Gram bank of a reference on the probe set, and which of its layers are paired.

    Args:
        reference: The reference.
        probe: The probe set.
        selectors: Its layers; see `dry_run`.
        settings: How it is shown batches.
        show: `show_with_progress`, with the choice of a progress bar.
        pair_with: Pairs its layers, given their names.
        num_samples: Number of samples in the first Gram matrix of the model.

    Raises:
        ValueError: See `dry_run` and `check_blocks`, or the layers cannot be paired, or the first Gram matrices have
            different numbers of samples.
    """
    try:
        plan = dry_run(reference, probe, selectors, settings, argument="reference_layers")
        check_blocks(plan, settings.device)
        announce_layers(plan, reference, selectors, "layers of the reference")
    except ForwardFailedError as error:
        raise ValueError(f"reference: {error}") from error
    except ValueError as error:
        raise ValueError(f"reference: {error} (reference_layers= chooses its layers)") from error
    if plan.num_samples != num_samples:
        raise ValueError(
            f"the first batch has {num_samples} samples in dataloader and {plan.num_samples} in reference_dataloader, "
            "but sample i of the one must belong to sample i of the other"
        )
    pairing = pair_with(plan.names)  # This may fail, so it comes before all batches are shown.
    bank = GramBank(plan.names, type(reference).__name__, settings.sample_kind(probe))
    show(reference, probe, plan, settings, bank.add)
    return bank, pairing
