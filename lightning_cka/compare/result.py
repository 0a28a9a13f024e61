"""`CKAResult`: the values and errors of one comparison, with summaries, files and a plot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightning_cka.compare.decided_result import DecidedResult
from lightning_cka.compare.diagnostics import Diagnostics
from lightning_cka.compare.difference import CKADifference
from lightning_cka.compare.flags import Flag
from lightning_cka.compare.intervals import interval, warn_if_too_few
from lightning_cka.compare.layer_ranks import LayerRanks
from lightning_cka.compare.left_out_batches import LeftOutBatches
from lightning_cka.compare.paired_results import paired_difference
from lightning_cka.compare.pairing import Pairing
from lightning_cka.compare.permutation_test import PermutationTest
from lightning_cka.compare.result_rows import result_rows
from lightning_cka.compare.run_files import moment_text
from lightning_cka.hsic.measure import CKA, measure_title
from lightning_cka.runtime.dataframes import dataframe
from lightning_cka.runtime.deprecation import renamed_arguments, renamed_attribute

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lightning_cka.compare.compared_banks import ComparedBanks


@renamed_arguments(within="self_comparison")
@dataclass(frozen=True, eq=False, repr=False)
class CKAResult(DecidedResult):
    """CKA between all L layers of a model and all R layers of a reference (Kornblith et al. 2019).

    Paper: https://arxiv.org/abs/1905.00414.

    Attributes:
        matrix: CKA in [-1, 1], ``(L, R)`` float64. Rows are the model's layers, columns the reference's. ``nan`` for
            layers without variance or with values that are not finite. The unbiased estimate of a value near 0 can be
            negative.
        layers: Names of the rows.
        reference_layers: Names of the columns.
        standard_error: Standard errors of ``matrix`` over probe batches, ``(L, R)`` float64; ``nan`` for fewer than 2
            batches. None if unknown.
        num_samples: Number of samples behind each value.
        num_batches: Number of batches behind each value.
        epoch: Training epoch, counted from 0. None: by optimizer steps, or outside training.
        step: Training step, as Lightning's logger counts it; None for a comparison outside training.
        model_name: Name of the model for titles and axis labels.
        reference_name: Name of the reference for titles and axis labels.
        measure: Name of the measure, with parameters that are not the defaults: "cka", "mutual_knn", "rsa" or "ridge".
            ``matrix`` has the values of this measure.
        kernel: Name of the kernel; "linear" for measures without one.
        self_comparison: Whether the model is compared with itself.
        unbiased: Whether the HSIC is unbiased. Values of the biased HSIC depend on the batch size.
        effective_batches: Number of batches of equal size with the same variance, at least 1.
        mean_standard_error: Standard error of `mean`, or of `mean_all_pairs` if no layers are paired; ``nan`` for fewer
            than 2 batches. None if unknown.
        diagnostics: Diagnostics and flags that show which values can mislead; None if there are none.
        left_out_batches: CKA without each probe batch in turn, for `difference`. None if unknown.
        banks: What `compare_banks` compared, for `null`: references to the banks, or the paths of their files. None
            for other results. Neither files nor checkpoints have it.
        pairing: Which layers are paired, for `mean`, `same_named` and all else that is one value per layer, and how the
            pairs were found. None: layers of the same names. `paired` returns them, too.

        ranks: Effective ranks of the model's layers, now and at their largest so far. None: they were not computed.

    Raises:
        ValueError: The shape of a matrix or a name in ``pairing`` does not fit the layers.

    Example:
        >>> import torch
        >>> from lightning_cka import CKAResult
        >>> matrix = torch.tensor([[0.9, 0.3], [0.2, 0.7]], dtype=torch.float64)
        >>> result = CKAResult(matrix, layers=("conv", "head"), reference_layers=("conv", "head"))
        >>> result.same_named()
        {'conv': 0.9, 'head': 0.7}
        >>> round(result.mean(), 2)
        0.8
        >>> result.to_rows()[1]["reference_layer"]
        'head'
    """

    matrix: Tensor
    layers: tuple[str, ...]
    reference_layers: tuple[str, ...]
    standard_error: Tensor | None = None
    num_samples: int | None = None
    num_batches: int | None = None
    epoch: int | None = None
    step: int | None = None
    model_name: str = "model"
    reference_name: str = "reference"
    kernel: str = "linear"
    self_comparison: bool = False
    unbiased: bool = True
    effective_batches: float | None = None
    mean_standard_error: float | None = None
    diagnostics: Diagnostics | None = None
    left_out_batches: LeftOutBatches | None = None
    measure: str = "cka"
    banks: ComparedBanks | None = None
    pairing: Pairing | None = None
    ranks: LayerRanks | None = None

    within = renamed_attribute("within", "self_comparison")

    def __post_init__(self) -> None:
        """Convert the types of the attributes, and check the shapes and the pairing."""
        object.__setattr__(self, "layers", tuple(self.layers))
        object.__setattr__(self, "reference_layers", tuple(self.reference_layers))
        shape = (len(self.layers), len(self.reference_layers))
        for name in ("matrix", "standard_error"):
            value = getattr(self, name)
            if value is None:
                continue
            value = torch.as_tensor(value, device="cpu").detach().to("cpu", torch.float64)
            if value.shape != shape:
                raise ValueError(f"{name} must have shape {shape} to fit the layers, but has {tuple(value.shape)}")
            object.__setattr__(self, name, value)
        if self.pairing is not None:
            object.__setattr__(self, "pairing", self.pairing.checked(self.layers, self.reference_layers))

    def __repr__(self) -> str:
        title = ", ".join(filter(None, (self.model_name, moment_text(self.epoch, self.step))))
        return (
            f"CKAResult({title} and {self.reference_name}: {len(self.layers)} x "
            f"{len(self.reference_layers)} layers, {self.measure_label}, {self.num_samples} samples, "
            f"{self.mean_name} {self.summary():.3f}, {len(self.flags)} flags)"
        )

    @property
    def measure_label(self) -> str:
        """The measure in words, such as "linear CKA", "rbf CKA, biased" or "mutual kNN"."""
        if self.measure != CKA.key:
            return measure_title(self.measure)
        return f"{self.kernel} CKA{'' if self.unbiased else ', biased'}"

    @property
    def flags(self) -> tuple[Flag, ...]:
        """The layers whose values can mislead, with the reason; empty if there are none or no diagnostics."""
        return self.diagnostics.flags if self.diagnostics else ()

    def flags_of(self, layer: str) -> list[Flag]:
        """Return the flags of a layer of the model, and those of the reference's layer that it is paired with."""
        other = self.paired().layers.get(layer)
        return [flag for flag in self.flags if flag.layer == (other if flag.of_reference else layer)]

    def confidence_interval(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """Return confidence intervals, from Student's t with ``effective_batches`` - 1 degrees of freedom.

        Args:
            level: Probability, in (0, 1), that an interval contains the value for infinitely many samples.

        Returns:
            Lower and upper bounds, each ``(L, R)``, not clipped to [-1, 1]. With fewer than about four effective
            batches they are ``nan``, and a warning gives the reason.

        Raises:
            ValueError: The level is outside (0, 1), or the result has no standard errors.
        """
        if self.standard_error is None or self.effective_batches is None:
            raise ValueError("this result has no standard errors, or no effective number of batches")
        warn_if_too_few(self.effective_batches)
        return interval(self.matrix, self.standard_error, self.effective_batches, level)

    def difference(self, earlier: CKAResult) -> CKADifference:
        """Return by how much CKA differs from that of another result, with paired standard errors.

        Both results must be of the same probe set. They may differ in epoch, reference, run or kernel. The error of the
        difference is smaller than the two errors suggest, because both results share their probe batches.

        Args:
            earlier: The result to subtract.

        Raises:
            ValueError: The probe sets or the estimators differ, no pair of layers is in both results, or a result lacks
                `left_out_batches` of pairs that can differ.
            TypeError: ``earlier`` is not a `CKAResult`.
        """
        if not isinstance(earlier, CKAResult):
            raise TypeError(f"difference() takes a CKAResult, but got a {type(earlier).__name__}")
        return paired_difference(self, earlier)

    def null(self, permutations: int = 200, seed: int = 0) -> PermutationTest:
        """Return the level of chance and p-values for each pair of layers, by permuting samples within probe batches.

        Only results of `compare_banks` can do this. No model is shown anything. Samples are permuted within groups if
        the result has groups, and tokens of the same sequences in the same way. If a model is compared with itself, one
        side is permuted: on the diagonal, a small p-value says that a layer's samples can be told apart.

        Args:
            permutations: Number of permutations. For 20 x 20 layers, 200 take about a second for each batch of 256
                samples.
            seed: Seed of the permutations. Global random numbers are not touched.

        Returns:
            Means and quantiles of the permuted values, p-values, and p-values that are corrected for the number of
            pairs by the largest value in each permutation, each ``(L, R)``. Undefined pairs are ``nan``.

        Raises:
            ValueError: The result has no banks, the banks have changed since, or a number is out of range.
            TypeError: A number is not an integer.
            FileNotFoundError: The file of a bank does not exist any more.
        """
        if self.banks is None:
            raise ValueError(
                "this result has no Gram banks, whose samples could be permuted. Make a bank of each model with "
                "GramBank.from_model or CKAMonitor(save_banks=True), and compare them with compare_banks(a, b)"
            )
        return self.banks.null(self.matrix, permutations, seed)

    def plot(self, ax: Axes | None = None, **kwargs: Any) -> tuple[Figure, Axes]:
        """Draw the heatmap.

        Args:
            ax: Axes to draw in; None: a new figure.
            **kwargs: Arguments of `lightning_cka.plot_cka`.

        Returns:
            The figure and the axes.
        """
        from lightning_cka.figures.heatmap import plot_cka

        return plot_cka(self, ax, **kwargs)

    def to_dataframe(self) -> Any:
        """Return the values as a `pandas.DataFrame`: one row for each pair of layers, as in `to_rows`.

        Raises:
            ImportError: pandas is not installed.
        """
        return dataframe(self.to_rows())

    def to_rows(self) -> list[dict[str, Any]]:
        """Return the values in long format: one row for each pair of layers, as for `pandas.DataFrame`.

        The column of the values has the name of the measure, such as "cka" or "mutual_knn". ``paired`` says whether the
        layers are paired; see `paired`.
        """
        return result_rows(self)
