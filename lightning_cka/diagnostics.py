"""Diagnostics and flags: when a CKA value must not be trusted."""

from lightning_cka.compare.diagnostics import Diagnostics, LayerDiagnostics, LeaveOneOut, SampleRatio
from lightning_cka.compare.flags import Flag, Thresholds

SampleShare = SampleRatio
"""The old name of `SampleRatio`."""

__all__ = ["Diagnostics", "Flag", "LayerDiagnostics", "LeaveOneOut", "SampleRatio", "SampleShare", "Thresholds"]
