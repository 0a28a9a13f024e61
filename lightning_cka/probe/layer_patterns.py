"""Patterns of layer names, as in paths: ``*`` within one dotted level, ``**`` across levels."""

from __future__ import annotations

import re
from collections.abc import Collection
from fnmatch import fnmatchcase, translate

from torch import nn

from lightning_cka.runtime.text import shortened

_TOKENS = re.compile(
    r"(?P<levels>(?:^|(?<=\.))\*\*+\.)|(?P<any>\*\*+)|(?P<star>\*)|(?P<one>\?)|(?P<set>\[!?\]?[^]]*\])|.", re.S
)


def names_matching(pattern: str, names: Collection[str]) -> list[str]:
    """Return the name that equals the pattern; if there is none, the names that match it.

    ``*`` matches any number of characters within one dotted level, ``?`` one of them, ``[abc]``, ``[0-9]`` and
    ``[!0-9]`` one of a set. ``**`` matches across levels: ``net.**`` is everything below ``net``, and ``**.norm`` is
    each ``norm`` at any level.
    """
    if pattern in names:
        return [pattern]
    expression = re.compile("".join(map(_translated, _TOKENS.finditer(pattern))), re.S)
    return [name for name in names if expression.fullmatch(name)]


def _translated(token: re.Match[str]) -> str:
    """Return the regular expression of a part of a pattern."""
    if token["levels"]:
        return r"(?:[^.]+\.)*"
    if token["set"]:
        return r"(?!\.)" + translate(token["set"])[len("(?s:") : -len(r")\Z")]
    within = {"any": ".*", "star": "[^.]*", "one": "[^.]"}
    return within.get(token.lastgroup or "") or re.escape(token[0])


def across_dots(pattern: str) -> str:
    """Return the pattern with ``**`` for ``*``, which matches what the pattern matched while ``*`` matched dots."""
    return re.sub(r"\*+", "**", pattern)


def hint_of_dots(pattern: str, names: Collection[str]) -> str:
    """Return what to write instead of a pattern that needs a ``*`` or ``?`` to match dots; empty if it needs none.

    Args:
        pattern: A pattern.
        names: The names that it is matched with.
    """
    found = set(names_matching(pattern, names))
    missed = [name for name in names if fnmatchcase(name, pattern) and name not in found]
    if not missed:
        return ""
    wider = across_dots(pattern)
    instead = f": {wider!r}" if set(missed) <= set(names_matching(wider, names)) else ""
    also = shortened(missed, 3)
    return f"'*' and '?' stay within one dotted level; write ** to match across dots{instead} (also {also})"


def is_class_name(text: str, layer: type[nn.Module]) -> bool:
    """Return whether a text names a module class or one that it is derived from.

    Args:
        text: The name of a class, such as ``BertLayer``, also after the module that it is imported from.
        layer: The class of a layer.
    """
    place, _, name = text.rpartition(".")
    classes = [base for base in layer.__mro__ if issubclass(base, nn.Module) and base.__name__ == name]
    return any(not place or f"{base.__module__}.".startswith(f"{place}.") for base in classes)


def stops_before_ten(pattern: str, found: Collection[str], names: Collection[str]) -> list[str]:
    """Return layers with more digits that a pattern seems to have missed, as ``block.?`` misses ``block.10``.

    Args:
        pattern: A pattern.
        found: The names that it matches.
        names: All names.
    """
    if pattern in names or not re.search(r"[?\[]", pattern):
        return []
    numbers = _by_place(found)
    missed = []
    for place, others in _by_place(set(names) - set(found)).items():
        last = max(numbers.get(place, {-1: ""}))
        if set(str(last)) == {"9"}:
            missed += [name for number, name in sorted(others.items()) if number > last]
    return missed


def _by_place(names: Collection[str]) -> dict[tuple[str, str], dict[int, str]]:
    """Group names by what is before and after one of their numbers, and map that number to the name."""
    places: dict[tuple[str, str], dict[int, str]] = {}
    for name in names:
        for number in re.finditer(r"[0-9]+", name):
            place = (name[: number.start()], name[number.end() :])
            places.setdefault(place, {})[int(number[0])] = name
    return places
