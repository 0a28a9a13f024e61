"""Choose the default layers of a dry run, and tell which layers are left out."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from lightning_cka.probe.default_layers import containers, default_layers, not_covered
from lightning_cka.probe.dry_run_messages import Problem
from lightning_cka.probe.dry_run_outputs import DryRunOutputs
from lightning_cka.probe.thinning import Thinned, thin_out
from lightning_cka.runtime.text import shortened


def choose_default(
    batch_dims: Mapping[str, int],
    problems: dict[str, Problem],
    layers: Mapping[str, nn.Module],
    seen: DryRunOutputs,
    without: Collection[str] = (),
) -> dict[str, int]:
    """Choose the default layers, and leave in ``problems`` what a user should know of.

    Args:
        batch_dims: The batch dimension of each layer that can be compared, in execution order.
        problems: The problems of the others.
        layers: All modules, by name.
        seen: What the dry run found.
        without: Names of layers that the user does not want.

    Returns:
        The batch dimension of each chosen layer.

    Raises:
        ValueError: No layer is left.
    """
    adapters = [name for name in seen.adapters if name in batch_dims]
    usable = list(batch_dims)
    chosen = default_layers(usable, layers, seen.outputs, adapters)
    chosen = _without(chosen, without)
    untold = containers(problems, layers)
    told = not_covered([name for name in problems if name not in untold], chosen, layers, seen.outputs)
    for name in problems.keys() - set(told):
        del problems[name]
    for name in _parts_of_adapters(adapters, usable, layers):
        problems[name] = Problem(f"layer '{name}'", "is a part of an adapted layer, whose output is compared")
    thinned = thin_out(chosen, [name for name in usable if name not in without], layers)
    if thinned.names != chosen:
        _report_thinning(thinned, len({*chosen, *thinned.names}))
    return {name: batch_dims[name] for name in thinned.names}


def _without(chosen: list[str], without: Collection[str]) -> list[str]:
    left = [name for name in chosen if name not in without]
    if chosen and not left:
        raise ValueError(f"all {len(chosen)} default layers are taken away; choose others with layers=")
    return left


def _parts_of_adapters(adapters: list[str], usable: list[str], layers: Mapping[str, nn.Module]) -> list[str]:
    """Return the layers inside adapted layers that contain no layers with parameters."""
    prefixes = tuple(f"{adapter}." for adapter in adapters)
    inside = [name for name in usable if name.startswith(prefixes)]
    return [name for name in inside if not any(True for c in layers[name].children() for _ in c.parameters())]


def _report_thinning(thinned: Thinned, total: int) -> None:
    spread = ", evenly spaced" if thinned.is_spread else ""
    left_out = f", without {shortened(thinned.left_out, 16)}" if thinned.left_out else ""
    rank_zero_info(
        f"CKA compares {len(thinned.names)} of {total} layers{spread}{left_out}; choose others by name pattern or "
        "module class with layers="
    )
