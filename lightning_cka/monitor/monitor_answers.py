"""`MonitorAnswers`: the values of a monitor as a table, and what they say about the run."""

from __future__ import annotations

from typing import Any

from lightning_cka.compare.run_files import bank_files
from lightning_cka.decisions.convergence import convergence
from lightning_cka.decisions.layer_convergence import Convergence
from lightning_cka.monitor.notebook_output import NotebookOutput
from lightning_cka.monitor.reference import FROZEN
from lightning_cka.monitor.run_end import fixed_keys
from lightning_cka.runtime.dataframes import dataframe


class MonitorAnswers(NotebookOutput):
    """Lets a monitor answer questions about its results."""

    def convergence(self, tolerance: float | None = None, level: float = 0.95) -> Convergence:
        """Return since when each layer has converged, with confidence; see `lightning_cka.convergence`.

        Results with references that do not move are used. CKA with the last state needs ``save_banks=True``; without
        it, ``notes`` says so.

        Args:
            tolerance: Change of CKA that does not matter, in (0, 1). None: the monitor's ``tolerance``.
            level: Level of the confidence intervals, in (0, 1).

        Raises:
            ValueError: There is nothing to judge by, or a number is out of range.
        """
        settings = self._settings
        keys = fixed_keys(self.results, self.references, settings)
        banks = [] if self._run is None else bank_files(self._run.folder)
        tolerance = settings.tolerance if tolerance is None else tolerance
        return convergence({key: self.results[key] for key in keys}, banks, tolerance, level)

    def to_rows(self) -> list[dict[str, Any]]:
        """Return all values in long format: one row for each comparison, measure and pair of layers."""
        return [
            {"reference": result.reference_name.removesuffix(f" {FROZEN}"), "measure": result.measure_label}
            | {"value" if name == result.measure else name: value for name, value in row.items()}
            for history in self.results.values()
            for result in history
            for row in result.to_rows()
        ]

    def to_dataframe(self) -> Any:
        """Return all values as a `pandas.DataFrame`, as in `to_rows`.

        Raises:
            ImportError: pandas is not installed.
        """
        return dataframe(self.to_rows())
