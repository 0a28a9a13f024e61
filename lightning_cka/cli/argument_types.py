"""Turn texts of the command line into values. What takes time to import is imported when it is needed."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning_cka.hsic.check_measures import OneMeasure
    from lightning_cka.hsic.kernels import Kernel


def measure_of(text: str) -> OneMeasure:
    """Return the measure that an argument names.

    Raises:
        ArgumentTypeError: There is no such measure, or its parameter is out of range.
    """
    from lightning_cka.hsic.check_measures import check_measures
    from lightning_cka.hsic.hat_matrices import Ridge
    from lightning_cka.hsic.neighbors import MutualKNN

    name, _, parameter = text.partition(":")
    try:
        if name == MutualKNN.key and parameter:
            return MutualKNN(float(parameter))
        if name == Ridge.key and parameter:
            return Ridge(float(parameter))
        check_measures(text)
    except ValueError as error:
        raise ArgumentTypeError(f"{text!r}: {error}") from error
    return text


def kernel_of(text: str) -> Kernel:
    """Return the kernel that an argument names.

    Raises:
        ArgumentTypeError: There is no such kernel, or its bandwidth is out of range.
    """
    name, _, threshold = text.partition(":")
    if name == "rbf" and threshold:
        from lightning_cka.hsic.kernels import RBF

        try:
            return RBF(float(threshold))
        except ValueError as error:
            raise ArgumentTypeError(f"{text!r}: {error}") from error
    if text not in ("linear", "distance", "rbf"):
        raise ArgumentTypeError(f"unknown kernel {text!r}; expected linear, distance, rbf or rbf:T")
    return text


def pair_of(texts: Sequence[str]) -> str | dict[str, str]:
    """Return how layers are paired: "name", "position", or the pairs that texts like "layer=reference_layer" name.

    Raises:
        ValueError: A text is none of these, or a layer has two partners.
    """
    if list(texts) in (["name"], ["position"]):
        return texts[0]
    pairs: dict[str, str] = {}
    for text in texts:
        layer, is_pair, other = text.partition("=")
        if not layer or not is_pair or not other:
            hint = ". Put the paths before the options" if Path(text).exists() else ""
            raise ValueError(f"--pair takes name, position, or pairs like conv1=stem, but got {text!r}{hint}")
        if pairs.setdefault(layer, other) != other:
            raise ValueError(f"--pair gives the layer {layer!r} two partners: {pairs[layer]!r} and {other!r}")
    return pairs


def moment_of(text: str) -> str:
    """Return the name of a moment of training: a number without leading zeros, "initial" or "last".

    Raises:
        ArgumentTypeError: It is none of these.
    """
    if text.isdecimal():
        return str(int(text))
    name = "initial" if text == "init" else text
    if name not in ("initial", "last"):
        hint = ". Put the paths before the options" if Path(text).exists() else ""
        raise ArgumentTypeError(f"expected a number, initial or last, but got {text!r}{hint}")
    return name
