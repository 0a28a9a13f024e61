"""Diagnostics and flags: which CKA values can mislead."""

from lightning_cka.compare.diagnostics import Diagnostics, LayerDiagnostics, LeaveOneOut, SampleRatio
from lightning_cka.compare.flags import Flag, Thresholds

SampleShare = SampleRatio
"""Deprecated: use `SampleRatio`."""

__all__ = ["Diagnostics", "Flag", "LayerDiagnostics", "LeaveOneOut", "SampleRatio", "SampleShare", "Thresholds"]
