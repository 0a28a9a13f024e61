"""Check the measures that a user passes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from lightning_cka.hsic.check_kernels import check_feature_kernel, check_kernels
from lightning_cka.hsic.distance_ranks import RSA
from lightning_cka.hsic.hat_matrices import Ridge
from lightning_cka.hsic.kernels import Kernel
from lightning_cka.hsic.measure import CKA, Measure
from lightning_cka.hsic.neighbors import MutualKNN

OneMeasure = str | Measure
"""A name or a measure with its parameters."""

Measures = OneMeasure | Sequence[OneMeasure]
"""One measure, or several."""

_NAMED: Mapping[str, Measure] = {measure.key: measure for measure in (MutualKNN(), RSA(), Ridge())}


def is_one(measures: Any) -> bool:
    """Return whether one measure was given, so that there is one result and not a mapping of results."""
    return isinstance(measures, OneMeasure)


def check_measures(
    measures: Measures, kernel: Kernel | Sequence[Kernel] = "linear", *, unbiased: bool = True
) -> dict[str, Measure]:
    """Return one or several measures by distinct names.

    Args:
        measures: Names, `Measure`s, or a container of them.
        kernel: Kernel of "cka", or several. With several, "cka" stands for all of them.
        unbiased: Whether "cka" uses the unbiased HSIC.

    Returns:
        Measures by name: their keys, with a number if a key occurs twice, such as "mutual_knn-2". CKA has the name of
        its kernel if it is the only measure or if there are several kernels.

    Raises:
        ValueError: A measure or a kernel is unknown, one is given twice, there is none, or a kernel or
            ``unbiased=False`` is given without "cka".
        TypeError: A measure or a kernel has another type.
    """
    chosen = [measures] if is_one(measures) else _listed(measures)
    kernels = check_kernels(kernel)
    if not chosen:
        raise ValueError("measures is empty; expected at least one measure")
    has_cka = CKA.key in chosen or any(isinstance(each, CKA) for each in chosen)
    if not has_cka and (list(kernels) != ["linear"] or not unbiased):
        raise ValueError("kernel= and unbiased= belong to the measure 'cka', which is not among measures=")
    named: dict[str, Measure] = {}
    for base, measure in _with_bases(chosen, kernels, unbiased=unbiased):
        if measure in named.values():
            raise ValueError(f"measure {measure.title!r} is given twice")
        name = next(n for n in (base, *(f"{base}-{i}" for i in range(2, len(named) + 3))) if n not in named)
        named[name] = measure
    return named


def _with_bases(
    chosen: Sequence[Any], kernels: Mapping[str, Kernel], *, unbiased: bool
) -> Iterator[tuple[str, Measure]]:
    """Yield the measures with their names, of which several may be the same."""
    uses_kernels = len(kernels) > 1 or len(chosen) == 1
    for each in chosen:
        if each == CKA.key:
            for name, kernel in kernels.items():
                yield name if uses_kernels else CKA.key, CKA(kernel, unbiased)
        else:
            measure = _resolve(each)
            yield measure.kernel if isinstance(measure, CKA) and uses_kernels else measure.key, measure


def measures_of_features(measures: Measures, kernel: Kernel, *, unbiased: bool) -> dict[str, Measure]:
    """Return measures by name, with one kernel; see `check_measures`.

    Raises:
        TypeError: There are several kernels.
    """
    check_feature_kernel(kernel)
    return check_measures(measures, kernel, unbiased=unbiased)


def check_sizes(measures: Mapping[str, Measure], sizes: Iterable[int]) -> None:
    """Check that measures can be computed from batches of these sizes; see `Measure.check`."""
    for n in sorted(set(sizes)):
        for measure in measures.values():
            measure.check(n)


def _resolve(measure: Any) -> Measure:
    if isinstance(measure, Measure):
        return measure
    if not isinstance(measure, str):
        raise TypeError(f"a measure must be a name, MutualKNN(...), RSA() or Ridge(...), but is {measure!r}")
    if measure not in _NAMED:
        raise ValueError(f"unknown measure {measure!r}; expected one of {sorted([CKA.key, *_NAMED])}")
    return _NAMED[measure]


def _listed(measures: Any) -> list[Any]:
    """Return the measures in a container. Those of a set are sorted: its order may differ between processes."""
    if not isinstance(measures, Iterable):
        return [measures]
    if isinstance(measures, set | frozenset):
        return sorted(measures, key=lambda each: getattr(each, "name", str(each)))
    return list(measures)
