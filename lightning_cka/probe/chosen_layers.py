"""Tell which layers are compared, and point out patterns that seem to have missed some."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import nn

from lightning_cka.probe.layer_patterns import across_dots, names_matching, stops_before_ten
from lightning_cka.probe.layers import LayerPlan, LayerSelector, is_default, match_layers
from lightning_cka.runtime.module_names import named_layers
from lightning_cka.runtime.text import shortened

_MIN_RUN = 3
"""Smallest number of names that differ in their numbers only, of which only the first and the last are logged."""


def announce_layers(
    plan: LayerPlan, model: nn.Module, selectors: tuple[LayerSelector, ...] | None, subject: str = "layers"
) -> None:
    """Log in one line which layers are compared, and warn about patterns that seem to have missed some.

    Args:
        plan: The layers that a dry run found.
        model: The model.
        selectors: The selection; see `lightning_cka.probe.layers.check_layers`.
        subject: What the layers are, in words.
    """
    names = list(named_layers(model))
    number = len(plan.names)
    remark = "the default layers; layers= chooses others"
    if selectors is not None and not is_default(selectors, names):
        remark = "; ".join([f"of {len(match_layers(model, selectors))} that match", *_wider(selectors, names)])
    rank_zero_info(f"CKA of {number} {subject if number > 1 else 'layer'}: {in_short(plan.names)} ({remark})")
    point_out_missed(selectors or (), names)


def point_out_missed(selectors: Sequence[LayerSelector], names: Collection[str], *, stacklevel: int = 4) -> None:
    """Warn about patterns that stop at 9 where there is a 10, as ``block.?`` does. Only rank 0 warns.

    Args:
        selectors: The selection.
        names: The names of all layers.
        stacklevel: Place of the warning, as in `rank_zero_warn`. 4: the caller of this function.
    """
    patterns = [selector for selector in selectors if isinstance(selector, str)]
    found = {name for pattern in patterns for name in names_matching(pattern, names)}
    for pattern in patterns:
        missed = [m for m in stops_before_ten(pattern, names_matching(pattern, names), names) if m not in found]
        if missed:
            wider = re.sub(r"\?+|\[[^]]*\]", "*", pattern)
            rank_zero_warn(
                f"layer pattern {pattern!r} leaves out {shortened(missed)}: '?' and [...] are one character. "
                f"{wider!r} takes any number",
                stacklevel=stacklevel,
            )


def in_short(names: Sequence[str]) -> str:
    """Return names in one line, with only the first and the last of those that differ in their numbers only."""
    families: dict[str, list[str]] = {}
    for name in names:
        families.setdefault(re.sub(r"[0-9]+", "*", name), []).append(name)
    parts: list[str] = []
    for members in families.values():
        first, last = members[0], members[-1]
        if len(members) < _MIN_RUN:
            parts += members
            continue
        prefix = re.sub(r"[0-9]+$", "", first)
        parts.append(f"{first} ... {last if first == prefix else last.removeprefix(prefix)}")
    return shortened(parts)


def _wider(selectors: Sequence[LayerSelector], names: Collection[str]) -> list[str]:
    """Tell how much more patterns would match across dots, as they did in earlier versions."""
    remarks = []
    for selector in selectors:
        if isinstance(selector, str) and (found := names_matching(selector, names)):
            wider = across_dots(selector)
            more = len(set(names_matching(wider, names)) - set(found))
            remarks += [f"{wider!r} would match {more} more"] * (more > 0)
    return remarks
