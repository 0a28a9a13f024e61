"""Decide which layers of a dry run can be compared: each sample needs a row, in the order of the samples."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor, nn

from lightning_cka.probe.batch_part import some_samples
from lightning_cka.probe.dry_run_messages import Problem, layer_problem, order_problem, shapes_problem
from lightning_cka.probe.dry_run_outputs import DryRunOutputs, LayerOutput
from lightning_cka.probe.forward import Call
from lightning_cka.probe.row_layout import RowOrder, find_row_order


def check_outputs(
    names: Collection[str], layers: Mapping[str, nn.Module], seen: DryRunOutputs, call: Call
) -> tuple[dict[str, int], dict[str, Problem]]:
    """Return the batch dimension of each layer that can be compared, and the problems of the others."""
    n, outputs, fewer = seen.num_samples, seen.outputs, seen.fewer
    others = (fewer, n - 1) if fewer else (seen.part, len(some_samples(n)))
    batch_dims, problems = {}, {}
    for name in names:
        dim = _batch_dim(outputs.get(name), others[0].get(name), n, others[1])
        if dim is None:
            problems[name] = layer_problem(name, layers[name], outputs.get(name), fewer.get(name), n)
        elif _is_permuted(name, dim, seen):
            problems[name] = order_problem(name, outputs[name])
        elif call == "mean" and outputs[name].other_shape is not None:
            problems[name] = shapes_problem(name, outputs[name])
        else:
            batch_dims[name] = dim
    return batch_dims, problems


def _batch_dim(output: LayerOutput | None, other: LayerOutput | None, n: int, m: int) -> int | None:
    """Return the first dimension that has size n for all n samples and size m for m of them."""
    if output is None or output.shape is None:
        return None
    if other is None or other.shape is None or len(other.shape) != len(output.shape):
        return 0 if output.shape[:1] == (n,) else None
    sizes = enumerate(zip(output.shape, other.shape, strict=True))
    return next((dim for dim, pair in sizes if pair == (n, m)), None)


def _is_permuted(name: str, dim: int, seen: DryRunOutputs) -> bool:
    """Whether the rows of a layer are known to be in another order than the samples."""
    n = seen.num_samples
    full = _rows(seen.outputs[name], dim, n)
    for outputs, samples in ((seen.fewer, range(n - 1)), (seen.part, some_samples(n))):
        rows = _rows(outputs.get(name), dim, len(samples))
        if full is not None and rows is not None and find_row_order(full, rows, samples) is RowOrder.PERMUTED:
            return True
    return False


def _rows(output: LayerOutput | None, dim: int, num_samples: int) -> Tensor | None:
    """Return the kept values with the batch dimension first; None if it has another size."""
    if output is None or output.shape is None or output.values is None or output.shape[dim] != num_samples:
        return None
    return output.values.movedim(dim, 0)
