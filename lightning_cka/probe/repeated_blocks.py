"""Find the repeated blocks of a model, whose outputs a person would plot over depth."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from torch import Tensor, nn

from lightning_cka.probe.dry_run_outputs import LayerOutput

_MIN_BLOCKS = 3
"""Modules of one class in a stack of at least this many are blocks."""

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def repeated_blocks(
    names: Sequence[str], layers: Mapping[str, nn.Module], outputs: Mapping[str, LayerOutput]
) -> list[str]:
    """Return the repeated blocks of a model, in execution order; none if it has no stack of at least 3.

    A stack has at least 3 modules of one class with layers inside. They are numbered children, as of `nn.ModuleList`,
    `nn.Sequential` or in names such as ``layer1``, or other children of one module. Branches and heads, which read the
    same input, are no stack. Of stacks within each other, the outer one counts, unless its modules are stages: then
    the blocks of all stages count, as in a ResNet.

    Args:
        names: Names of layers that can be compared, contain layers and adapt no other, in execution order.
        layers: All modules, by name.
        outputs: The layers' outputs in the dry run.
    """
    stacks = _stacks(names, layers, outputs)
    blocks: list[str] = []
    for stack in sorted(stacks, key=lambda stack: stack[0].count(".")):
        members = [name for name in stack if not is_inside(name, blocks)]
        others = [other for other in stacks if other is not stack]
        if any(_are_stages(members, other, outputs) for other in others):
            members = [
                name for name in members if not contains(name, itertools.chain(*others))
            ]  # A stage of one block.
        blocks += members
    return [name for name in names if name in set(blocks)]


def is_inside(name: str, others: Collection[str]) -> bool:
    """Whether a layer is inside one of the others, by its name."""
    return any(name.startswith(f"{other}.") for other in others)


def contains(name: str, others: Iterable[str]) -> bool:
    """Whether one of the others is inside a layer, by its name."""
    return any(other.startswith(f"{name}.") for other in others)


def _stacks(
    names: Sequence[str], layers: Mapping[str, nn.Module], outputs: Mapping[str, LayerOutput]
) -> list[list[str]]:
    """Return the stacks, each in execution order. Like stacks of several stages are one."""
    stacks = [_stack_of(groups, names, layers) for groups in _families(names, layers, outputs)]
    return [stack for stack in stacks if stack]


def _stack_of(groups: Sequence[Sequence[str]], names: Sequence[str], layers: Mapping[str, nn.Module]) -> list[str]:
    """Return the blocks of like groups of siblings; none if they are too few."""
    numbered = [[name for name in group if _is_numbered(name)] for group in groups]
    if sum(map(len, numbered)) >= _MIN_BLOCKS and max(map(len, numbered)) > 1:
        places = {_starred(name) for group in numbered for name in group}
        return [name for name in names if _starred(name) in places]  # The first one may be special.
    if max(map(len, groups)) >= _MIN_BLOCKS and not isinstance(layers[groups[0][0]], _CONTAINERS):
        return list(itertools.chain(*groups))
    return []


def _families(
    names: Sequence[str], layers: Mapping[str, nn.Module], outputs: Mapping[str, LayerOutput]
) -> list[list[list[str]]]:
    """Return groups of like siblings, together with the groups of like parents."""
    siblings: dict[tuple[str, object], list[str]] = {}
    for name in names:
        siblings.setdefault((_parent(name), _kind(layers[name])), []).append(name)
    families: dict[tuple[str, object], list[list[str]]] = {}
    for (parent, kind), members in siblings.items():
        if not _read_one_input(members, outputs):
            families.setdefault((_starred(parent), kind), []).append(members)
    return list(families.values())


def _kind(module: nn.Module) -> object:
    """Return what like modules have in common: their class, and of containers also the classes inside."""
    return (type(module), frozenset(map(type, module.children()))) if type(module) in _CONTAINERS else type(module)


def _read_one_input(names: Sequence[str], outputs: Mapping[str, LayerOutput]) -> bool:
    """Whether modules read the same input side by side. In a stack, an equal input is what the last one gave."""
    for one, other in itertools.pairwise(names):
        read = outputs[one].input_values
        if _is_equal(read, outputs[other].input_values) and not _is_equal(read, outputs[one].values):
            return True
    return False


def _are_stages(members: Sequence[str], stack: Sequence[str], outputs: Mapping[str, LayerOutput]) -> bool:
    """Whether modules consist of blocks of one size each, and one of them gives what its last block gives."""
    ends = False
    for name in members:
        inner = [outputs[other] for other in stack if is_inside(other, [name])]
        if len({output.shape for output in inner}) > 1:
            return False
        ends |= any(_is_equal(outputs[name].values, output.values) for output in inner)
    return ends


def _is_equal(one: Tensor | None, other: Tensor | None) -> bool:
    """Whether two layers' kept values are known and equal."""
    return one is not None and other is not None and one.shape == other.shape and bool((one == other).all())


def _is_numbered(name: str) -> bool:
    return bool(re.search("[0-9]", name.rpartition(".")[2]))


def _parent(name: str) -> str:
    return name.rpartition(".")[0]


def _starred(name: str) -> str:
    return re.sub("[0-9]+", "*", name)
