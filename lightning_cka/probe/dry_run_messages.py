"""Messages of the dry run about layers that cannot be compared."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from torch import nn

from lightning_cka.probe.dry_run_outputs import LayerOutput
from lightning_cka.probe.row_layout import Folding, find_folding
from lightning_cka.runtime.module_names import takes_hooks
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
        return Problem(f"layer '{name}' ({type(module).__name__})", _why_no_output(module))
    subject = f"the output of layer '{name}' ({output.description})"
    if output.is_complex:
        return Problem(subject, "is complex: compare such layers alone, with feature_fn=torch.view_as_real")
    if output.shape is None:
        return Problem(subject, "has no floating-point tensor of one dimension or more")
    hint = _ONE_SAMPLE_HINT if n == 1 else _expert_hint(output.shape, n) or _folding_hint(output, fewer, n)
    return Problem(subject, f"has no dimension with one entry per sample{hint}")


def _why_no_output(module: nn.Module) -> str:
    if not takes_hooks(module):
        return "takes no forward hooks, since it is compiled code"
    # ModuleList and ModuleDict have no forward. Others may only be iterated over.
    has_layers = any(True for _ in module.children())
    hint = ": choose the layers inside it, with a pattern such as 'NAME.*'" if has_layers else ""
    return f"did not run in forward{hint}"


def order_problem(name: str, output: LayerOutput) -> Problem:
    """Describe a layer whose rows are in another order than the samples."""
    return Problem(
        f"the output of layer '{name}' ({output.description})",
        "has its rows in another order than the samples, as if they were sorted or shuffled: restore the order with "
        "feature_fn= or forward_fn=, or compare a layer after which it is restored",
    )


def shapes_problem(name: str, output: LayerOutput) -> Problem:
    """Describe a layer whose calls in one forward pass cannot be averaged."""
    return Problem(
        f"layer '{name}' ({output.calls} calls)",
        f"gave outputs of unequal shapes, such as {output.shape} and {output.other_shape}, which call='mean' cannot "
        "average: use call='first' or call='last'",
    )


def join_problems(problems: Iterable[Problem]) -> str:
    """Join problems to one text, which states each reason once."""
    subjects: dict[str, list[str]] = {}
    for subject, reason in problems:
        subjects.setdefault(reason, []).append(subject)
    return "; ".join(f"{shortened(names)} {_verb_phrase(reason, len(names))}" for reason, names in subjects.items())


_PLURALS = {"has": "have", "is": "are"}


def _verb_phrase(reason: str, num_subjects: int) -> str:
    return re.sub("^(has|is) ", lambda found: _PLURALS[found[1]] + " ", reason) if num_subjects > 1 else reason


_ONE_SAMPLE_HINT = (
    ": of a batch of one sample, only the first dimension can be that. Pass batches of two or more samples, which show "
    "other batch dimensions, or a feature_fn= that returns (n, features)"
)


def _expert_hint(shape: tuple[int, ...], n: int) -> str:
    """Explain a first dimension that is too short for all samples, in an output of several rows."""
    if len(shape) < 2 or shape[0] >= n:
        return ""
    return (
        f": its first has {shape[0]} for {n} samples. If the layer gets some of the samples only, as an expert that a "
        "router chooses, compare the module that joins the experts' outputs"
    )


def _folding_hint(output: LayerOutput, other: LayerOutput | None, n: int) -> str:
    """Explain the first dimension, if its size depends on the number of samples."""
    shape, fewer = output.shape or (), (other.shape if other else None)
    if not fewer or fewer[0] >= shape[0]:
        return ""
    per_sample, rest = divmod(shape[0], n)
    if rest or fewer[0] != per_sample * (n - 1):
        return (
            f": its first has {shape[0]} for {n} samples and {fewer[0]} for {n - 1}, as if nodes or tokens of all "
            "samples were in a row. To pool them by sample, let forward_fn= keep the batch's index of each row's "
            "sample, for a feature_fn= that uses it"
        )
    rows, advice = _FOLDINGS[_folding(output, other, n)]
    return f": its first has {per_sample} for each, {rows}. {advice.format(k=per_sample)}"


_FOLDINGS = {
    Folding.BY_SAMPLE: (
        "those of a sample in a row, as windows are",
        "Compare such layers alone, with feature_fn=lambda output: output.unflatten(0, (-1, {k})).flatten(1)",
    ),
    Folding.BY_VIEW: (
        "first one of all samples, then the next of all, as torch.cat of several views gives them",
        (
            "Compare such layers alone, with feature_fn=lambda output: output.unflatten(0, ({k}, -1)).transpose(0, 1)"
            ".flatten(1)"
        ),
    ),
    Folding.UNKNOWN: (
        "in an order that cannot be told from the values",
        "If you know it, compare such layers alone, with a feature_fn= that returns (n, features)",
    ),
}


def _folding(output: LayerOutput, fewer: LayerOutput | None, n: int) -> Folding:
    if output.values is None or fewer is None or fewer.values is None:
        return Folding.UNKNOWN
    return find_folding(output.values, fewer.values, n)
