"""Compare models, or banks of Gram matrices, without a Trainer."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sized
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm

from lightning_cka.alignment import aligned, bank_of_layers, loaded, probe_differences
from lightning_cka.bank import GramBank, ShownBatch
from lightning_cka.capture import Consumer, ForwardFn, LayerPlan, Observer, Showing, show
from lightning_cka.collectives import sums_device
from lightning_cka.comparison import Comparison
from lightning_cka.dry_run import dry_run
from lightning_cka.exchangeability import BatchVariation, variation_flags, variation_message
from lightning_cka.flags import Thresholds, check_thresholds, flag_messages
from lightning_cka.kernels import Kernel, check_feature_kernel, kernel_name
from lightning_cka.layers import FeatureFn, Layers, LayerSelector, check_feature_fn, check_layers
from lightning_cka.metric import undefined_message
from lightning_cka.probe import DatasetProbe, ProbeSet
from lightning_cka.result import CKAResult
from lightning_cka.trajectory import trajectories

__all__ = ["bank_of_model", "compare_banks", "compare_models", "trajectories"]

_CPU = torch.device("cpu")


def compare_models(
    model: nn.Module,
    reference: nn.Module,
    dataloader: Any,
    layers: Layers = None,
    *,
    reference_layers: Layers = None,
    forward_fn: ForwardFn | None = None,
    feature_fn: FeatureFn = None,
    kernel: Kernel = "linear",
    unbiased: bool = True,
    thresholds: Thresholds | None = None,
    model_name: str | None = None,
    reference_name: str | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress_bar: bool = True,
) -> CKAResult:
    """CKA between the layers of two models, or of one model with itself (``reference=model``).

    The samples are the dataloader's, as it gives them: it should shuffle, since CKA averaged over
    batches of similar samples is biased. A warning tells where it seems not to, and which layers' values are
    not to be trusted for other reasons.

    Args:
        model: left as it was found, on its own device.
        reference: likewise; any architecture.
        dataloader: batches, in full; those of fewer than 4 samples are skipped.
        layers: name patterns or module classes; None: the leaf modules that own parameters, at most 64.
        reference_layers: likewise for the reference; None: as ``layers``.
        forward_fn: called with a model and a batch; None: the model is called on the batch, or on its
            first element.
        feature_fn: "flatten", "mean", "cls", or a function of a layer's output that gives ``(n, ...)``.
        kernel: "linear", "rbf" or `lightning_cka.kernels.RBF`, "distance", or a function of ``(n, n)`` squared
            distances.
        unbiased: False takes the biased HSIC, whose values depend on the batch size.
        thresholds: from where on a layer is flagged; None: the defaults of `lightning_cka.diagnostics.Thresholds`.
        model_name: for titles and axis labels; None: the model's class.
        reference_name: likewise; None: the reference's class, and that it is the reference if both are of one.
        seed: of the dataloader's shuffling and of any randomness while the models are shown the samples.
        device: where to compute; None: the model's own.
        progress_bar: show one.

    Returns:
        The ``(L, R)`` matrix with its standard error and diagnostics.

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
    check_thresholds(thresholds)
    selectors = check_layers(layers)
    reference_selectors = check_layers(reference_layers, "reference_layers") or selectors
    target = torch.device(device) if device is not None else _device_of(model)
    showing = Showing(target, forward_fn, feature_fn)
    probe = ProbeSet.from_own_loader(dataloader, seed=seed)
    total = len(dataloader) if hasattr(dataloader, "__len__") else None
    within = model is reference and reference_selectors == selectors
    with _on_device(model, target), _on_device(reference, target):
        plan = dry_run(model, probe, selectors, showing)
        check_feature_kernel(kernel, plan.num_samples)
        reference_plan = plan if within else _plan_of_reference(reference, probe, reference_selectors, showing)
        bank = None if within else GramBank(reference_plan.names, type(reference).__name__, probe.sample_kind)
        if bank is not None:
            _show(reference, probe, reference_plan, showing, bank.add, total=total, progress_bar=progress_bar)
        comparison = Comparison(
            plan.names,
            {reference_name or _reference_name(model, reference): bank},
            {kernel_name(kernel): kernel},
            target,
            model_name=model_name or type(model).__name__,
            unbiased=unbiased,
            thresholds=check_thresholds(thresholds),
            sample_kind=probe.sample_kind,
        )
        variation = BatchVariation(plan.names, sums_device(target))
        _show(model, probe, plan, showing, comparison.add, variation.add, total=total, progress_bar=progress_bar)
    if found := variation.result(distributed=False):
        warnings.warn(variation_message(found, "the dataloader"), stacklevel=2)
    return _finished(comparison, flags=variation_flags(found))


def compare_banks(
    a: GramBank | str | Path,
    b: GramBank | str | Path,
    *,
    layers: Layers = None,
    reference_layers: Layers = None,
    kernel: Kernel = "linear",
    unbiased: bool = True,
    thresholds: Thresholds | None = None,
    strict: bool = True,
) -> CKAResult:
    """CKA between the layers of two models that were shown the same probe set.

    Args:
        a: of the model; a bank or its file.
        b: of the reference; likewise.
        layers: patterns over the names of the model's layers; None: all that are in its bank.
        reference_layers: likewise for the reference; None: as ``layers``.
        kernel: as in `compare_models`.
        unbiased: likewise.
        thresholds: likewise.
        strict: False: compare them also if their probe sets differ, batch by batch where these have equally many
            samples, with a warning of what differs. Sample i of a batch is then taken to be sample i of the other:
            where it is not, the values mean nothing.

    Returns:
        As `compare_models` does.

    Raises:
        ValueError: the probe sets differ, a pattern matches no layer, or the kernel is unknown.
    """
    check_feature_kernel(kernel)
    a, b = loaded(a), loaded(b)
    within = a is b and reference_layers is None
    if differences := probe_differences(a, b):
        told = f"the banks are of different probe sets: they differ in {'; '.join(differences)}"
        if strict:
            raise ValueError(f"{told}. strict=False (--loose) compares batches of equal size all the same")
        a, b = aligned(a, b)
        if not a.batches:
            raise ValueError(f"{told}. No batch has equally many samples in both")
        warnings.warn(
            f"{told}. Compared are {a.num_samples} samples, as if they were the same in both; where they are not, the "
            "values mean nothing",
            stacklevel=2,
        )
    a = bank_of_layers(a, layers)
    b = a if within else bank_of_layers(b, layers if reference_layers is None else reference_layers, "reference_layers")
    comparison = Comparison(
        a.layers,
        {b.title: None if within else b},
        {kernel_name(kernel): kernel},
        _CPU,
        model_name=a.title if a.epoch is None else a.model_name,  # The result has the epoch.
        unbiased=unbiased,
        thresholds=check_thresholds(thresholds),
        sample_kind=a.sample_kind,
    )
    for batch in a:
        comparison.add(batch)
    return _finished(comparison, epoch=a.epoch, step=None if a.epoch is None else a.step)


def bank_of_model(
    model: nn.Module,
    dataloader: Any,
    layers: Layers = None,
    *,
    like: GramBank | str | Path | None = None,
    forward_fn: ForwardFn | None = None,
    feature_fn: FeatureFn = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress_bar: bool = True,
) -> GramBank:
    """Show a model a probe set, and keep its Gram matrices.

    Args:
        model: left as it was found, on its own device.
        dataloader: as in `compare_models`.
        layers: likewise.
        like: a bank or its file, such as one that `CKAMonitor` saved, whose samples are shown, by their indices in the
            dataloader's dataset, in the same batches.
        forward_fn: as in `compare_models`.
        feature_fn: likewise.
        seed: of any randomness while the model is shown the samples; ``like`` has its own.
        device: where to compute; None: the model's own.
        progress_bar: show one.

    Raises:
        ValueError: as `compare_models` does, or ``like`` does not name its samples by dataset index.
    """
    check_feature_fn(feature_fn)
    selectors = check_layers(layers)
    target = torch.device(device) if device is not None else _device_of(model)
    showing = Showing(target, forward_fn, feature_fn)
    like = None if like is None else loaded(like)
    probe = ProbeSet.from_own_loader(dataloader, seed=seed) if like is None else _probe_like(like, dataloader)
    with _on_device(model, target):
        plan = dry_run(model, probe, selectors, showing)
        bank = GramBank(plan.names, type(model).__name__, probe.sample_kind, seed=probe.seed)
        variation = BatchVariation(plan.names, sums_device(target))
        total = len(dataloader) if like is None and hasattr(dataloader, "__len__") else None
        _show(model, probe, plan, showing, bank.add, variation.add, total=total, progress_bar=progress_bar)
    if like is None and (found := variation.result(distributed=False)):
        warnings.warn(variation_message(found, "the dataloader"), stacklevel=2)
    if like is not None and (differences := probe_differences(bank, like)):
        warnings.warn(
            f"this probe set is not that of like=: it differs in {'; '.join(differences)}. Is it another dataset, or "
            "are its samples transformed in another way?",
            stacklevel=2,
        )
    return bank


def _probe_like(bank: GramBank, loader: Any) -> ProbeSet:
    if bank.sample_kind != DatasetProbe.sample_kind:
        raise ValueError(f"like= needs a bank of samples with dataset indices, but this one's are {bank.sample_kind}s")
    if not isinstance(getattr(loader, "dataset", None), Sized):
        raise ValueError(f"like= needs a DataLoader over a map-style dataset, but got a {type(loader).__name__}")
    indices = [list(bank.probe[index].samples) for index in sorted(bank.probe)]
    if (largest := max(map(max, indices))) >= len(loader.dataset):
        raise ValueError(f"like= has sample {largest}, but the dataset has {len(loader.dataset)}")
    return DatasetProbe(loader, indices, bank.seed)


def _plan_of_reference(
    model: nn.Module, probe: ProbeSet, selectors: tuple[LayerSelector, ...] | None, showing: Showing
) -> LayerPlan:
    try:
        return dry_run(model, probe, selectors, showing, argument="reference_layers")
    except ValueError as error:
        raise ValueError(f"reference: {error} (reference_layers= chooses its layers)") from error


def _reference_name(model: nn.Module, reference: nn.Module) -> str:
    name = type(reference).__name__
    return f"{name} (reference)" if type(model) is type(reference) and model is not reference else name


def _finished(comparison: Comparison, **attributes: Any) -> CKAResult:
    (outcome,) = comparison.results(**attributes).values()
    if outcome.num_mismatched:
        raise ValueError(
            f"the dataloader gave other samples to the two models in {outcome.num_mismatched} batches; "
            "pass one that gives the same samples each time it is iterated"
        )
    for reason, names in outcome.undefined_layers.items():
        warnings.warn(undefined_message(reason, names), stacklevel=3)
    result = outcome.result
    for message in flag_messages(result.flags, comparison.sample_kind, result.kernel):
        warnings.warn(message, stacklevel=3)
    return result


def _show(
    model: nn.Module,
    probe: ProbeSet,
    plan: LayerPlan,
    showing: Showing,
    consume: Consumer,
    observe: Observer | None = None,
    *,
    total: int | None,
    progress_bar: bool,
) -> None:
    with tqdm(desc=f"CKA: {type(model).__name__}", total=total, unit="batch", disable=not progress_bar) as bar:

        def consume_and_count(batch: ShownBatch) -> None:
            consume(batch)
            bar.update()

        show(model, probe, plan, showing, consume_and_count, observe=observe)
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
