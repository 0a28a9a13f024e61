"""Labels of samples: a sequence that is indexed by sample numbers, or a mapping from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Labels = Mapping[int, Any] | Sequence[Any]


def copied_labels(labels: Any, argument: str) -> Labels:
    """Return a copy of the labels of samples as a dict or a list.

    Args:
        labels: A mapping from sample numbers, or a sequence, an array or a tensor that is indexed by them.
        argument: The user's name of the argument, for messages.

    Raises:
        TypeError: ``labels`` is neither a mapping nor a sequence.
    """
    if isinstance(labels, Mapping):
        return dict(labels)
    plain = labels.tolist() if hasattr(labels, "tolist") else labels
    if isinstance(plain, str | bytes) or not isinstance(plain, Sequence):
        raise TypeError(
            f"{argument} must be labels by sample number, as a sequence or a mapping, but is a {type(labels).__name__}"
        )
    return list(plain)


def label_of(labels: Labels, sample: int, kind: str, argument: str) -> Any:
    """Return the label of one sample.

    Args:
        labels: The result of `copied_labels`.
        sample: The number of the sample.
        kind: What the number is, for messages.
        argument: The user's name of the argument, for messages.

    Raises:
        ValueError: The sample has no label.
    """
    try:
        return labels[sample]
    except (KeyError, IndexError) as error:
        raise ValueError(
            f"{argument} has {len(labels)} labels, but none for {kind} {sample}; expected a "
            "sequence that is indexed by sample numbers, such as the labels of the whole dataset, or a mapping "
            "from them"
        ) from error
