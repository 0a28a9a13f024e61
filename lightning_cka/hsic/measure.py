"""`Measure`: a similarity of layers, which is the cosine between vectors that are made of their Gram matrices."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite
from numbers import Real
from typing import ClassVar

from torch import Tensor

from lightning_cka.hsic.check_kernels import check_feature_kernel
from lightning_cka.hsic.entry_positions import folded_positions
from lightning_cka.hsic.kernel_grams import apply_kernel
from lightning_cka.hsic.kernels import Kernel, kernel_name, needs_median
from lightning_cka.hsic.packed import PackedGrams
from lightning_cka.hsic.products import Vectors, hsic_vectors

_TITLES = {"cka": "CKA", "mutual_knn": "mutual kNN", "rsa": "RSA", "ridge": "ridge CKA"}
"""Names of measures in texts and figures, by their keys."""


class Measure(ABC):
    """A similarity of layers: the cosine between one vector per layer, summed over batches before dividing.

    For each batch, the vectors are made of the linear Gram matrices. If v and w are the vectors of two layers, the
    similarity is sum <v, w> / sqrt(sum <v, v> sum <w, w>), where the sums are over batches.
    """

    key: ClassVar[str]
    """Name in logged keys and in names of files, without parameters."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Return the name in results, with parameters that are not the defaults."""

    @property
    def title(self) -> str:
        """Return the name in texts and figures."""
        return measure_title(self.name)

    @property
    def kernel(self) -> str:
        """Return the name of the kernel; "linear" for measures without one."""
        return "linear"

    @property
    def is_unbiased(self) -> bool:
        """Return whether unrelated layers have a similarity of 0 on average."""
        return True

    @property
    def needs_median(self) -> bool:
        """Return whether the median distance of all batches fixes a bandwidth."""
        return False

    def grams(self, linear: PackedGrams, medians: Tensor | None = None) -> PackedGrams:  # noqa: ARG002  # `CKA` needs it.
        """Return the Gram matrices that `vectors` takes: the linear ones, or for CKA those of the kernel.

        Args:
            linear: Linear Gram matrices of L layers on one batch.
            medians: Median squared distances that fix bandwidths, ``(L,)``; None: those of this batch.
        """
        return linear

    @abstractmethod
    def vectors(self, grams: PackedGrams) -> Vectors:
        """Return the vectors of L layers on one batch, from the Gram matrices that `grams` returned."""

    @abstractmethod
    def positions(self, n: int) -> Tensor:
        """Return where a vector of n samples holds the entries of a matrix, ``(n, n)``; see `permuted_products`."""

    @abstractmethod
    def weight(self, n: int) -> float:
        """Return the weight of a batch of n samples in the sums: the expected <v, v> is about a multiple of it."""

    def check(self, n: int) -> None:  # noqa: B027 -- Most measures have nothing to check.
        """Check that the measure can be computed from batches of n samples.

        Raises:
            ValueError: It cannot.
        """


@dataclass(frozen=True)
class CKA(Measure):
    """CKA: the vector is the centered Gram matrix of a kernel.

    Args:
        kernel: The kernel.
        unbiased: Whether Gram matrices are U-centered; else they are doubly centered.
    """

    kernel_function: Kernel = "linear"
    unbiased: bool = True

    key: ClassVar[str] = "cka"

    @property
    def name(self) -> str:
        """Return "cka": results have the kernel in an attribute of its own."""
        return self.key

    @property
    def kernel(self) -> str:
        """Return the name of the kernel."""
        return kernel_name(self.kernel_function)

    @property
    def is_unbiased(self) -> bool:
        """Return whether the unbiased HSIC is used."""
        return self.unbiased

    @property
    def needs_median(self) -> bool:
        """Return whether the kernel has a bandwidth."""
        return needs_median(self.kernel_function)

    def grams(self, linear: PackedGrams, medians: Tensor | None = None) -> PackedGrams:
        """Return the kernel's Gram matrices; see `apply_kernel`."""
        return apply_kernel(self.kernel_function, linear, medians, unbiased=self.unbiased)

    def check(self, n: int) -> None:
        """Check the kernel on n points; see `check_feature_kernel`."""
        check_feature_kernel(self.kernel_function, n)

    def vectors(self, grams: PackedGrams) -> Vectors:
        """Return the vectors of the kernel's Gram matrices; see `half_vectors`."""
        return hsic_vectors(grams, unbiased=self.unbiased)

    def positions(self, n: int) -> Tensor:
        """Return the positions in the folded layout; vectors of the biased HSIC have the diagonal, too."""
        return folded_positions(n, has_diagonal=not self.unbiased)

    def weight(self, n: int) -> float:
        """Return what the estimator of the HSIC divides by."""
        return n * (n - 3) if self.unbiased else (n - 1) ** 2


def with_parameters(key: str, *parameters: str) -> str:
    """Return a measure's name with the parameters that are not the defaults."""
    return f"{key}({', '.join(parameters)})" if parameters else key


def shared_title(names: Iterable[str]) -> str:
    """Return the title that all measures have, from their names in results, or "similarity" if they differ."""
    titles = set(map(measure_title, names))
    return titles.pop() if len(titles) == 1 else "similarity"


def measure_title(name: str) -> str:
    """Return a measure's name in texts and figures, from its name in results."""
    key, bracket, parameters = name.partition("(")
    return f"{_TITLES.get(key, key)}{' (' if bracket else ''}{parameters}"


def part_of_one(owner: str, argument: str, value: object) -> float:
    """Return a number between 0 and 1, both excluded.

    Raises:
        ValueError: The value is not between 0 and 1.
        TypeError: The value is not a number.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{owner}: {argument} must be a number, but is a {type(value).__name__}")
    number = float(value)
    if not (isfinite(number) and 0 < number < 1):
        raise ValueError(f"{owner}: {argument} must be between 0 and 1, but is {number:g}")
    return number
