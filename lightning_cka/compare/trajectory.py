"""`trajectories`: the CKA of each layer with itself at the other epochs of a run, from Gram banks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import overload

from lightning_cka.compare.bank_series import check_same_layers_and_probe_set, moment_names, sources_of_run
from lightning_cka.compare.checked_result import one_or_all
from lightning_cka.compare.flags import Thresholds, check_thresholds
from lightning_cka.compare.layer_by_layer import LayerByLayer
from lightning_cka.compare.result import CKAResult
from lightning_cka.hsic.check_measures import Measures, OneMeasure, measures_of_features
from lightning_cka.hsic.kernels import Kernel
from lightning_cka.probe.bank import GramBank, open_bank
from lightning_cka.probe.bank_selection import bank_of_layers
from lightning_cka.probe.layers import Layers

_LEAST_BYTES = 2**29
"""Memory that trajectories may take. If many epochs take more, files are read several times."""


@overload  # A string is a sequence of strings, but one measure: the first signature has it.
def trajectories(  # type: ignore[overload-overlap]
    banks: str | Path | Sequence[str | Path | GramBank],
    layers: Layers = None,
    *,
    measures: OneMeasure = "cka",
    kernel: Kernel = "linear",
    unbiased: bool = True,
    thresholds: Thresholds | None = None,
) -> dict[str, CKAResult]: ...


@overload
def trajectories(
    banks: str | Path | Sequence[str | Path | GramBank],
    layers: Layers = None,
    *,
    measures: Sequence[OneMeasure],
    kernel: Kernel = "linear",
    unbiased: bool = True,
    thresholds: Thresholds | None = None,
) -> dict[str, dict[str, CKAResult]]: ...


def trajectories(
    banks: str | Path | Sequence[str | Path | GramBank],
    layers: Layers = None,
    *,
    measures: Measures = "cka",
    kernel: Kernel = "linear",
    unbiased: bool = True,
    thresholds: Thresholds | None = None,
) -> dict[str, CKAResult] | dict[str, dict[str, CKAResult]]:
    """Compare each layer with itself at the other epochs of a training run.

    Paper: Kornblith et al. 2019, https://arxiv.org/abs/1905.00414.

    Args:
        banks: At least two banks of one network on one probe set, in order of time; their files; or the folder that
            `CKAMonitor(save_banks=True)` wrote. Files are read one probe batch at a time, and several times if all
            layers at the same time would take more than some 500 MB of memory.
        layers: Patterns of layer names, such as ``"net.*"``; None: all layers of the banks.
        measures: "cka" (with ``kernel``), "mutual_knn", "rsa", "ridge", an object such as `lightning_cka.MutualKNN`,
            or a list of these. A list gives a mapping of results by name.
        kernel: Kernel of CKA: "linear", "rbf", `lightning_cka.RBF`, "distance", or a function of ``(n, n)`` squared
            distances that returns an ``(n, n)`` Gram matrix.
        unbiased: Whether to use the unbiased HSIC. Values of the biased HSIC depend on the batch size.
        thresholds: Thresholds of the flags; None: the defaults of `Thresholds`.

    Returns:
        By layer name, a result whose matrix is ``(E, E)`` for E moments of training. Its ``layers`` are the names of
        the moments: "init" and the epochs, or steps if an epoch has several banks. Its ``model_name`` is the layer, its
        ``reference_name`` the class of the network. For a list of measures, such a mapping by name of the measure.

    Raises:
        ValueError: There are fewer than two banks, their layers or probe sets differ, a pattern matches no layer, or
            a measure or the kernel is unknown.
        TypeError: The kernel is neither a name nor a function, or ``thresholds`` has another type.
        FileNotFoundError: The folder or a file does not exist.

    Example:
        >>> import torch
        >>> from lightning_cka import GramBank, trajectories
        >>> _ = torch.manual_seed(0)
        >>> net = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU())
        >>> batches = [torch.randn(64, 16) for _ in range(8)]
        >>> before = GramBank.from_model(net, batches, progress_bar=False)
        >>> net.load_state_dict({name: torch.randn_like(value) for name, value in net.state_dict().items()})
        <All keys matched successfully>
        >>> after = GramBank.from_model(net, batches, progress_bar=False)
        >>> trajectories([before, after])["0"].matrix.shape
        torch.Size([2, 2])
    """
    chosen = measures_of_features(measures, kernel, unbiased=unbiased)
    sources = sources_of_run(banks, "a trajectory", 2)
    headers = [open_bank(source, batches=()) for source in sources]  # Everything but the Gram matrices.
    check_same_layers_and_probe_set(headers)
    first = headers[0]
    names = bank_of_layers(first, layers).layers
    rows = {name: [first.layers.index(name)] * len(headers) for name in names}
    by_measure = LayerByLayer(sources, headers, moment_names(headers), rows, _LEAST_BYTES).results(
        chosen, thresholds=check_thresholds(thresholds)
    )
    found = {
        measure: {name: replace(result, reference_name=first.model_name) for name, result in results.items()}
        for measure, results in by_measure.items()
    }
    return one_or_all(found, measures)
