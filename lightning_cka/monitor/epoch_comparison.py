"""Compare the live model with its references at one moment of training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lightning.pytorch import LightningModule, Trainer

from lightning_cka.compare.comparison import Comparison
from lightning_cka.compare.find_flags import rank_flags, variation_flags
from lightning_cka.compare.layer_ranks import LayerRanks, ranks_with_peaks
from lightning_cka.compare.pair import Outcome
from lightning_cka.compare.rank_sums import RankSums
from lightning_cka.compare.run_files import moment
from lightning_cka.monitor.live_probe import LiveProbe
from lightning_cka.monitor.reference import Reference
from lightning_cka.monitor.settings import Settings
from lightning_cka.monitor.trainer_state import Moment, is_end_of_epoch, is_validate
from lightning_cka.monitor.warn_once import WarnOnce
from lightning_cka.probe.bank import GramBank
from lightning_cka.probe.bank_batch import BankBatch
from lightning_cka.runtime.devices import sums_device


class EpochComparison(NamedTuple):
    """The outcome of one comparison."""

    outcomes: dict[tuple[str, str], Outcome]
    """By names of reference and measure."""
    titles: dict[str, str]
    """Titles of the references, by name."""
    when: Moment
    bank: GramBank | None = None
    """The live model's bank, if it is a reference for later epochs or is to be saved."""
    drawn: GramBank | None = None
    """The live model's bank, if pictures of its samples are drawn."""


def compare_epoch(
    trainer: Trainer,
    module: LightningModule,
    probe: LiveProbe,
    references: Sequence[Reference],
    settings: Settings,
    warn: WarnOnce,
    when: Moment,
    earlier: LayerRanks | None = None,
) -> EpochComparison | None:
    """Show the live model the probe set, and compare it with all references that are ready.

    Every process must call this. Before the first training step, there is no "previous" to compare with.

    Args:
        trainer: The Trainer.
        module: The live model.
        probe: The probe set.
        references: The references.
        settings: The monitor's settings.
        warn: Issues warnings.
        when: The moment of the comparison.
        earlier: The effective ranks of the comparison before; None if there are none.

    Returns:
        The comparison; None if no reference is ready and the bank is not needed.
    """
    if is_validate(trainer):
        bank, ready = None, [reference for reference in references if reference.is_ready]
        _warn_about_missing(references, warn)
    else:
        bank = _bank_to_keep(module, probe, references, settings, when)
        ready = _ready_in_training(trainer, references, when)
        _keep_vectors(ready)
    if not ready and bank is None:
        return None
    drawn = _bank_to_draw(trainer, module, probe, settings, bank, when)
    comparison = Comparison(
        probe.plan.names,
        {reference.name: reference.bank for reference in ready},
        settings.measures,
        module.device,
        model_name=type(module).__name__,
        thresholds=settings.thresholds,
        sample_kind=probe.sample_kind,
        distributed=True,
        execution_order=probe.plan.execution_order,
        bank=bank or drawn,
        selection=settings.selection,
        pairings={reference.name: reference.pairing for reference in ready if reference.pairing is not None},
    )
    sums = RankSums(probe.plan.names, settings.selection, probe.sample_kind) if settings.log_ranks else None

    def add(batch: BankBatch) -> None:
        comparison.add(batch)
        if sums is not None:
            sums.add(batch)

    probe.show(trainer, module, add)
    flags, ranks = variation_flags(probe.variation), None
    if sums is not None:
        now = sums.result(sums_device(module.device), distributed=True)
        ranks = ranks_with_peaks(*now, earlier, when.epoch, when.step)
        flags += rank_flags(ranks, settings.thresholds)
    outcomes = comparison.results(flags, epoch=when.epoch, step=when.step, ranks=ranks)
    if comparison.message:
        warn(comparison.message)
    return EpochComparison(outcomes, {reference.name: reference.title for reference in ready}, when, bank, drawn)


def _bank_to_draw(
    trainer: Trainer,
    module: LightningModule,
    probe: LiveProbe,
    settings: Settings,
    bank: GramBank | None,
    when: Moment,
) -> GramBank | None:
    """Return the bank that is kept, or an empty one, if pictures of its samples are drawn; otherwise None."""
    if not settings.plot_samples or is_validate(trainer):
        return None
    return bank or probe.empty_bank(module, when.epoch, when.step)


def _warn_about_missing(references: Sequence[Reference], warn: WarnOnce) -> None:
    for reference in references:
        if not reference.is_ready:
            warn(f"there is no '{reference.name}' to compare with: this model was not trained here")


def _bank_to_keep(
    module: LightningModule, probe: LiveProbe, references: Sequence[Reference], settings: Settings, when: Moment
) -> GramBank | None:
    """Return an empty bank for the live model if later epochs or the user need it; otherwise None.

    A reference that is this epoch gets the bank at once, before the comparison fills it.
    """
    if when.is_start:
        return None  # The references have this bank already.
    of_this_epoch = [reference for reference in references if reference.epoch is not None]
    of_this_epoch = [reference for reference in of_this_epoch if reference.epoch == when.epoch]
    has_previous = any(reference.lag for reference in references)
    if not (settings.needs_all_banks or has_previous or of_this_epoch):
        return None
    bank = probe.empty_bank(module, when.epoch, when.step)
    if has_previous or of_this_epoch:
        bank.vectors.keep()
    for reference in of_this_epoch:
        reference.set_bank(bank, moment(when.epoch, when.step))
    return bank


def _keep_vectors(references: Sequence[Reference]) -> None:
    """Keep what measures make of references that later epochs are compared with, too."""
    for reference in references:
        if reference.bank is not None and not reference.lag:
            reference.bank.vectors.keep()


def _ready_in_training(trainer: Trainer, references: Sequence[Reference], when: Moment) -> list[Reference]:
    """Return the references that have a bank. An epoch is ready only at its last validation."""
    if when.is_start:
        return [reference for reference in references if reference.is_ready and not reference.lag]
    at_end = is_end_of_epoch(trainer)
    return [r for r in references if r.is_ready and (at_end or r.epoch != trainer.current_epoch)]
