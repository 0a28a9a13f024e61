"""Short texts for layers, models and values in a figure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import takewhile
from typing import TYPE_CHECKING

from lightning_cka.hsic.measure import CKA, measure_title

if TYPE_CHECKING:
    from lightning_cka.compare.result import CKAResult

MAX_LABEL = 32
"""Default maximum number of characters in the label of a layer."""

MAX_AXIS_TITLE = 40
"""Maximum number of characters in the title of an axis."""

_SHORT_TITLE = 24
"""Number of characters with less than which the title of an axis is the name of the model alone."""

_LEAST_NAME = 10

MAX_TITLE = 44
"""Maximum number of characters in the title of a figure."""


_FROZEN = " (frozen)"
"""End of the names of references whose weights do not change."""


def short_labels(names: Sequence[str], max_length: int = MAX_LABEL) -> tuple[list[str], str]:
    """Remove the common dotted prefix of layer names, and the middle of long names.

    Distinct names get distinct labels. If shortening to ``max_length`` would make two labels equal, all labels may
    be longer than that.

    Args:
        names: Names of the layers, such as ``encoder.layer.0``.
        max_length: Maximum number of characters of a label.

    Returns:
        One label per name, with dollar signs escaped, and the removed prefix ("" if there is none).
    """
    leading_parts = zip(*(name.split(".")[:-1] for name in names), strict=False)
    prefix = ".".join(parts[0] for parts in takewhile(lambda parts: len(set(parts)) == 1, leading_parts))
    labels = [name[len(prefix) + 1 :] if prefix else name for name in names]
    longest = max(map(len, labels), default=0)
    for length in range(max_length, max(longest, max_length) + 1):
        shown = [elided(label, length) for label in labels]
        if len(set(shown)) == len(set(labels)):
            break
    return [plain(label) for label in shown], prefix


def elided(text: str, max_length: int = MAX_LABEL) -> str:
    """Return the text, with an ellipsis in place of its middle if it is longer than ``max_length``."""
    half = max_length // 2
    return text if len(text) <= max_length else f"{text[: half - 1]}…{text[-half:]}"


def shortened_name(name: str, max_length: int) -> str:
    """Return the name of a model, without "(frozen)", and then its middle, if it is longer than ``max_length``."""
    return name if len(name) <= max_length else elided(name.removesuffix(_FROZEN), max_length)


def fitting(wordings: Sequence[str], max_length: int) -> str:
    """Return the first wording of at most this many characters, or the last one if there is none."""
    return next((text for text in wordings if len(text) <= max_length), wordings[-1])


def plain(text: str) -> str:
    """Escape dollar signs, because matplotlib parses text between two of them as mathematics."""
    return re.sub(r"(?<!\\)\$", r"\\$", text)


def axis_title(name: str, prefix: str, moment: str = "", max_length: int = MAX_AXIS_TITLE) -> str:
    """Return the title of an axis of layers, as complete as its length allows.

    Args:
        name: Name of the model; "" for none.
        prefix: Common prefix of the layers, which their labels lack.
        moment: The moment of training after the name, such as ", epoch 3".
        max_length: Maximum number of characters, as far as at least 6 of the name are shown.
    """
    subject = f"layer of {name}" if name else "layer"
    short = shortened_name(name, max(6, max_length - len("layer of ")))
    outer, _, last = prefix.rpartition(".")
    ends = [f": {prefix}.*", *([f": ….{last}.*"] if outer and last else []), ""] if prefix else [""]
    titles = [f"{subject}{when}{end}" for when in dict.fromkeys([moment, ""]) for end in ends]
    titles.append(f"layer of {short}" if max_length >= _SHORT_TITLE else shortened_name(name, max_length))
    return plain(next((title for title in titles if len(title) <= max_length), titles[-1]))


def reference_title(result: CKAResult, max_length: int = MAX_TITLE) -> str:
    """Return the title of a figure that shows the similarity of a model with one reference."""
    return similarity_title(measure_title(result.measure), result, max_length)


def similarity_title(value: str, result: CKAResult, max_length: int = MAX_TITLE, moment: str = "") -> str:
    """Return the title of a figure with values of paired layers: "CKA of model with reference".

    Args:
        value: What the figure shows.
        result: Has the names. Long ones lose "(frozen)", and then their middle. Without room for 10 characters of
            each, the model is left out.
        max_length: Maximum number of characters, as far as at least 6 of the reference are shown.
        moment: The moment of training after the model's name, such as ", epoch 3".
    """
    reference = result.reference_name
    for length in range(max_length, _LEAST_NAME - 1, -1):
        title = f"{value} of {elided(result.model_name, length)}{moment} with {elided(reference, length)}"
        if len(title) <= max_length:
            return plain(title)
        reference = reference.removesuffix(_FROZEN)
    rest = f"{value} with {moment}"
    return plain(f"{value} with {elided(reference, max(6, max_length - len(rest)))}{moment}")


def shared_value_label(results: Sequence[CKAResult]) -> str:
    """Return the `value_label` that all results have, or "similarity" if they are of different measures."""
    labels = {value_label(result) for result in results}
    return labels.pop() if len(labels) == 1 else "similarity"


def value_label(result: CKAResult) -> str:
    """Return "CKA", with the kernel unless it is linear, and "biased" for the biased estimator; or another measure."""
    if result.measure != CKA.key:
        return measure_title(result.measure)
    kinds = [*([] if result.kernel == "linear" else [result.kernel]), *([] if result.unbiased else ["biased"])]
    return f"CKA ({', '.join(kinds)})" if kinds else "CKA"
