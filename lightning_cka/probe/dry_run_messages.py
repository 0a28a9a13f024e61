"""What the dry run tells the user about layers and models that cannot be used."""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import nn

from lightning_cka.probe.observe import Output
from lightning_cka.runtime.text import shortened


def layer_problem(name: str, module: nn.Module, output: Output | None, fewer: Output | None, n: int) -> tuple[str, str]:
    """What cannot be compared, and why."""
    if output is None:
        return f"layer '{name}' ({type(module).__name__})", "did not run in forward"
    what = f"the output of layer '{name}' ({output.description})"
    if output.shape is None:
        return what, "has no floating-point tensor of one dimension or more"
    folded = _why_folded(output.shape, fewer.shape if fewer else None, n)
    return what, f"has no dimension with one entry per sample{folded}"


def join_problems(problems: Iterable[tuple[str, str]]) -> str:
    """Each reason once."""
    reasons: dict[str, list[str]] = {}
    for what, reason in problems:
        reasons.setdefault(reason, []).append(what)
    # Of several outputs, the verb is another one.
    return "; ".join(
        f"{shortened(what)} {re.sub('^has ', 'have ', reason) if len(what) > 1 else reason}"
        for reason, what in reasons.items()
    )


def _why_folded(shape: tuple[int, ...], fewer: tuple[int, ...] | None, n: int) -> str:
    """What the first dimension seems to be, if it depends on the samples."""
    if not fewer or fewer[0] >= shape[0]:
        return ""
    each, rest = divmod(shape[0], n)
    if rest or fewer[0] != each * (n - 1):
        return (
            f": its first has {shape[0]} for {n} samples and {fewer[0]} for {n - 1}, as if nodes or tokens of all "
            "samples were in a row. To pool them by sample, let forward_fn= keep the batch's index of each row's "
            "sample, for a feature_fn= that uses it"
        )
    return (
        f": its first has {each} for each, as if windows or nodes of all samples were in a row. If so, compare such "
        f"layers alone, with feature_fn=lambda output: output.unflatten(0, (-1, {each})).flatten(1)"
    )
