"""`LabelColours`: a colour and a marker for each label of samples, that colour-blind people can tell apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any

from matplotlib import colormaps
from matplotlib.colors import Normalize, to_hex
from matplotlib.lines import Line2D

from lightning_cka.figures.labels import elided, plain
from lightning_cka.probe.sample_labels import copied_labels, label_of
from lightning_cka.probe.tokens import kind_of_sequences, sequences_of
from lightning_cka.runtime.spacing import spread_evenly

if TYPE_CHECKING:
    from lightning_cka.probe.sample_labels import Labels

_COLOURS = (
    "#3f90da",
    "#ffa90e",
    "#bd1f01",
    "#94a4a2",
    "#832db6",
    "#a96b59",
    "#e76300",
    "#b9ac70",
    "#717581",
    "#92dadd",
)
"""The ten colours of Petroff 2021, https://arxiv.org/abs/2107.02270."""

_MARKERS = ("o", "^", "s", "D")
"""Neighbouring labels have different markers, for prints in grey. Labels of one colour have different markers, too."""

MAX_CLASSES = len(_COLOURS) * len(_MARKERS)
"""Largest number of labels with a legend. More integers get a continuous colour map."""

_MAX_LENGTH = 18


class LabelColours:
    """Colours and markers of samples.

    Args:
        labels: The label of each sample, an integer or a text: a mapping from sample numbers, or a sequence that is
            indexed by them. None: all samples look alike.
        sample_kind: What the sample numbers are. Tokens have the label of their sequence.

    Raises:
        TypeError: ``labels`` is neither a mapping nor a sequence, or a label is neither an integer nor a text.
        ValueError: There are more than 40 texts.
    """

    def __init__(self, labels: Labels | None, sample_kind: str) -> None:
        self._sample_kind = sample_kind
        self._labels = None if labels is None else copied_labels(labels, "labels")
        values = self._labels.values() if isinstance(self._labels, Mapping) else self._labels or ()
        distinct = {_plain(label) for label in values}
        self._order = {label: place for place, label in enumerate(sorted(distinct, key=_sort_key))}
        self._is_continuous = len(self._order) > MAX_CLASSES
        if self._is_continuous and any(isinstance(label, str) for label in distinct):
            raise ValueError(f"labels: expected at most {MAX_CLASSES} different texts, but got {len(distinct)}")

    def of(self, samples: Sequence[int]) -> list[int | str]:
        """Return the labels of samples; an empty list without labels.

        Raises:
            ValueError: A sample has no label.
        """
        if self._labels is None:
            return []
        kind = kind_of_sequences(self._sample_kind)
        numbers = sequences_of(samples, self._sample_kind) or samples
        return [_plain(label_of(self._labels, number, kind, "labels")) for number in numbers]

    def style(self, label: int | str | None) -> tuple[str, str]:
        """Return the colour and the marker of a label. None: those of samples without labels."""
        if label is None:
            return _COLOURS[0], _MARKERS[0]
        if self._is_continuous:
            low, *_, high = self._order
            return to_hex(colormaps["viridis"](Normalize(low, high)(label))), _MARKERS[0]  # type: ignore[arg-type]  # No text.
        place = self._order[label]
        return _COLOURS[place % len(_COLOURS)], _MARKERS[(place + place // len(_COLOURS)) % len(_MARKERS)]

    def legend(self, samples: Sequence[int]) -> list[tuple[Line2D | None, str]]:
        """Return the handles and texts of a legend of the labels of samples. Of many integers, it has five."""
        found = sorted(set(self.of(samples)), key=self._order.__getitem__)
        if self._is_continuous:
            found = spread_evenly(found, 5)
        return [(_handle(*self.style(label)), plain(elided(str(label), _MAX_LENGTH))) for label in found]


def _handle(colour: str, marker: str) -> Line2D:
    return Line2D([], [], linestyle="none", marker=marker, color=colour, markersize=4.5, markeredgewidth=0)


def _plain(label: Any) -> int | str:
    """Return a label as a Python integer or text.

    Raises:
        TypeError: It is neither.
    """
    value = label.item() if hasattr(label, "item") and getattr(label, "ndim", 1) == 0 else label
    if isinstance(value, str):
        return value
    if isinstance(value, Integral):
        return int(value)
    raise TypeError(f"labels must be integers or texts, one per sample, but one is {label!r}")


def _sort_key(label: int | str) -> tuple[bool, int, str]:
    return (True, 0, label) if isinstance(label, str) else (False, label, "")
