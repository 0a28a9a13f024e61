"""The result of a comparison with one reference and one kernel, after its errors and warnings."""

from __future__ import annotations

import warnings
from typing import Any

from lightning_cka.compare.comparison import Comparison
from lightning_cka.compare.flag_messages import flag_messages
from lightning_cka.compare.result import CKAResult
from lightning_cka.compare.undefined_layers import undefined_message


def checked_result(comparison: Comparison, **arguments: Any) -> CKAResult:
    """Return the only result of a comparison, and warn about undefined and flagged layers.

    Warnings point at the caller of the public function that calls this one.

    Args:
        comparison: Comparison that has all batches.
        **arguments: Arguments of `Comparison.results`.

    Raises:
        ValueError: The two models were not shown the same samples.
    """
    (outcome,) = comparison.results(**arguments).values()
    if outcome.num_mismatched:
        raise ValueError(
            f"the dataloader gave the two models different samples in {outcome.num_mismatched} batches; "
            "pass one that gives the same samples in each iteration"
        )
    result = outcome.result
    for message in (
        *([comparison.message] if comparison.message else []),
        *(undefined_message(reason, names) for reason, names in outcome.undefined_layers.items()),
        *flag_messages(result.flags, comparison.sample_kind, result.kernel),
    ):
        warnings.warn(message, stacklevel=3)
    return result
