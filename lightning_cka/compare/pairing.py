"""`Pairing`: which layer of a reference belongs to each layer of a model, where there is one value per layer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from lightning.pytorch.utilities import rank_zero_info

from lightning_cka.runtime.text import shortened

Pair = Literal["name", "position"] | Mapping[str, str]
"""The argument ``pair``; see `pair_layers`."""

SAME_NAMES = "same names"


@dataclass(frozen=True)
class Pairing:
    """Which layers of a model and a reference are paired.

    Attributes:
        layers: The reference's layer of each paired layer of the model, by name, in the order of the model's layers.
        how: How the pairs were found, in words: "same names", "names without 'bert.'", "position" or "mapping".

    Example:
        >>> from lightning_cka.compare.pairing import pair_layers
        >>> pair_layers(["bert.layer.0", "bert.layer.1", "head"], ["layer.0", "layer.1"])
        Pairing(layers={'bert.layer.0': 'layer.0', 'bert.layer.1': 'layer.1'}, how="names without 'bert.'")
    """

    layers: Mapping[str, str]
    how: str = SAME_NAMES

    @classmethod
    def of_same_names(cls, layers: Sequence[str], reference_layers: Collection[str]) -> Pairing:
        """Return the pairs of layers that have the same name."""
        others = frozenset(reference_layers)
        return cls({name: name for name in layers if name in others})

    def checked(self, layers: Sequence[str], reference_layers: Sequence[str]) -> Pairing | None:
        """Return the pairing, or None if it is that of the same names.

        Raises:
            ValueError: A name is none of the layers.
        """
        for side, names, known in (
            ("layer of the model", self.layers.keys(), layers),
            ("layer of the reference", self.layers.values(), reference_layers),
        ):
            for name in names:
                if name not in known:
                    close = get_close_matches(name, known, n=3) or list(known)
                    raise ValueError(
                        f"pair: {name!r} is no compared {side}; expected names such as {shortened(close, 4)}"
                    )
        return None if self == Pairing.of_same_names(layers, reference_layers) else self


def check_pair(pair: Pair) -> Pair:
    """Check the type of the argument ``pair``.

    Raises:
        ValueError: It is another text than "name" and "position".
        TypeError: It is neither a text nor a mapping of texts.
    """
    if isinstance(pair, str):
        if pair not in ("name", "position"):
            raise ValueError(f"pair must be 'name', 'position' or a mapping of layer names, but is {pair!r}")
    elif not isinstance(pair, Mapping):
        raise TypeError(f"pair must be 'name', 'position' or a mapping of layer names, but is a {type(pair).__name__}")
    elif wrong := [each for item in pair.items() for each in item if not isinstance(each, str)]:
        raise TypeError(f"pair must map layer names of the model to layer names of the reference, but has {wrong[0]!r}")
    return pair


def pair_layers(layers: Sequence[str], reference_layers: Sequence[str], pair: Pair = "name") -> Pairing:
    """Pair the layers of a model with those of a reference.

    By name, a layer is paired with the layer of the same name. If one model contains the other, names differ in a
    prefix. So that pair of dotted prefixes, one for each side, is removed that pairs most layers, if it pairs more than
    no removal. It must pair at least half of the layers of one side, because some names agree by accident. Other layers
    stay paired with the layer of the same name, if both are left.

    Args:
        layers: Names of the model's layers.
        reference_layers: Names of the reference's layers.
        pair: "name"; "position": the first with the first, and so on; or a mapping from layers of the model to layers
            of the reference. A mapping may leave layers out, and several layers may have the same layer of the
            reference. An empty one pairs none.

    Raises:
        ValueError: Two removals pair equally many layers, the numbers of layers differ, or a name is unknown.
        TypeError: ``pair`` has another type.
    """
    check_pair(pair)
    if isinstance(pair, Mapping):
        pairing = Pairing({name: pair[name] for name in (*layers, *pair) if name in pair}, "mapping")
        pairing.checked(layers, reference_layers)
        return pairing
    if pair == "position":
        if len(layers) != len(reference_layers):
            raise ValueError(
                f"pair='position' needs equally many layers on both sides, but the model has {len(layers)} "
                f"({shortened(layers, 4)}) and the reference {len(reference_layers)} "
                f"({shortened(reference_layers, 4)}). layers= and reference_layers= choose them"
            )
        return Pairing(dict(zip(layers, reference_layers, strict=True)), "position")
    return _by_name(layers, reference_layers)


def announced_pairing(layers: Sequence[str], reference_layers: Sequence[str], *, pair: Pair, reference: str) -> Pairing:
    """Return the result of `pair_layers`, and log it; see `announce_pairing`."""
    pairing = pair_layers(layers, reference_layers, pair)
    announce_pairing(pairing, len(layers), reference)
    return pairing


def announce_pairing(pairing: Pairing, number: int, reference: str) -> None:
    """Log in one line how layers are paired, unless the pairs have the same names.

    Args:
        pairing: The pairing.
        number: Number of the model's layers.
        reference: What the reference is, in words.
    """
    pairs = [f"{name} with {other}" for name, other in pairing.layers.items()]
    if not pairs:
        rank_zero_info(
            f"CKA: no layers are paired with those of {reference} ({pairing.how}), so that there are values of all "
            "pairs only, and mean_all_pairs instead of mean. pair= pairs layers"
        )
    elif pairing.how != SAME_NAMES:
        named = pairs if len(pairs) < 3 else [pairs[0], "...", pairs[-1]]
        rank_zero_info(
            f"CKA pairs {len(pairs)} of {number} layers with {reference} by {pairing.how}: {', '.join(named)}"
        )


_Prefixes = tuple[str, str]
"""What is removed from names of the model and of the reference, without the last dot."""


def _by_name(layers: Sequence[str], reference_layers: Sequence[str]) -> Pairing:
    plain = Pairing.of_same_names(layers, reference_layers)
    if len(plain.layers) == min(len(layers), len(reference_layers)):
        return plain
    removals = {
        prefixes: _with_same_names(pairs, plain, layers)
        for prefixes, pairs in _removals(layers, reference_layers).items()
        if 2 * len(pairs) >= min(len(layers), len(reference_layers))
        and not _is_shift(*prefixes, layers, reference_layers)
    }
    most = max(map(len, removals.values()), default=0)
    if most <= len(plain.layers):
        return plain
    best = [(_in_words(*prefixes), pairs) for prefixes, pairs in removals.items() if len(pairs) == most]
    if len(best) > 1:
        ways = [f"{words} ({' with '.join(next(iter(pairs.items())))})" for words, pairs in best]
        raise ValueError(
            f"layers can be paired in {len(best)} ways that pair {most} layers each: by {', or by '.join(ways[:3])}. "
            "Choose by pair={'layer of the model': 'layer of the reference', ...}; pair={} pairs none"
        )
    words, pairs = best[0]
    return Pairing(pairs, words)


def _removals(layers: Sequence[str], reference_layers: Sequence[str]) -> dict[_Prefixes, dict[str, str]]:
    """Return the pairs by what is removed. Of each two names, that is all but their longest common end."""
    by_end: dict[str, list[tuple[str, list[str]]]] = defaultdict(list)
    for other in reference_layers:
        parts = other.split(".")
        by_end[parts[-1]].append((other, parts))
    found: dict[_Prefixes, dict[str, str]] = defaultdict(dict)
    for name in layers:
        parts = name.split(".")
        for other, other_parts in by_end[parts[-1]]:
            end, other_end = len(parts), len(other_parts)
            while end and other_end and parts[end - 1] == other_parts[other_end - 1]:
                end, other_end = end - 1, other_end - 1
            found[".".join(parts[:end]), ".".join(other_parts[:other_end])][name] = other
    found.pop(("", ""), None)
    return found


def _with_same_names(pairs: Mapping[str, str], plain: Pairing, layers: Sequence[str]) -> dict[str, str]:
    """Return the pairs, with those of the same name that are left, in the order of the layers."""
    taken = set(pairs.values())
    others = {name: other for name, other in plain.layers.items() if other not in taken}
    return {name: (others | dict(pairs))[name] for name in layers if name in pairs or name in others}


def _is_shift(own: str, other: str, layers: Sequence[str], reference_layers: Sequence[str]) -> bool:
    """Whether both prefixes are parts of one model, such as "layer1" and "layer2", instead of two names of one part."""
    if _is_inside(own, other) or _is_inside(other, own):
        return False
    return any(_is_inside(name, own) for name in reference_layers) or any(_is_inside(name, other) for name in layers)


def _is_inside(name: str, prefix: str) -> bool:
    return not prefix or name.startswith(f"{prefix}.")


def _in_words(own: str, other: str) -> str:
    """Return what is removed, in words."""
    if not other:
        return f"names without '{own}.'"
    of_reference = f"without '{other}.' of the reference"
    return f"names without '{own}.' of the model and {of_reference}" if own else f"names {of_reference}"
