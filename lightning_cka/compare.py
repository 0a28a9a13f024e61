"""Compare models, or banks of Gram matrices, without a Trainer."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm

from lightning_cka.bank import GramBank
from lightning_cka.capture import Consumer, ForwardFn, LayerPlan, Showing, show
from lightning_cka.dry_run import dry_run
from lightning_cka.kernels import check_feature_kernel
from lightning_cka.layers import FeatureFn, Layers, LayerSelector, check_feature_fn, check_layers
from lightning_cka.metric import MinibatchCKA, undefined_message
from lightning_cka.packed import PackedGrams
from lightning_cka.probe import ProbeSet, StreamProbe
from lightning_cka.result import CKAResult


def compare_models(
    model: nn.Module,
    reference: nn.Module,
    dataloader: Any,
    layers: Layers = None,
    *,
    reference_layers: Layers = None,
    forward_fn: ForwardFn | None = None,
    feature_fn: FeatureFn = None,
    kernel: str = "linear",
    device: torch.device | str | None = None,
    progress_bar: bool = True,
) -> CKAResult:
    """CKA between the layers of two models, or of one model with itself (``reference=model``).

    The samples are the dataloader's, as it gives them: it should shuffle, since CKA averaged over
    batches of similar samples is biased.

    Args:
        model: left as it was found, on its own device.
        reference: likewise; any architecture.
        dataloader: batches, in full; those of fewer than 4 samples are skipped.
        layers: name patterns or module classes; None: the leaf modules that own parameters, at most 64.
        reference_layers: likewise for the reference; None: as ``layers``.
        forward_fn: called with a model and a batch; None: the model is called on the batch, or on its
            first element.
        feature_fn: "flatten", "mean", "cls", or a function of a layer's output that gives ``(n, ...)``.
        kernel: "linear".
        device: where to compute; None: the model's own.
        progress_bar: show one.

    Returns:
        The ``(L, R)`` matrix with its standard error.

    Raises:
        ValueError: layers that are not there or cannot be read, an unknown kernel or feature_fn, a model
            that cannot be shown the batches.

    Example:
        >>> import torch
        >>> from lightning_cka import compare_models
        >>> _ = torch.manual_seed(0)
        >>> net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
        >>> batches = [torch.randn(32, 8) for _ in range(8)]
        >>> result = compare_models(net, net, batches, progress_bar=False)
        >>> result.layers
        ('0', '2')
        >>> result.matrix.diagonal()
        tensor([1., 1.], dtype=torch.float64)
    """
    check_feature_fn(feature_fn)
    check_feature_kernel(kernel)
    selectors = check_layers(layers)
    reference_selectors = check_layers(reference_layers, "reference_layers") or selectors
    target = torch.device(device) if device is not None else _device_of(model)
    showing = Showing(target, forward_fn, feature_fn)
    probe = StreamProbe(dataloader, seed=0)
    total = len(dataloader) if hasattr(dataloader, "__len__") else None
    within = model is reference and reference_selectors == selectors
    with _on_device(model, target), _on_device(reference, target):
        plan = dry_run(model, probe, selectors, showing)
        reference_plan = plan if within else _plan_of_reference(reference, probe, reference_selectors, showing)
        bank = GramBank(reference_plan.names, type(reference).__name__)
        if not within:
            _show(reference, probe, reference_plan, showing, bank.add, total=total, progress_bar=progress_bar)
        comparison = Comparison(plan.names, None if within else bank, kernel, target)
        _show(model, probe, plan, showing, comparison.add, total=total, progress_bar=progress_bar)
    if comparison.num_mismatched:
        raise ValueError(
            f"the dataloader gave other samples to the two models in {comparison.num_mismatched} batches; "
            "pass one that gives the same samples each time it is iterated"
        )
    return _finished(comparison, type(model).__name__, type(reference).__name__)


def compare_banks(a: GramBank, b: GramBank, *, kernel: str = "linear") -> CKAResult:
    """CKA between the layers of two models that were shown the same probe set.

    Args:
        a: of the model.
        b: of the reference.
        kernel: "linear".

    Raises:
        ValueError: the probe sets differ, or the kernel is unknown.
    """
    check_feature_kernel(kernel)
    differing = [i for i, _ in set(a.fingerprints.items()) ^ set(b.fingerprints.items())]
    if differing:
        raise ValueError(f"the banks are of different probe sets: they differ in {len(set(differing))} batches")
    device = torch.device("cpu")
    comparison = Comparison(a.layers, None if a is b else b, kernel, device)
    for index, grams in a.batches.items():
        comparison.add(index, grams, a.fingerprints[index])
    return _finished(comparison, a.model_name, b.model_name)


class Comparison:
    """Accumulates the CKA of a model, as it is shown the probe set, with a reference's bank.

    Args:
        layers: of the model.
        bank: the reference's; None: compare the model with itself.
        kernel: see `MinibatchCKA`.
        device: of the sums.
        distributed: each process of several has a share of the batches, and all of them ask for the
            result. Otherwise this process has all of them, whatever others there are.

    Attributes:
        undefined_layers: after `result`, the layers whose CKA is ``nan``, by reason.
        num_mismatched: batches left out because the reference was not shown the same inputs.
    """

    def __init__(
        self,
        layers: tuple[str, ...],
        bank: GramBank | None,
        kernel: str,
        device: torch.device,
        *,
        distributed: bool = False,
    ) -> None:
        self._bank = bank
        self._distributed = distributed
        self._device = device
        # Sums are in float64, which one kind of device does not have.
        self.metric = MinibatchCKA(
            layers, None if bank is None else bank.layers, kernel=kernel, sync_on_compute=False
        ).to("cpu" if device.type == "mps" else device)
        self.num_mismatched = 0
        self.undefined_layers: dict[str, list[str]] = {}

    def add(self, index: int, grams: PackedGrams, fingerprint: str) -> None:
        """Take one batch of the model's Gram matrices."""
        reference = None
        if self._bank is not None:
            reference = self._bank.get(index, fingerprint, self._device)
            if reference is None:
                self.num_mismatched += 1
                return
        self.metric.update(grams, reference)

    def result(self, **attributes: Any) -> CKAResult:
        """The result; ``attributes`` are passed on to `CKAResult`."""
        metric = self.metric
        with metric.sync_context(should_sync=self._distributed):
            self.undefined_layers = metric.undefined_layers()
            return CKAResult(
                metric.matrix(),
                metric.layers,
                metric.reference_layers,
                metric.standard_error(),
                num_samples=int(metric.num_samples),
                num_batches=int(metric.num_batches),
                kernel=metric.kernel,
                within=self._bank is None,
                **attributes,
            )


def _plan_of_reference(
    model: nn.Module, probe: ProbeSet, selectors: tuple[LayerSelector, ...] | None, showing: Showing
) -> LayerPlan:
    try:
        return dry_run(model, probe, selectors, showing, argument="reference_layers")
    except ValueError as error:
        raise ValueError(f"reference: {error} (reference_layers= chooses its layers)") from error


def _finished(comparison: Comparison, model_name: str, reference_name: str) -> CKAResult:
    result = comparison.result(model_name=model_name, reference_name=reference_name)
    for reason, names in comparison.undefined_layers.items():
        warnings.warn(undefined_message(reason, names), stacklevel=3)
    return result


def _show(
    model: nn.Module,
    probe: ProbeSet,
    plan: LayerPlan,
    showing: Showing,
    consume: Consumer,
    *,
    total: int | None,
    progress_bar: bool,
) -> None:
    with tqdm(desc=f"CKA: {type(model).__name__}", total=total, unit="batch", disable=not progress_bar) as bar:

        def consume_and_count(index: int, grams: PackedGrams, fingerprint: str) -> None:
            consume(index, grams, fingerprint)
            bar.update()

        show(model, probe, plan, showing, consume_and_count)
        bar.update((total or bar.n) - bar.n)  # Batches of too few samples were skipped.


@contextmanager
def _on_device(model: nn.Module, device: torch.device) -> Iterator[None]:
    """The model on ``device``, and where it was afterwards."""
    home = _device_of(model)
    if home == device:
        yield
        return
    try:
        model.to(device)
        yield
    finally:
        model.to(home)


def _device_of(model: nn.Module) -> torch.device:
    tensor = next(chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if tensor is None else tensor.device
