"""From Gram banks to results: values of CKA and other measures, standard errors, diagnostics and flags.

In: Gram banks, or features for `MinibatchCKA`. Out: `CKAResult`, and `CKADifference` of two results.
This room does not know how a figure is drawn or where a result is logged. It imports from `probe`, `hsic` and
`runtime`.

Comparisons: `compare_models` and `compare_banks` fill a `Comparison` (one model), which holds a `MeasureComparison` for
each measure, which holds a `ModelPair` for each reference. `trajectories` compares the epochs of one run.
`procrustes` and `predictivity` are not such measures: they need the large blocks of a `BankPair`. They and
`CKAResult.null` make a `PermutationTest`.
"""

from lightning_cka.compare.banks import compare_banks
from lightning_cka.compare.block_measures import predictivity, procrustes
from lightning_cka.compare.difference import CKADifference
from lightning_cka.compare.models import compare_models
from lightning_cka.compare.permutation_test import PermutationTest
from lightning_cka.compare.trajectory import trajectories

__all__ = [
    "CKADifference",
    "PermutationTest",
    "compare_banks",
    "compare_models",
    "predictivity",
    "procrustes",
    "trajectories",
]
