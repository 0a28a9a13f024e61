"""Choose the layers to compare if the user names none: what a person would plot."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from torch import nn

from lightning_cka.probe.dry_run_outputs import LayerOutput
from lightning_cka.probe.repeated_blocks import contains, is_inside, repeated_blocks


def candidate_layers(layers: Mapping[str, nn.Module]) -> list[str]:
    """Return the modules that have parameters. Parametrizations count as part of the module that has them."""
    return [
        name
        for name, module in layers.items()
        if "parametrizations" not in name.split(".") and any(True for _ in module.parameters())
    ]


def containers(names: Collection[str], layers: Mapping[str, nn.Module]) -> set[str]:
    """Return the candidates that contain another one."""
    return {name for name in names if _inside(layers[name], names, layers)}


def default_layers(
    usable: Sequence[str],
    layers: Mapping[str, nn.Module],
    outputs: Mapping[str, LayerOutput],
    adapters: Collection[str],
) -> list[str]:
    """Choose among the layers that can be compared.

    A model with repeated blocks is compared at their outputs, at adapted layers inside them, and at what comes before,
    between and after: parts with at most as many layers as a block count as one. See `repeated_blocks`.

    Otherwise, the innermost layers are compared; see `innermost_layers`.

    Args:
        usable: Names of layers that can be compared, in execution order.
        layers: All modules, by name.
        outputs: The layers' outputs in the dry run.
        adapters: Names of layers that adapt another one; see `lightning_cka.probe.adapters`.
    """
    leaves = innermost_layers(usable, layers, outputs, adapters)
    filled = {name for name in usable if name not in adapters and _contains_layers(name, layers)}
    blocks = repeated_blocks([name for name in usable if name in filled], layers, outputs)
    if not blocks:
        return leaves
    whole = [*blocks, *_parts(filled, blocks, leaves, adapters)]
    chosen = {*whole, *(name for name in leaves if name in adapters or not is_inside(name, whole))}
    return [name for name in usable if name in chosen]


def _parts(
    filled: Collection[str], blocks: Collection[str], leaves: Collection[str], adapters: Collection[str]
) -> list[str]:
    """Return the parts of a model around its blocks that are no larger than a block."""
    num_leaves = {name: sum(is_inside(leaf, [name]) for leaf in leaves) for name in filled}
    largest = max(num_leaves[block] for block in blocks)
    parts: list[str] = []
    for name in sorted(filled, key=lambda name: name.count(".")):
        is_apart = (
            name not in blocks and not is_inside(name, [*blocks, *parts, *adapters]) and not contains(name, blocks)
        )
        if is_apart and 0 < num_leaves[name] <= largest:
            parts.append(name)
    return parts


def innermost_layers(
    usable: Sequence[str],
    layers: Mapping[str, nn.Module],
    outputs: Mapping[str, LayerOutput],
    adapters: Collection[str],
) -> list[str]:
    """Return the innermost layers among those that can be compared.

    Attention that uses its children's weights itself, or a mixture of experts whose experts have no row per sample,
    counts as one layer. A module that owns parameters beside such layers counts too, if its output is not that of one
    of them. An adapter counts instead of the layers inside it.

    Args:
        usable: See `default_layers`, as for the other arguments.
        layers: All modules, by name.
        outputs: The layers' outputs in the dry run.
        adapters: Names of layers that adapt another one.
    """
    hidden = {name for name in usable if any(name.startswith(f"{adapter}.") for adapter in adapters)}
    visible = [name for name in usable if name not in hidden]
    chosen = []
    for name in visible:
        inner = _inside(layers[name], visible, layers)
        adds = any(True for _ in layers[name].parameters(recurse=False)) and not _is_repeated(name, inner, outputs)
        if name in adapters or not inner or adds:
            chosen.append(name)
    return chosen


def not_covered(
    names: Collection[str], chosen: Collection[str], layers: Mapping[str, nn.Module], outputs: Collection[str]
) -> list[str]:
    """Return which layers to tell that they are left out: not those that never run as a part of a chosen one."""
    inner = {id(module) for name in chosen for module in layers[name].modules()}
    return [name for name in names if name in outputs or id(layers[name]) not in inner]


def _contains_layers(name: str, layers: Mapping[str, nn.Module]) -> bool:
    """Whether a layer contains modules with parameters, other than parametrizations."""
    children = [(key, child) for key, child in layers[name].named_children() if key != "parametrizations"]
    return any(True for _, child in children for _ in child.parameters())


def _inside(module: nn.Module, names: Collection[str], layers: Mapping[str, nn.Module]) -> list[str]:
    """Return the names of the layers inside a module, under whatever name it is found there."""
    inner = {id(child) for child in module.modules()} - {id(module)}
    return [name for name in names if id(layers[name]) in inner]


def _is_repeated(name: str, inner: Collection[str], outputs: Mapping[str, LayerOutput]) -> bool:
    """Whether a layer's output is that of a layer inside it."""
    values = outputs[name].values
    others = [outputs[other].values for other in inner if outputs[other].shape == outputs[name].shape]
    return any(values is not None and other is not None and bool((values == other).all()) for other in others)
