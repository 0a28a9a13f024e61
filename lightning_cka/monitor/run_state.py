"""`RunState`: what a checkpoint keeps of a run: results, the banks' files, and the moment of each reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lightning_cka.compare.result import CKAResult
from lightning_cka.hsic.kernels import Kernel, kernel_name
from lightning_cka.monitor.bank_store import BankStore
from lightning_cka.monitor.live_probe import LiveProbe
from lightning_cka.monitor.reference import Reference
from lightning_cka.monitor.settings import Settings
from lightning_cka.runtime.text import describe_function


class HistorySettings(NamedTuple):
    """Settings that all results of one history share. If one differs after a restart, the history restarts."""

    kernel: str
    unbiased: bool
    layers: list[str]
    features: str
    """Names of ``forward_fn`` and ``feature_fn``."""
    probe: str
    """Description of the probe set."""
    reference: str
    """Hash of the weights and layer names of a frozen reference; empty for other references."""


class RunState:
    """Results and banks of a run, and what a checkpoint keeps of them.

    Args:
        folder: The run's folder.
        references: The references of the monitor.
        histories: Settings of the histories, by key.
        banks: The banks on disk.

    Attributes:
        results: Results in order, by key: the name of the reference, with several kernels both names.
    """

    def __init__(
        self,
        folder: Path,
        references: Sequence[Reference],
        histories: Mapping[str, HistorySettings],
        banks: BankStore,
    ) -> None:
        self.folder = folder
        self.references = references
        self.banks = banks
        self.results: dict[str, list[CKAResult]] = {}
        self._histories = histories

    @property
    def earlier_states(self) -> list[Reference]:
        """Return the references that are earlier states of the live model."""
        return [reference for reference in self.references if reference.is_earlier_state]

    def restore_results(self, saved: Mapping[str, Any]) -> list[str]:
        """Restore the results of a checkpoint whose settings are the same as now.

        Args:
            saved: The value of `state_dict`; may be empty.

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
                messages.append(
                    f"the history of '{key}' restarts, because the checkpoint has other settings than now: "
                    f"{', '.join(changed)}"
                )
            else:
                self.results[key] = history
        return messages

    def has_features_of(self, saved: Mapping[str, Any]) -> bool:
        """Whether a checkpoint's banks have the features of this run: the same ``forward_fn`` and ``feature_fn``."""
        before = {HistorySettings(*settings).features for settings in saved.get("kinds", {}).values()}
        return before <= {settings.features for settings in self._histories.values()}

    def drop_results(self, reference: Reference) -> None:
        """Remove the results of a reference."""
        for key in [key for key in self.results if key.split("/")[0] == reference.name]:
            del self.results[key]

    def state_dict(self) -> dict[str, Any]:
        """Return plain values and small tensors, for a checkpoint. Results of ``trainer.validate()`` are left out."""
        return {
            "folder": str(self.folder.resolve()),
            "banks": self.banks.state_dict(),
            "references": {
                reference.name: {"snapshot": reference.moment, "restarted": reference.restarted}
                for reference in self.earlier_states
                if reference.moment
            },
            "kinds": {key: list(settings) for key, settings in self._histories.items()},
            "results": {
                key: [result.state() for result in history if result.epoch is not None]
                for key, history in self.results.items()
            },
        }


def history_settings(
    references: Sequence[Reference], settings: Settings, probe: LiveProbe
) -> dict[str, HistorySettings]:
    """Return the settings of all histories of a run, by key."""
    features = ", ".join(map(describe_function, (settings.probe.forward_fn, settings.probe.feature_fn)))
    if settings.probe.call != "first":
        features += f", call={settings.probe.call}"

    def of(reference: Reference, kernel: Kernel) -> HistorySettings:
        return HistorySettings(
            kernel_name(kernel),
            settings.unbiased,
            list(probe.plan.names),
            features,
            probe.probe.description,
            f"{reference.identity} {reference.bank.layers}" if reference.is_frozen and reference.bank else "",
        )

    return {
        settings.key(reference.name, name): of(reference, kernel)
        for reference in references
        for name, kernel in settings.kernels.items()
    }
