"""`LayerDiagnostics` without values."""

import math

from lightning_cka.compare.diagnostics import LayerDiagnostics


def test_missing_values_are_nan():
    assert math.isnan(LayerDiagnostics(1.0).trace_ratio)
    assert math.isnan(LayerDiagnostics(1.0).hsic_ratio)
    assert all(map(math.isnan, LayerDiagnostics(-1.0).top_eigenvalue_bounds))
