"""Choose some of many layers by the repeated structure of the model, so that like is compared with like over depth."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from torch import nn

from lightning_cka.runtime.spacing import spread_evenly

MAX_DEFAULT_LAYERS = 64

_MIN_REPEATS = 3
"""Layers of one class in a stack of at least this many are blocks, even if they contain no other layers."""


class Thinned(NamedTuple):
    """Some of many layers."""

    names: list[str]
    """The chosen layers, in execution order."""
    left_out: list[str]
    """Layers of which no like one is chosen, as patterns such as ``blocks.*.norm1``."""
    is_spread: bool
    """Whether some layers were chosen of a group of like ones."""


def thin_out(names: list[str], usable: Collection[str], layers: Mapping[str, nn.Module]) -> Thinned:
    """Choose at most 64 layers.

    The outputs of repeated blocks come first, then layers that occur once, then layers at the same place of each block,
    all of them or none. If the first two are too many, they are spread evenly.

    Args:
        names: The default layers, in execution order.
        usable: Names of all layers that can be compared, in execution order.
        layers: All modules, by name.
    """
    if len(names) <= MAX_DEFAULT_LAYERS:
        return Thinned(names, [], False)
    stacks = _stacks(layers)
    blocks = _blocks(names, usable, stacks)
    patterns = {name: _pattern(name, stacks) for name in [*blocks, *names]}
    families = _families(names, patterns)
    singles = [members[0] for members in families if len(members) == 1]
    first = [name for name in usable if name in {*blocks, *singles}]
    chosen = set(spread_evenly(first, MAX_DEFAULT_LAYERS))
    is_spread = len(chosen) < len(first)
    for members in families:
        if len(chosen | set(members)) <= MAX_DEFAULT_LAYERS:
            chosen |= set(members)
    if not chosen:
        chosen, is_spread = set(spread_evenly(names, MAX_DEFAULT_LAYERS)), True
    return Thinned([name for name in usable if name in chosen], _left_out(names, chosen, patterns), is_spread)


def _left_out(names: list[str], chosen: Collection[str], patterns: Mapping[str, str]) -> list[str]:
    """Return the patterns of layers of which no like one is chosen."""
    kept = {patterns[name] for name in chosen}
    return list(dict.fromkeys(patterns[name] for name in names if patterns[name] not in kept))


def _blocks(names: list[str], usable: Collection[str], stacks: Collection[str]) -> list[str]:
    """Return the repeated blocks that are no default layers themselves; all of them if there are no others."""
    blocks = [name for name in usable if _is_block(name, stacks)]
    return [name for name in blocks if name not in names] or blocks


def _families(names: list[str], patterns: Mapping[str, str]) -> list[list[str]]:
    """Group layers that are at one place within a block, in whatever stack the block is."""
    families: dict[str, list[str]] = {}
    for name in names:
        _, star, within = patterns[name].rpartition("*.")
        families.setdefault(star + within, []).append(name)
    return list(families.values())


def _stacks(layers: Mapping[str, nn.Module]) -> set[str]:
    """Return the names of modules whose children are numbered and alike."""
    children: dict[str, list[nn.Module]] = {}
    for name, module in layers.items():
        if name.rpartition(".")[2].isdigit() and any(True for _ in module.parameters()):
            children.setdefault(_parent(name), []).append(module)
    return {parent for parent, found in children.items() if _are_blocks(found)}


def _are_blocks(modules: list[nn.Module]) -> bool:
    are_containers = all(any(True for c in m.children() for _ in c.parameters()) for m in modules)
    are_alike = len(modules) >= _MIN_REPEATS and len({type(module) for module in modules}) == 1
    return are_containers or are_alike


def _pattern(name: str, stacks: Collection[str]) -> str:
    """Replace the numbers of blocks by asterisks."""
    parts = name.split(".")
    starred = ["*" if ".".join(parts[:i]) in stacks and part.isdigit() else part for i, part in enumerate(parts)]
    return ".".join(starred)


def _is_block(name: str, stacks: Collection[str]) -> bool:
    return name.rpartition(".")[2].isdigit() and _parent(name) in stacks


def _parent(name: str) -> str:
    return name.rpartition(".")[0]
