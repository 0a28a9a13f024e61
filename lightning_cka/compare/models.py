"""`compare_models`: CKA between two models, without a Trainer."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from lightning.fabric.utilities.data import sized_len
from torch import nn

from lightning_cka.compare.banks import finished
from lightning_cka.compare.comparison import Comparison
from lightning_cka.compare.find_flags import variation_flags
from lightning_cka.compare.flags import Thresholds, check_thresholds
from lightning_cka.compare.result import CKAResult
from lightning_cka.hsic.kernels import Kernel, check_feature_kernel, kernel_name
from lightning_cka.probe.bank import GramBank
from lightning_cka.probe.dry_run import dry_run
from lightning_cka.probe.exchangeability import BatchVariation, variation_message
from lightning_cka.probe.features import FeatureFn, check_feature_fn
from lightning_cka.probe.forward import ForwardFn, ForwardSettings
from lightning_cka.probe.given_batches import probe_set_of_loader
from lightning_cka.probe.layers import LayerPlan, Layers, LayerSelector, check_layers
from lightning_cka.probe.probe_set import ProbeSet
from lightning_cka.probe.standalone import device_of, on_device, show_with_progress
from lightning_cka.runtime.devices import sums_device


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
    target = torch.device(device) if device is not None else device_of(model)
    forward_settings = ForwardSettings(target, forward_fn, feature_fn)
    probe = probe_set_of_loader(dataloader, seed=seed)
    total = sized_len(dataloader)
    is_self = model is reference and reference_selectors == selectors
    with on_device(model, target), on_device(reference, target):
        plan = dry_run(model, probe, selectors, forward_settings)
        check_feature_kernel(kernel, plan.num_samples)
        reference_plan = (
            plan if is_self else _plan_of_reference(reference, probe, reference_selectors, forward_settings)
        )
        bank = None if is_self else GramBank(reference_plan.names, type(reference).__name__, probe.sample_kind)
        if bank is not None:
            show_with_progress(
                reference, probe, reference_plan, forward_settings, bank.add, total=total, progress_bar=progress_bar
            )
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
        show_with_progress(
            model, probe, plan, forward_settings, comparison.add, variation.add, total=total, progress_bar=progress_bar
        )
    if found := variation.result(distributed=False):
        warnings.warn(variation_message(found, "the dataloader"), stacklevel=2)
    return finished(comparison, flags=variation_flags(found))


def _plan_of_reference(
    model: nn.Module, probe: ProbeSet, selectors: tuple[LayerSelector, ...] | None, forward_settings: ForwardSettings
) -> LayerPlan:
    try:
        return dry_run(model, probe, selectors, forward_settings, argument="reference_layers")
    except ValueError as error:
        raise ValueError(f"reference: {error} (reference_layers= chooses its layers)") from error


def _reference_name(model: nn.Module, reference: nn.Module) -> str:
    name = type(reference).__name__
    return f"{name} (reference)" if type(model) is type(reference) and model is not reference else name
