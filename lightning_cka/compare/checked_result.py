"""The results of a comparison with one reference, after its errors and warnings."""

from __future__ import annotations

import warnings
from typing import Any, TypeVar

from lightning_cka.compare.comparison import Comparison
from lightning_cka.compare.flag_messages import flag_messages
from lightning_cka.compare.flags import Flag
from lightning_cka.compare.result import CKAResult
from lightning_cka.compare.undefined_layers import undefined_message
from lightning_cka.hsic.check_measures import Measures, is_one
from lightning_cka.hsic.measure import measure_title

T = TypeVar("T")


def one_or_all(found: dict[str, T], measures: Measures) -> T | dict[str, T]:
    """Return the only value if one measure was given, else all by name."""
    return next(iter(found.values())) if is_one(measures) else found


def checked_results(comparison: Comparison, **arguments: Any) -> dict[str, CKAResult]:
    """Return the results of a comparison with one reference by measure, and warn about undefined and flagged layers.

    Warnings point at the caller of the public function that calls this one.

    Args:
        comparison: Comparison that has all batches.
        **arguments: Arguments of `Comparison.results`.

    Raises:
        ValueError: The two models were not shown the same samples.
    """
    outcomes = {measure: outcome for (_, measure), outcome in comparison.results(**arguments).items()}
    messages = [comparison.message] if comparison.message else []
    known: set[Flag] = set()
    for outcome in outcomes.values():
        if outcome.num_mismatched:
            raise ValueError(
                f"the dataloader gave the two models different samples in {outcome.num_mismatched} batches; "
                "pass one that gives the same samples in each iteration"
            )
        result = outcome.result
        title = measure_title(result.measure)
        messages += [undefined_message(reason, names, title) for reason, names in outcome.undefined_layers.items()]
        messages += flag_messages([flag for flag in result.flags if flag not in known], comparison.sample_kind, result)
        known |= {flag for flag in result.flags if not flag.is_of_measure}
    for message in messages:
        warnings.warn(message, stacklevel=3)
    return {measure: outcome.result for measure, outcome in outcomes.items()}
