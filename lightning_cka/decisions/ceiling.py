"""`SeedCeiling`: the CKA that trainings reach that differ in their random seed alone, by layer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_cka.compare.intervals import too_few_batches
from lightning_cka.compare.left_out_batches import LeftOutBatches
from lightning_cka.compare.result import CKAResult
from lightning_cka.decisions.crossed_errors import LEAST_SEEDS, half_widths, seed_errors
from lightning_cka.decisions.model_comparison import ModelComparison
from lightning_cka.hsic.jackknife import effective_batches, jackknife_error
from lightning_cka.runtime.dataframes import dataframe


@dataclass(frozen=True, eq=False, repr=False)
class SeedCeiling:
    """The mean CKA of all pairs of S seeds, for each of L layers.

    Its interval is for the mean over infinitely many seeds and samples, because both vary; see
    `lightning_cka.decisions.crossed_errors`.

    Attributes:
        layers: Names of the layers.
        values: Mean CKA, ``(L,)`` float64.
        batch_error: Standard errors over probe batches, ``(L,)``.
        seed_error: Standard errors over seeds, ``(L,)``; ``nan`` for fewer than 3 seeds.
        num_seeds: Number of seeds S.
        left_out_batches: The values without each probe batch, for `below`.
        measure: As in `CKAResult`.
        kernel: As in `CKAResult`.
        unbiased: As in `CKAResult`.
    """

    layers: tuple[str, ...]
    values: Tensor
    batch_error: Tensor
    seed_error: Tensor
    num_seeds: int
    left_out_batches: LeftOutBatches
    measure: str = "cka"
    kernel: str = "linear"
    unbiased: bool = True

    @classmethod
    def of(cls, comparison: ModelComparison) -> SeedCeiling:
        """Return the ceiling of models that differ in their seed alone."""
        results = list(comparison.by_layer.values())
        seeds = len(comparison.names)
        pairs = torch.triu_indices(seeds, seeds, 1, device="cpu")
        records = [record for result in results if (record := result.left_out_batches) is not None]
        weights, layers = records[0].weights, tuple(comparison.by_layer)
        matrices = torch.stack([result.matrix for result in results])
        without = torch.stack([each.all_pairs for each in records if each.all_pairs is not None])
        values = matrices[:, pairs[0], pairs[1]].mean(1)
        left_out = without[:, :, pairs[0], pairs[1]].mean(2)
        first = results[0]
        return cls(
            layers,
            values,
            jackknife_error(values, left_out.T, weights),
            seed_errors(matrices),
            seeds,
            LeftOutBatches(records[0].batches, weights, layers, left_out),
            first.measure,
            first.kernel,
            first.unbiased,
        )

    def __repr__(self) -> str:
        return f"SeedCeiling({self.num_seeds} seeds, {len(self.layers)} layers, mean {float(self.values.mean()):.3f})"

    @property
    def chance(self) -> float | None:
        """The value of independent layers: 0 by unbiased estimators. None: it depends on the batch size."""
        return 0.0 if self.unbiased else None

    @property
    def problem(self) -> str:
        """A sentence that says why there is no interval; "" if there is one."""
        if self.num_seeds < LEAST_SEEDS:
            return f"no interval of the seed ceiling: it has {self.num_seeds} seeds, and needs {LEAST_SEEDS}"
        return too_few_batches(effective_batches(self.left_out_batches.weights))

    def bounds(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """Return confidence intervals, each ``(L,)``, for the mean over infinitely many seeds and samples.

        They are ``nan`` for fewer than 3 seeds, or than about four batches of equal size; ``problem`` says which.

        Raises:
            ValueError: The level is outside (0, 1).
        """
        half = self._half_width(self.batch_error, level)
        return self.values - half, self.values + half

    def below(self, result: CKAResult, level: float = 0.95) -> list[dict[str, Any]]:
        """Return by how much the CKA of each layer of a result is below the ceiling, with intervals.

        Errors over probe batches are paired: both values are of the same batches. Those over the seeds of the ceiling
        are added. The result's own two models have one seed each, so that its own choice of seeds is not part of it.

        Args:
            result: A result on the probe set of the ceiling.
            level: Level of the intervals, in (0, 1).

        Returns:
            For each layer of both: "layer", the measure, "ceiling", and "below", the ceiling minus the value, with
            "low" and "high". Bounds are ``nan`` where there is no interval.

        Raises:
            ValueError: See `check_fits`.
        """
        self.check_fits(result)
        pairs = {name: cell for name, cell in result.same_named_pairs().items() if name in self.layers}
        rows = [self.layers.index(name) for name in pairs]
        values = torch.stack([result.matrix[cell] for cell in pairs.values()])
        record = self.left_out_batches
        gap, error = self.values[rows] - values, torch.full_like(values, torch.nan)
        if result.left_out_batches is not None:
            own = result.left_out_batches.matrices(result.matrix.shape, result.same_named_pairs())
            without = torch.stack([own[:, row, column] for row, column in pairs.values()], 1)
            error = jackknife_error(gap, record.values[rows].T - without, record.weights)
        half = self._half_width(error, level, rows)
        return [
            {
                "layer": name,
                result.measure: float(values[place]),
                "ceiling": float(self.values[rows[place]]),
                "below": float(gap[place]),
                "low": float(gap[place] - half[place]),
                "high": float(gap[place] + half[place]),
            }
            for place, name in enumerate(pairs)
        ]

    def check_fits(self, result: CKAResult) -> None:
        """Check that a result can be compared with the ceiling.

        Raises:
            ValueError: It is of another measure, kernel, estimator or probe set, or has none of the layers.
        """
        for name in ("measure", "kernel", "unbiased"):
            own, other = getattr(self, name), getattr(result, name)
            if own != other:
                raise ValueError(f"the seed ceiling has {name} {own!r}, but the result has {other!r}")
        if not any(name in self.layers for name in result.same_named_pairs()):
            raise ValueError(
                f"the seed ceiling has none of the result's paired layers: it has {', '.join(self.layers[:8])}"
            )
        records = result.left_out_batches
        if records is not None and (problem := self.left_out_batches.batch_differences(records)):
            raise ValueError(
                f"the seed ceiling and the result are not of one probe set: {problem}. If the result has exclude= or "
                "groups=, the ceiling needs the same: pass seed_ceiling(exclude=), or CKAMonitor(ceiling=)"
            )

    def to_rows(self, level: float = 0.95) -> list[dict[str, Any]]:
        """Return one row for each layer, as for `pandas.DataFrame`.

        Args:
            level: Level of ``low`` and ``high``, in (0, 1).
        """
        columns = (self.values, self.batch_error, self.seed_error, *self.bounds(level))
        names = ("ceiling", "batch_error", "seed_error", "low", "high")
        return [
            {"layer": layer} | dict(zip(names, map(float, row), strict=True))
            for layer, *row in zip(self.layers, *columns, strict=True)
        ]

    def to_dataframe(self) -> Any:
        """Return the rows of `to_rows` as a `pandas.DataFrame`.

        Raises:
            ImportError: pandas is not installed.
        """
        return dataframe(self.to_rows())

    def _half_width(self, batch_error: Tensor, level: float, rows: Sequence[int] | slice = slice(None)) -> Tensor:
        if self.problem:
            return torch.full_like(batch_error, torch.nan)
        batches = effective_batches(self.left_out_batches.weights)
        return half_widths((batch_error, self.seed_error[rows]), (batches, self.num_seeds), level)


def fitting_ceiling(ceilings: Iterable[SeedCeiling], result: CKAResult) -> SeedCeiling | None:
    """Return the first ceiling that fits a result; None if none does, and for a model with itself."""
    for ceiling in () if result.self_comparison else ceilings:
        try:
            ceiling.check_fits(result)
        except ValueError:  # It is of another measure, or of another probe set.
            continue
        return ceiling
    return None
