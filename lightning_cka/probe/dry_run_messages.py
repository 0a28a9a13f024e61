"""Messages of the dry run about layers that cannot be compared."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from torch import nn

from lightning_cka.probe.dry_run_outputs import LayerOutput
from lightning_cka.runtime.text import shortened


class Problem(NamedTuple):
    """Why a layer cannot be compared."""

    subject: str
    """The layer or its output."""
    reason: str
    """A verb phrase, which completes the sentence."""


def layer_problem(
    name: str, module: nn.Module, output: LayerOutput | None, fewer: LayerOutput | None, n: int
) -> Problem:
    """Describe why a layer cannot be compared.

    Args:
        name: Name of the layer.
        module: The layer.
        output: Its output for n samples; None if it did not run.
        fewer: Its output for n - 1 samples.
        n: Number of samples.
    """
    if output is None:
        return Problem(f"layer '{name}' ({type(module).__name__})", "did not run in forward")
    subject = f"the output of layer '{name}' ({output.description})"
    if output.is_complex:
        return Problem(subject, "is complex: compare such layers alone, with feature_fn=torch.view_as_real")
    if output.shape is None:
        return Problem(subject, "has no floating-point tensor of one dimension or more")
    hint = _expert_hint(output.shape, n) or _folding_hint(output.shape, fewer.shape if fewer else None, n)
    return Problem(subject, f"has no dimension with one entry per sample{hint}")


def join_problems(problems: Iterable[Problem]) -> str:
    """Join problems to one text, which states each reason once."""
    subjects: dict[str, list[str]] = {}
    for subject, reason in problems:
        subjects.setdefault(reason, []).append(subject)
    return "; ".join(f"{shortened(names)} {_verb_phrase(reason, len(names))}" for reason, names in subjects.items())


_PLURALS = {"has": "have", "is": "are"}


def _verb_phrase(reason: str, num_subjects: int) -> str:
    return re.sub("^(has|is) ", lambda found: _PLURALS[found[1]] + " ", reason) if num_subjects > 1 else reason


def _expert_hint(shape: tuple[int, ...], n: int) -> str:
    """Explain a first dimension that is too short for all samples, in an output of several rows."""
    if len(shape) < 2 or shape[0] >= n:
        return ""
    return (
        f": its first has {shape[0]} for {n} samples. If the layer gets some of the samples only, as an expert that a "
        "router chooses, compare the module that joins the experts' outputs"
    )


def _folding_hint(shape: tuple[int, ...], fewer: tuple[int, ...] | None, n: int) -> str:
    """Explain the first dimension, if its size depends on the number of samples."""
    if not fewer or fewer[0] >= shape[0]:
        return ""
    per_sample, rest = divmod(shape[0], n)
    if rest or fewer[0] != per_sample * (n - 1):
        return (
            f": its first has {shape[0]} for {n} samples and {fewer[0]} for {n - 1}, as if nodes or tokens of all "
            "samples were in a row. To pool them by sample, let forward_fn= keep the batch's index of each row's "
            "sample, for a feature_fn= that uses it"
        )
    return (
        f": its first has {per_sample} for each, as if windows or nodes of all samples were in a row. If so, compare "
        f"such layers alone, with feature_fn=lambda output: output.unflatten(0, (-1, {per_sample})).flatten(1)"
    )
