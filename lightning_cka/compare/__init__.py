"""From Gram banks to results: CKA values, standard errors, diagnostics and flags.

In: Gram banks, or features for `MinibatchCKA`. Out: `CKAResult`.
This room does not know how a figure is drawn or where a result is logged. It imports from `probe`, `hsic` and
`runtime`.
"""

from lightning_cka.compare.banks import compare_banks
from lightning_cka.compare.models import compare_models
from lightning_cka.compare.trajectory import trajectories

__all__ = ["compare_banks", "compare_models", "trajectories"]
