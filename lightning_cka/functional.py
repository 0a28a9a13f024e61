"""Centered Gram matrices, HSIC and CKA of single batches: tensors in, tensors out.

Notation: ``n`` samples, ``d`` features, ``K = X X^T`` the linear Gram matrix of centered features.
Sources: Kornblith et al. 2019 (https://arxiv.org/abs/1905.00414) for CKA; Song et al. 2012
(https://jmlr.org/papers/v13/song12a.html) and Székely & Rizzo 2014
(https://arxiv.org/abs/1310.2926) for the unbiased estimator and U-centering.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

MIN_SAMPLES = 4
"""The unbiased HSIC divides by n - 3."""

# A chunk of centered features should stay in a CPU core's cache; an accelerator wants larger products.
_CHUNK_BYTES_CPU = 2 * 2**20
_CHUNK_BYTES_ACCELERATOR = 64 * 2**20
_PAIR_BLOCK = 4096
# Above the diagonal the product would be computed twice; smaller blocks than this are slower than that.
_ROWS_CPU = 64


class PackedGrams(NamedTuple):
    """The Gram matrices of L layers on one batch of n samples, each entry kept once.

    The U-centered off-diagonal part is what HSIC needs; with the diagonal of the centered Gram matrix
    beside it, the centered Gram matrix itself can be had back (`unpack`).
    """

    halves: Tensor
    """(L, n(n-1)/2): strictly lower triangles of the U-centered Gram matrices, row by row."""
    diagonals: Tensor
    """(L, n): diagonals of the centered Gram matrices, the squared norms of the centered samples."""
    scales: Tensor
    """(L,): powers of 2. The matrices are those of features / scale, so that none leaves float32's range."""

    @property
    def num_samples(self) -> int:
        """The batch size n."""
        return int(self.diagonals.shape[-1])


class Workspace:
    """Memory that is used again from batch to batch: fresh pages cost more than small products."""

    def __init__(self) -> None:
        self._memory: dict[tuple[str, torch.dtype, torch.device], Tensor] = {}

    def matrix(self, name: str, rows: int, columns: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """A ``(rows, columns)`` matrix of any content, in the memory of that name."""
        key = (name, dtype, device)
        if key not in self._memory or len(self._memory[key]) < rows * columns:
            self._memory[key] = torch.empty(rows * columns, dtype=dtype, device=device)
        return self._memory[key][: rows * columns].view(rows, columns)


def centered_gram(features: Tensor) -> Tensor:
    """Linear Gram matrix of features centered over the batch.

    Centering comes before the product, so that a large mean costs no digits. Half precision is
    multiplied in float32, and neither autocast nor a reduced ``float32_matmul_precision`` applies.

    Args:
        features: ``(n, ...)`` floating-point activations; all dimensions but the first are features.

    Returns:
        ``(n, n)`` doubly centered Gram matrix ``K``, float64 for float64 features and float32 otherwise.

    Raises:
        TypeError: the features are not a real floating-point tensor.
        ValueError: the features have no batch dimension.

    Example:
        >>> import torch
        >>> centered_gram(torch.tensor([[0.0], [1.0], [2.0]]))
        tensor([[ 1.,  0., -1.],
                [ 0.,  0.,  0.],
                [-1.,  0.,  1.]])
    """
    gram, scale = lower_gram(features, Workspace())
    return _mirrored(gram) * scale**2


def lower_gram(features: Tensor, workspace: Workspace) -> tuple[Tensor, Tensor]:
    """The lower triangle of the `centered_gram` of features / scale, and the scale.

    Returns:
        An ``(n, n)`` matrix of which the strictly upper triangle means nothing, made in the workspace and
        overwritten by the next call with that; and a scalar, the power of 2 nearest to the features' size.
    """
    _check_floating(features)
    if features.ndim == 0:
        raise ValueError("features must have shape (n, ...), but came as a scalar")
    # The Gram matrix does not depend on the order of the features: the order in memory needs no copy.
    by_stride = sorted(range(1, features.ndim), key=features.stride, reverse=True)
    flat = features.detach().permute(0, *by_stride).reshape(features.shape[0], -1)
    dtype = torch.float64 if flat.dtype == torch.float64 else torch.float32
    n, d = flat.shape
    budget = _CHUNK_BYTES_CPU if flat.device.type == "cpu" else _CHUNK_BYTES_ACCELERATOR
    width = max(1, min(d, budget // max(1, n * dtype.itemsize)))
    rows = _ROWS_CPU if flat.device.type == "cpu" and n >= 4 * _ROWS_CPU else max(1, n)
    gram = workspace.matrix("gram", n, n, dtype, flat.device).zero_()
    mean_square = torch.zeros((), dtype=dtype, device=flat.device)
    scale = torch.ones((), dtype=dtype, device=flat.device)
    with _full_precision(flat.device.type):
        for start in range(0, d, width):
            chunk = flat[:, start : start + width]
            mean = chunk.mean(dim=0, dtype=dtype)
            if start == 0:
                scale = _magnitude(mean, chunk[0].to(dtype))
            mean = mean / scale
            centered = workspace.matrix("chunk", n, len(mean), dtype, flat.device)
            # A product with a power of 2 is exact: this is (chunk - mean) / scale in one pass.
            torch.addcmul(-mean, chunk.to(dtype), 1 / scale, out=centered)
            for row in range(0, n, rows):
                gram[row : row + rows, : row + rows].addmm_(centered[row : row + rows], centered[: row + rows].T)
            mean_square += mean.dot(mean)
    return gram.mul_(_exceeds_rounding(gram.trace().sqrt(), (n * mean_square).sqrt())), scale


def _magnitude(*vectors: Tensor) -> Tensor:
    """A power of 2 of the size of the largest entry; 1 if there is none but zero."""
    largest = torch.stack([vector.abs().amax() for vector in vectors]).amax()
    exponent = torch.frexp(largest).exponent
    # Beyond these, the power or its inverse would leave float32's range.
    return torch.ldexp(torch.ones_like(largest), exponent.clamp(-120, 120))


def _mirrored(lower: Tensor) -> Tensor:
    lower = lower.tril()
    return lower + lower.tril(-1).T


def u_centered(gram: Tensor) -> Tensor:
    """U-centered Gram matrix: off-diagonal rows sum to zero and the diagonal is zero.

    Args:
        gram: ``(..., n, n)`` symmetric Gram matrices, centered or not, n >= 4.

    Returns:
        ``(..., n, n)`` U-centered matrices, in the dtype of ``gram``.
    """
    n = gram.shape[-1]
    off_diagonal = gram - torch.diag_embed(gram.diagonal(dim1=-2, dim2=-1))
    rows = off_diagonal.sum(-1) / (n - 2)
    shift = rows - rows.sum(-1, keepdim=True) / (2 * (n - 1))
    centered = off_diagonal - shift[..., :, None] - shift[..., None, :]
    centered.diagonal(dim1=-2, dim2=-1).zero_()
    return _zero_if_rounding(centered, off_diagonal)


def unbiased_hsic(x_gram: Tensor, y_gram: Tensor) -> Tensor:
    """Unbiased estimator of HSIC (HSIC_1 of Song et al. 2012) from two Gram matrices.

    Args:
        x_gram: ``(n, n)`` symmetric Gram matrix, centered or not, n >= 4.
        y_gram: ``(n, n)`` Gram matrix of the same samples.

    Returns:
        Scalar; may be negative.

    Raises:
        ValueError: the shapes differ, are not square, or n < 4.

    Example:
        >>> import torch
        >>> x, y = torch.tensor([0.0, 1.0, 2.0, 4.0]), torch.tensor([0.0, 1.0, 3.0, 3.0])
        >>> unbiased_hsic(centered_gram(x), centered_gram(y))
        tensor(5.)
    """
    n = _check_gram_pair(x_gram, y_gram, MIN_SAMPLES)
    return (u_centered(x_gram) * u_centered(y_gram)).sum() / (n * (n - 3))


def biased_hsic(x_gram: Tensor, y_gram: Tensor) -> Tensor:
    """Biased estimator of HSIC (HSIC_0 of the literature) from two Gram matrices.

    Its bias grows with the number of features and falls with n: values compare across papers, but
    not across batch sizes.

    Args:
        x_gram: ``(n, n)`` symmetric Gram matrix, centered or not, n >= 2.
        y_gram: ``(n, n)`` Gram matrix of the same samples.

    Returns:
        Scalar ``<K, L>_F / (n - 1)^2`` of the doubly centered matrices.

    Raises:
        ValueError: the shapes differ, are not square, or n < 2.
    """
    n = _check_gram_pair(x_gram, y_gram, 2)
    return (_doubly_centered(x_gram) * _doubly_centered(y_gram)).sum() / (n - 1) ** 2


def cka(x: Tensor, y: Tensor, *, kernel: str = "linear", unbiased: bool = True) -> Tensor:
    """CKA of two representations of one batch (Kornblith et al. 2019).

    Args:
        x: ``(n, ...)`` features; ``(n, n)`` Gram matrix with ``kernel="precomputed"``.
        y: likewise, for the same n samples; the number of features may differ.
        kernel: "linear" or "precomputed".
        unbiased: use the unbiased HSIC (n >= 4), which makes small negative values possible.

    Returns:
        Scalar in [-1, 1] (in [0, 1] if biased), up to rounding; ``nan`` if x or y has no variance.

    Raises:
        ValueError: unknown kernel, differing n, or too few samples.

    Example:
        >>> import torch
        >>> x = torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0], [4.0, 1.0]])
        >>> round(cka(x, 3 * x + 7).item(), 5)
        1.0
    """
    if kernel not in ("linear", "precomputed"):
        raise ValueError(f"kernel must be 'linear' or 'precomputed', but is {kernel!r}")
    grams = [z if kernel == "precomputed" else _mirrored(lower_gram(z, Workspace())[0]) for z in (x, y)]
    _check_gram_pair(grams[0], grams[1], MIN_SAMPLES if unbiased else 2)
    center = u_centered if unbiased else _doubly_centered
    # The product of two HSICs of float32 size can be beyond float32. What they are divided by cancels.
    k, ell = (center(gram).to(accumulator_dtype(gram.device)) for gram in grams)
    return ((k * ell).sum() / (k.square().sum() * ell.square().sum()).sqrt()).to(grams[0].dtype)


def empty_packed(
    num_layers: int, n: int, *, dtype: torch.dtype, device: torch.device, workspace: Workspace
) -> PackedGrams:
    """Room for the Gram matrices of ``num_layers`` layers on n samples, in the workspace."""
    return PackedGrams(
        workspace.matrix("halves", num_layers, n * (n - 1) // 2, dtype, device),
        workspace.matrix("diagonals", num_layers, n, dtype, device),
        workspace.matrix("scales", 1, num_layers, dtype, device)[0],
    )


def pack(gram: Tensor, scale: Tensor, *, out: PackedGrams, layer: int) -> None:
    """Write one centered Gram matrix into row ``layer`` of ``out``.

    Args:
        gram: ``(n, n)`` doubly centered Gram matrix, of which the lower triangle is read; it is overwritten.
        scale: of the features that it is of.
        out: receives the result, of the same n.
        layer: the row of ``out``.
    """
    n = gram.shape[-1]
    out.scales[layer] = scale
    diagonal = out.diagonals[layer].copy_(gram.diagonal())
    # Rows of K sum to zero, so that U-centering needs no sums but the trace.
    shift = diagonal / (n - 2) - diagonal.sum() / (2 * (n - 1) * (n - 2))
    gram += shift[:, None]
    gram += shift
    half = out.halves[layer]
    torch.index_select(gram.view(-1), 0, lower_indices(n, gram.device), out=half)
    smallest, largest = half.aminmax()
    half.mul_(_exceeds_rounding(torch.maximum(-smallest, largest), diagonal.amax()))


def pack_stack(grams: Tensor) -> PackedGrams:
    """Pack Gram matrices, centered or not.

    Args:
        grams: ``(L, n, n)`` symmetric matrices, n >= 4.

    Returns:
        Their packed form, in the dtype of ``grams``.
    """
    n = grams.shape[-1]
    halves = u_centered(grams).flatten(1).index_select(1, lower_indices(n, grams.device))
    diagonals = _doubly_centered(grams).diagonal(dim1=-2, dim2=-1).clone()
    return PackedGrams(halves, diagonals, diagonals.new_ones(len(diagonals)))


def unpack(packed: PackedGrams) -> Tensor:
    """The doubly centered Gram matrices ``(L, n, n)`` that were packed, of features / scale."""
    n = packed.num_samples
    d = packed.diagonals
    shift = d / (n - 2) - d.sum(-1, keepdim=True) / (2 * (n - 1) * (n - 2))
    full = packed.halves.new_zeros(len(d), n * n)
    full[:, lower_indices(n, full.device)] = packed.halves
    full = full.view(-1, n, n)
    full = full + full.mT - shift[:, :, None] - shift[:, None, :]
    full.diagonal(dim1=-2, dim2=-1).copy_(d)
    return full


def half_vectors(packed: PackedGrams, *, unbiased: bool) -> Tensor:
    """Vectors whose inner products are the unnormalised HSIC of their layers, scaled.

    Returns:
        ``(L, p)``. With ``unbiased``, ``v_K . v_L = <U_K, U_L>_F / 2``; else ``<K, L>_F / 2``.
    """
    if unbiased:
        return packed.halves
    full = unpack(packed)
    lower = full.flatten(1).index_select(1, lower_indices(packed.num_samples, full.device))
    return torch.cat([lower, packed.diagonals / 2**0.5], dim=1)


def pair_products(x: Tensor, y: Tensor) -> Tensor:
    """All inner products ``<., .>_F`` between the matrices of two sets of half vectors.

    Args:
        x: ``(L, p)`` half vectors.
        y: ``(R, p)`` half vectors.

    Returns:
        ``(L, R)``, accumulated in float64 (float32 on devices without it).
    """
    dtype = accumulator_dtype(x.device)
    total = torch.zeros(len(x), len(y), dtype=dtype, device=x.device)
    with _full_precision(x.device.type):
        for start in range(0, x.shape[1], _PAIR_BLOCK):
            block = x[:, start : start + _PAIR_BLOCK].to(dtype)
            other = block if y is x else y[:, start : start + _PAIR_BLOCK].to(dtype)
            total.addmm_(block, other.T)
    return 2 * total


def squared_norms(x: Tensor) -> Tensor:
    """``(L,)`` of ``<., .>_F`` of each matrix with itself, from its half vectors ``(L, p)``."""
    norms: Tensor = torch.linalg.vector_norm(x, dim=1, dtype=accumulator_dtype(x.device))
    return 2 * norms.square()


def accumulator_dtype(device: torch.device) -> torch.dtype:
    """float64, or float32 on the one device type that lacks it."""
    return torch.float32 if device.type == "mps" else torch.float64


@lru_cache(maxsize=8)
def lower_indices(n: int, device: torch.device) -> Tensor:
    """Flat indices ``(n(n-1)/2,)`` of the strictly lower triangle of an ``(n, n)`` matrix."""
    # A cached tensor made in inference mode could not be used outside it.
    with torch.inference_mode(False):
        rows, columns = torch.tril_indices(n, n, -1, device=device)
        indices: Tensor = rows * n + columns
        return indices


@contextmanager
def _full_precision(device_type: str) -> Iterator[None]:
    """Multiply in the operands' own precision: no autocast, no TF32, no bfloat16 passes."""
    with torch.autocast(device_type, enabled=False):
        if not hasattr(torch.backends.cuda.matmul, "fp32_precision"):  # torch before 2.9
            precision = torch.get_float32_matmul_precision()
            torch.set_float32_matmul_precision("highest")
            try:
                yield
            finally:
                torch.set_float32_matmul_precision(precision)
            return
        # The legacy getter raises once a user has used these newer switches, so read the switches.
        backends: tuple[Any, ...] = (torch.backends.cuda.matmul, cast(Any, torch.backends.mkldnn).matmul)
        reduced = {backend: backend.fp32_precision for backend in backends}
        reduced = {backend: value for backend, value in reduced.items() if value not in ("none", "ieee")}
        try:
            for backend, value in reduced.items():
                backend.fp32_precision = "none"
                if backend.fp32_precision == value:
                    reduced[backend] = "none"  # It was inherited from a more general switch, and shall be again.
                backend.fp32_precision = "ieee"
            yield
        finally:
            for backend, value in reduced.items():
                backend.fp32_precision = value


def _doubly_centered(gram: Tensor) -> Tensor:
    rows = gram.mean(-1, keepdim=True)
    return _zero_if_rounding(gram - rows - rows.mT + rows.mean(-2, keepdim=True), gram)


def _zero_if_rounding(centered: Tensor, gram: Tensor) -> Tensor:
    """``(..., n, n)`` centered matrices, those set to zero that hold nothing but rounding errors."""
    largest, scale = (matrix.abs().amax((-2, -1), keepdim=True) for matrix in (centered, gram))
    return centered * _exceeds_rounding(largest, scale)


def _exceeds_rounding(magnitude: Tensor, scale: Tensor) -> Tensor:
    """Whether a magnitude is more than what rounding leaves of a difference of values of that scale.

    A constant layer less its mean is rarely exactly zero, and the CKA of rounding errors would look
    like any other number. No branch: a branch would make an accelerator wait. False for ``nan``.
    """
    exceeds: Tensor = magnitude > 8 * torch.finfo(magnitude.dtype).eps * scale
    return exceeds


def _check_floating(tensor: Tensor) -> None:
    if not tensor.is_floating_point():
        raise TypeError(f"features must be a real floating-point tensor, but have dtype {tensor.dtype}")


def _check_gram_pair(x_gram: Tensor, y_gram: Tensor, min_samples: int) -> int:
    for gram in (x_gram, y_gram):
        _check_floating(gram)
        if gram.ndim != 2 or gram.shape[0] != gram.shape[1]:
            raise ValueError(f"a Gram matrix must have shape (n, n), but has {tuple(gram.shape)}")
    if x_gram.shape != y_gram.shape:
        raise ValueError(
            f"both Gram matrices must be of the same samples, but have n = {len(x_gram)} and n = {len(y_gram)}"
        )
    if len(x_gram) < min_samples:
        raise ValueError(f"at least {min_samples} samples are needed, but n = {len(x_gram)}")
    return len(x_gram)
