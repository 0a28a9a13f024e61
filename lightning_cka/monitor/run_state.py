"""`RunState`: what a checkpoint keeps of a run: where results and banks are, and the moment of each reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch import LightningModule, Trainer

from lightning_cka.compare.result import CKAResult
from lightning_cka.compare.run_files import is_of_training, last_moment, last_of_training
from lightning_cka.hsic.measure import CKA, Measure
from lightning_cka.monitor.bank_store import BankStore
from lightning_cka.monitor.journal import Journal
from lightning_cka.monitor.live_probe import LiveProbe
from lightning_cka.monitor.output_errors import OutputErrors
from lightning_cka.monitor.reference import Reference
from lightning_cka.monitor.result_store import ResultStore
from lightning_cka.monitor.settings import Settings
from lightning_cka.monitor.trainer_state import current_step, is_trial
from lightning_cka.monitor.warn_once import WarnOnce
from lightning_cka.probe.bank import GramBank
from lightning_cka.runtime.devices import sums_device
from lightning_cka.runtime.text import describe_function


class HistorySettings(NamedTuple):
    """Settings that all results of one history share. If one differs after a restart, the history restarts."""

    kernel: str
    """Name of the kernel; "measure ..." for measures other than CKA."""
    unbiased: bool
    layers: list[str]
    features: str
    """Names of ``forward_fn`` and ``feature_fn``."""
    probe: str
    """Description of the probe set."""
    reference: str
    """Hash of the weights, layer names and pairing of a frozen reference; empty for other references."""


class RunState:
    """Results and banks of a run, and what a checkpoint keeps of them.

    Args:
        folder: The run's folder.
        references: The references of the monitor.
        histories: Settings of the histories, by key.
        banks: The banks on disk.
        store: The results on disk.
        journal: Lists both.
        fitted: The Trainer and the live model of the run.

    Attributes:
        results: Results in order, by key: the name of the reference, with several measures both names.
        saved_moments: The moments that the last saved checkpoint refers to.
    """

    def __init__(
        self,
        folder: Path,
        references: Sequence[Reference],
        histories: Mapping[str, HistorySettings],
        banks: BankStore,
        store: ResultStore,
        journal: Journal,
        fitted: tuple[Trainer, LightningModule],
    ) -> None:
        self.folder = folder
        self.references = references
        self.banks = banks
        self.store = store
        self.journal = journal
        self.fitted = fitted
        self.results: dict[str, list[CKAResult]] = {}
        self.saved_moments: set[str] = set()
        self._histories = histories

    @property
    def probes(self) -> set[str]:
        """Return the descriptions of the probe sets of all histories."""
        return {settings.probe for settings in self._histories.values()}

    @property
    def earlier_states(self) -> list[Reference]:
        """Return the references that are earlier states of the live model."""
        return [reference for reference in self.references if reference.is_earlier_state]

    @property
    def keys(self) -> list[str]:
        """Return the keys of the run's results."""
        return list(self._histories)

    @property
    def moments(self) -> set[str]:
        """Return the moments of all banks that the references need."""
        return {name for reference in self.earlier_states for name in reference.kept}

    @property
    def banks_in_memory(self) -> dict[str, GramBank]:
        """Return the banks of the references, by moment."""
        return {name: bank for r in self.earlier_states for name, bank in r.kept.items() if bank is not None}

    def is_continued_by(self, trainer: Trainer, module: LightningModule, warn: WarnOnce) -> bool:
        """Whether a new ``fit()`` continues this run; warn if it has another model.

        Args:
            trainer: The Trainer of the new ``fit()``, before its first step.
            module: Its model.
            warn: Issues the warning.
        """
        before, model = self.fitted
        if before is not trainer or current_step(trainer) == 0:
            return False
        if model is not module:
            warn("fit() continues the steps of the Trainer with another model: all histories restart")
        return model is module

    def restore_results(self, saved: Mapping[str, Any]) -> list[str]:
        """Restore the results of a checkpoint whose settings are the same as now.

        Args:
            saved: The value of `state_dict` with all results; may be empty.

        Returns:
            Warnings about histories with other settings.
        """
        messages = []
        for key, settings in self._histories.items():
            history = [CKAResult.from_state(state) for state in saved.get("results", {}).get(key, ())]
            if not history:
                continue
            before = HistorySettings(*saved["kinds"][key])
            if changed := [name for name, value in settings._asdict().items() if getattr(before, name) != value]:
                problem = "restarts, because the checkpoint has other settings than now"
                names = ", ".join(changed).replace("kernel", "kernel or measure")
                messages.append(f"the history of '{key}' {problem}: {names.replace('reference', 'reference or pair')}")
            else:
                self.results[key] = history
        return messages

    def restore_moments(self, saved: Mapping[str, Any]) -> None:
        """Set the moments of the references, but not their banks, for a run that compares nothing any more."""
        for reference in self.earlier_states:
            reference.restore_moments(saved.get("references", {}).get(reference.name, {}))

    def has_features_of(self, saved: Mapping[str, Any]) -> bool:
        """Whether a checkpoint's banks have the features of this run: the same ``forward_fn`` and ``feature_fn``."""
        before = {HistorySettings(*settings).features for settings in saved.get("kinds", {}).values()}
        return before <= {settings.features for settings in self._histories.values()}

    def drop_results(self, reference: Reference) -> None:
        """Remove the results of a reference."""
        for key in [key for key in self.results if key.split("/")[0] == reference.name]:
            del self.results[key]

    def state_dict(self) -> dict[str, Any]:
        """Return plain values, for a checkpoint. Their size does not depend on the number of results and banks.

        Results that are in no file, for example because the disk is full, are kept as a whole. Results of
        ``trainer.validate()`` are left out.
        """
        references = {reference.name: reference.moments() for reference in self.earlier_states if reference.moment}
        self.saved_moments = self.moments
        last = [result for history in self.results.values() for result in last_of_training(history)]
        return {
            "folder": str(self.folder.resolve()),
            "banks": self.banks.state_dict(self.saved_moments),
            "references": references,
            "kinds": {key: list(settings) for key, settings in self._histories.items()},
            "results": self.store.unwritten(),
            "journal": self.journal.state(),
            "last": list(last_moment(last)),
        }

    def full_state(self) -> dict[str, Any]:
        """Return `state_dict` with all results and all records of banks, to continue the run in this process."""
        return self.state_dict() | {
            "banks": self.banks.state_dict(self.banks.records),
            "results": {
                key: [result.state() for result in history if is_of_training(result)]
                for key, history in self.results.items()
            },
            "journal": {},
            "journal_content": self.journal.content,
        }


def history_settings(
    references: Sequence[Reference], settings: Settings, probe: LiveProbe
) -> dict[str, HistorySettings]:
    """Return the settings of all histories of a run, by key."""
    features = ", ".join(map(describe_function, (settings.probe.forward_fn, settings.probe.feature_fn)))
    if settings.probe.call != "first":
        features += f", call={settings.probe.call}"

    def of(reference: Reference, measure: Measure) -> HistorySettings:
        return HistorySettings(
            measure.kernel if isinstance(measure, CKA) else f"measure {measure.name}",
            measure.is_unbiased,
            list(probe.plan.names),
            features,
            " ".join(filter(None, (probe.probe.description, settings.selection.description))),
            reference.description,
        )

    return {
        settings.key(reference.name, name): of(reference, measure)
        for reference in references
        for name, measure in settings.measures.items()
    }


def saved_probes(saved: Mapping[str, Any]) -> set[str]:
    """Return the descriptions of the probe sets of all histories in a saved state, which may be empty."""
    return {HistorySettings(*settings).probe for settings in saved.get("kinds", {}).values()}


def new_run(
    folder: Path,
    references: Sequence[Reference],
    histories: Mapping[str, HistorySettings],
    settings: Settings,
    trainer: Trainer,
    module: LightningModule,
    errors: OutputErrors,
) -> RunState:
    """Return a run without results and banks; see `RunState`."""
    journal = Journal(folder)
    banks = BankStore(
        folder,
        sums_device(module.device),
        errors,
        journal,
        rank=trainer.global_rank,
        world_size=trainer.world_size,
        float16=settings.save_banks == "float16",
        read_only=is_trial(trainer),
    )
    store = ResultStore(folder, journal, errors)
    return RunState(folder, references, histories, banks, store, journal, (trainer, module))
