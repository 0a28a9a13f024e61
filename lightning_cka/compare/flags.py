"""`Flag` and `Thresholds`: which layers' CKA can mislead, and from which values on."""

from __future__ import annotations

import warnings
from dataclasses import InitVar, dataclass, fields
from math import inf, isnan
from typing import Any, NamedTuple, SupportsFloat

from lightning_cka.runtime.deprecation import read_renamed, renamed_arguments

INPUT = "the input"
"""Takes the place of a layer's name in a flag of samples whose inputs are already ``nan`` or infinite."""


@renamed_arguments(trace_share="trace_ratio")
@dataclass(frozen=True)
class Thresholds:
    """Values of the diagnostics beyond which a layer is flagged. None switches a check off.

    Attributes:
        dominant_direction: Flag layers with a CKA of at least 0.5 that falls by more without the leading eigenvector of
            both sides' Gram matrices. The fall must also exceed twice its standard error.
        trace_ratio: Flag layers above it: a single sample has more than this many times the mean squared distance from
            the center, and CKA without it differs by more than its standard error. In [1, N] for N samples.
        leave_one_out: Flag layers above it: without one sample, CKA with its paired layer changes by more.
        standard_error: Flag layers above it: CKA with the paired layer, or else with the one at the same depth, has a
            larger standard error. There are too few probe samples.
        separated_group: Flag layers where a group of samples lies apart, and CKA within the groups differs by more.
        influence: Flag layers above it: without one sample, CKA changes by more than this many standard errors.
        disagreement: Flag layers above it: mutual kNN is by more than this higher than CKA with the layer of the same
            name, and by more than 40 % of 1 - CKA, so that less changed than CKA says. Layers are also flagged if
            ridge CKA is by more than 0.6 lower, so that more changed than CKA says. None switches both off.
        copies: Flag the input if more than this part of the probe samples have the same input as another one.
        rank_loss: Flag layers that have lost more than this part of their largest effective rank so far in training, if
            that is more than twice its standard error. Only `CKAMonitor(log_ranks=True)` computes ranks.
        effective_dimension: Deprecated and without effect: `dominant_direction` has replaced this check.

    Example:
        >>> from lightning_cka import Thresholds
        >>> Thresholds(trace_ratio=50.0, standard_error=None).trace_ratio
        50.0
        >>> Thresholds.off().trace_ratio is None
        True
    """

    dominant_direction: float | None = 0.5
    trace_ratio: float | None = 20.0
    leave_one_out: float | None = 0.05
    standard_error: float | None = 0.05
    separated_group: float | None = 0.1
    influence: float | None = 2.5
    disagreement: float | None = 0.15
    copies: float | None = 0.01
    rank_loss: float | None = 0.5
    effective_dimension: InitVar[float | None] = None

    @classmethod
    def off(cls) -> Thresholds:
        """Return thresholds with all checks switched off."""
        return cls(**{field.name: None for field in fields(cls)})

    def __post_init__(self, effective_dimension: float | None) -> None:
        """Convert the thresholds to floats. A number beyond their range becomes infinite, which is never reached.

        Raises:
            TypeError: A threshold is neither a number nor None.
            ValueError: A threshold is ``nan``.
        """
        if effective_dimension is not None:
            warnings.warn(
                "'effective_dimension' has no effect: 'dominant_direction' has replaced this check",
                DeprecationWarning,
                stacklevel=4,
            )
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None:
                object.__setattr__(self, field.name, _finite_or_infinite(field.name, value))


class Flag(NamedTuple):
    """A reason why the CKA of one layer can mislead.

    Example:
        >>> from lightning_cka.diagnostics import Flag
        >>> flag = Flag("conv1", "trace_ratio", value=83.2, threshold=20.0, samples=(17,), of_reference=True)
        >>> flag.layer_label
        'conv1 of the reference'
    """

    layer: str
    """Name of the layer; "the input" if samples were already bad before the first layer."""
    reason: str
    """A field of `Thresholds`; "exchangeability": the probe batches differ by more than chance; or "bad_sample":
    this is the first layer, in execution order, where some samples are ``nan`` or infinite. Files of older versions may
    have "effective_dimension"."""
    value: float
    """Value of the diagnostic. For "dominant_direction": CKA without the direction. For "separated_group": CKA within
    the groups. For "disagreement": mutual kNN minus CKA; below 0, ridge CKA minus CKA. For "copies": number of samples
    whose input occurs before. For "exchangeability": variance between batch means, divided by its expectation if the
    data are shuffled. For "bad_sample": number of samples."""
    threshold: float
    """Threshold that the value is compared with."""
    samples: tuple[int, ...] = ()
    """Samples that cause the flag, the worst first; see `SampleRatio`. For "dominant_direction": three samples at one
    end of the model's direction, then three at the other. For "separated_group": samples of the smaller group, at most
    8. For "disagreement": the outlier, samples of the group that moved, or the samples at both ends of a direction."""
    of_reference: bool = False
    """Whether the layer is the reference's."""

    @property
    def who(self) -> str:
        """Deprecated: use `layer_label`."""
        return str(read_renamed(self, "who", "layer_label"))

    @property
    def is_of_measure(self) -> bool:
        """Whether another measure of the same samples may not have the flag, unlike those about the samples alone."""
        return self.reason not in ("bad_sample", "copies", "exchangeability", "rank_loss")

    @property
    def layer_label(self) -> str:
        """Name of the layer, followed by "of the reference" if it is the reference's."""
        return f"{self.layer} of the reference" if self.of_reference else self.layer


def _finite_or_infinite(name: str, value: Any) -> float:
    if isinstance(value, str) or not isinstance(value, SupportsFloat):
        raise TypeError(f"Thresholds: {name} must be a number or None, but is a {type(value).__name__}")
    try:
        number = float(value)
    except OverflowError:  # An integer.
        number = inf if value > 0 else -inf  # type: ignore[operator]  # Whatever overflows a float has an order.
    if isnan(number):
        raise ValueError(f"Thresholds: {name} must be a number or None, but is nan; None switches the check off")
    return number


def check_thresholds(thresholds: Thresholds | None) -> Thresholds:
    """Return the thresholds; the defaults for None.

    Raises:
        TypeError: The value is neither `Thresholds` nor None.
    """
    if thresholds is None:
        return Thresholds()
    if not isinstance(thresholds, Thresholds):
        raise TypeError(f"thresholds must be lightning_cka.Thresholds(...) or None, but is {thresholds!r}")
    return thresholds
