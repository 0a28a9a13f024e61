"""`compare_models`: CKA between two models, without a Trainer."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any, overload

import torch

from lightning_cka.compare.checked_result import checked_results, one_or_all
from lightning_cka.compare.compared_models import ComparedModels
from lightning_cka.compare.comparison import Comparison
from lightning_cka.compare.find_flags import variation_flags
from lightning_cka.compare.flags import Thresholds, check_thresholds
from lightning_cka.compare.pairing import Pair, announced_pairing, check_pair
from lightning_cka.compare.reference_bank import reference_bank
from lightning_cka.compare.reference_layers import same_choice
from lightning_cka.compare.result import CKAResult
from lightning_cka.hsic.check_measures import Measures, OneMeasure, check_sizes, measures_of_features
from lightning_cka.hsic.kernels import Kernel
from lightning_cka.probe.chosen_layers import announce_layers
from lightning_cka.probe.dry_run import dry_run
from lightning_cka.probe.exchangeability import BatchVariation, variation_message
from lightning_cka.probe.features import FeatureFn
from lightning_cka.probe.fit_blocks import fit_blocks
from lightning_cka.probe.forward import Call, ForwardFn, ForwardSettings
from lightning_cka.probe.given_batches import probe_set_of_loader
from lightning_cka.probe.layers import Layers, check_layers
from lightning_cka.probe.paired_loaders import paired_batches, paired_probe_set
from lightning_cka.probe.sample_selection import Exclude, Groups, SampleSelection
from lightning_cka.probe.standalone import show_with_progress
from lightning_cka.runtime.checkpoint_models import Architecture, ModelSource
from lightning_cka.runtime.devices import sums_device
from lightning_cka.runtime.placement import device_of, on_device
from lightning_cka.runtime.rng import check_seed


@overload
def compare_models(
    model: ModelSource,
    reference: ModelSource,
    dataloader: Any,
    layers: Layers = None,
    *,
    reference_dataloader: Any = None,
    architecture: Architecture | None = None,
    reference_layers: Layers = None,
    forward_fn: ForwardFn | None = None,
    reference_forward_fn: ForwardFn | None = None,
    feature_fn: FeatureFn = None,
    call: Call = "first",
    measures: OneMeasure = "cka",
    kernel: Kernel = "linear",
    unbiased: bool = True,
    thresholds: Thresholds | None = None,
    exclude: Exclude = None,
    groups: Groups = None,
    model_name: str | None = None,
    reference_name: str | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    gram_batch_size: int | None = None,
    progress_bar: bool = True,
    pair: Pair = "name",
) -> CKAResult: ...


@overload
def compare_models(
    model: ModelSource,
    reference: ModelSource,
    dataloader: Any,
    layers: Layers = None,
    *,
    reference_dataloader: Any = None,
    architecture: Architecture | None = None,
    reference_layers: Layers = None,
    forward_fn: ForwardFn | None = None,
    reference_forward_fn: ForwardFn | None = None,
    feature_fn: FeatureFn = None,
    call: Call = "first",
    measures: Sequence[OneMeasure],
    kernel: Kernel = "linear",
    unbiased: bool = True,
    thresholds: Thresholds | None = None,
    exclude: Exclude = None,
    groups: Groups = None,
    model_name: str | None = None,
    reference_name: str | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    gram_batch_size: int | None = None,
    progress_bar: bool = True,
    pair: Pair = "name",
) -> dict[str, CKAResult]: ...


def compare_models(
    model: ModelSource,
    reference: ModelSource,
    dataloader: Any,
    layers: Layers = None,
    *,
    reference_dataloader: Any = None,
    architecture: Architecture | None = None,
    reference_layers: Layers = None,
    forward_fn: ForwardFn | None = None,
    reference_forward_fn: ForwardFn | None = None,
    feature_fn: FeatureFn = None,
    call: Call = "first",
    measures: Measures = "cka",
    kernel: Kernel = "linear",
    unbiased: bool = True,
    thresholds: Thresholds | None = None,
    exclude: Exclude = None,
    groups: Groups = None,
    model_name: str | None = None,
    reference_name: str | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    gram_batch_size: int | None = None,
    progress_bar: bool = True,
    pair: Pair = "name",
) -> CKAResult | dict[str, CKAResult]:
    """Compare the layers of two models, or of one model with itself (``reference=model``), on a dataloader.

    Paper: Kornblith et al. 2019, https://arxiv.org/abs/1905.00414. The dataloader should shuffle: CKA averaged over
    batches of similar samples is biased, and a warning says if the batches seem not to be shuffled. Other warnings name
    the layers whose CKA is ``nan`` or can mislead.

    Args:
        model: Model (the rows), or the path of a checkpoint; see ``architecture``. A model is restored, also its
            device.
        reference: Model to compare with (the columns), of any architecture, or the path of a checkpoint.
        dataloader: Batches of samples, such as a DataLoader. Both models are shown all of them, so it must be possible
            to iterate over it several times. Gram matrices of fewer than 4 samples are skipped.
        layers: Names, patterns such as ``"net.*"`` (each child of ``net``) or ``"net.**"`` (all below it), module
            classes or their names, or a list of these; a leading ``!`` takes away; see `CKAMonitor`. None: the
            outputs of repeated blocks (at least 3 of one class) and what is around them; without such blocks the
            innermost modules with parameters; at most 64.
        reference_dataloader: Batches for the reference, whose sample i belongs to sample i of ``dataloader``, such as
            the same images corrupted. Map-style datasets are matched by index; other loaders must not shuffle. Batches
            must have the same sizes. None: ``dataloader``.
        architecture: What checkpoints are loaded into: a module of their class, which is copied and not changed, or the
            class. A class gets the hyperparameters of a Lightning checkpoint, else no arguments. None: a copy of the
            other model. Checkpoints are read as by `CKAMonitor`, without running code in them.
        reference_layers: Patterns or classes for the reference; None: the same as ``layers``, or the paired ones.
        forward_fn: Function ``forward_fn(model, batch)`` that runs the model; None: call the model on the batch, or on
            its first element.
        reference_forward_fn: The same for the reference; None: ``forward_fn``.
        feature_fn: "flatten", "mean", "cls", "last", "tokens", or a function from a layer's output to features
            ``(n, ...)``; see `CKAMonitor`.
        call: Which call of a layer that runs several times in one forward pass counts: "first", "last", or "mean",
            the mean of the features over all calls.
        measures: "cka" (with ``kernel``), "mutual_knn", "rsa", "ridge", an object such as `lightning_cka.MutualKNN`,
            or a list of these. A list gives a mapping of results by name.
        kernel: Kernel of CKA: "linear", "rbf", `lightning_cka.RBF`, "distance", or a function of ``(n, n)`` squared
            distances that returns an ``(n, n)`` Gram matrix.
        unbiased: Whether to use the unbiased HSIC. Values of the biased HSIC depend on the batch size.
        thresholds: Thresholds of the flags; None: the defaults of `Thresholds`.
        exclude: Numbers of samples to leave out, as flags name them. The other samples are centered again.
        groups: Labels of the samples, for CKA within groups: a sequence that is indexed by sample numbers, such as the
            labels of the dataset, or a mapping from them. Features are centered within each group of each batch. Groups
            of fewer than 4 samples in a batch are left out, with a warning.
        model_name: Name of the model for titles and axis labels; None: its class, or the name of its file.
        reference_name: Name of the reference, likewise; None: followed by "(reference)" if both have the same class.
        seed: Seed of the dataloader's shuffling, and of all randomness while the models are shown the samples.
        device: Device to compute on; None: the device of ``model``.
        gram_batch_size: Number of samples in a Gram matrix, at least 4. Consecutive batches are joined up to this
            number. If they have one sample each, it must lie along the first dimension of each layer's output. Larger
            batches of a DataLoader are cut. None: one batch.
        progress_bar: Whether to show a progress bar.
        pair: Which layers are paired, for one value per layer: "name" (also without prefixes), "position", or a mapping
            {layer of the model: layer of the reference}; see `lightning_cka.compare.pairing.pair_layers`.

    Returns:
        The result ``(L, R)`` with standard errors, diagnostics and flags; for a list of measures, results by name.

    Raises:
        ValueError: A layer does not exist or cannot be compared, a measure, the kernel or ``feature_fn`` is
            unknown, a model cannot be shown the batches, the dataloader gives different samples in each iteration, the
            samples of two loaders do not belong together, or a checkpoint does not fit.
        TypeError: An argument has a wrong type, such as a dataloader without batches.
        FileNotFoundError: A path does not exist.

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
    selection = SampleSelection(exclude, groups)
    seed = check_seed(seed)
    chosen = measures_of_features(measures, kernel, unbiased=unbiased)
    thresholds = check_thresholds(thresholds)
    selectors = check_layers(layers)
    reference_selectors = check_layers(reference_layers, "reference_layers")
    probe = probe_set_of_loader(dataloader, seed=seed, gram_batch_size=gram_batch_size)
    show = partial(show_with_progress, progress_bar=progress_bar)
    check_pair(pair)
    reference_probe = paired_probe_set(probe, dataloader, reference_dataloader, gram_batch_size=gram_batch_size)
    has_two_loaders = reference_probe is not probe
    models = ComparedModels.of(model, reference, architecture, has_two_loaders=has_two_loaders)
    target = torch.device(device) if device is not None else device_of(models.model)
    settings = ForwardSettings(target, forward_fn, feature_fn, call=call)
    is_shown_alike = models.is_one and not has_two_loaders and reference_forward_fn in (None, forward_fn)
    reference_settings = settings if is_shown_alike else settings.of_reference(reference_forward_fn)
    with on_device(models.model, target), on_device(models.reference, target):
        plan = dry_run(models.model, probe, selectors, settings)
        _, plan = fit_blocks(probe, plan, target)  # Blocks of given batches are not made smaller.
        announce_layers(plan, models.model, selectors)
        check_sizes(chosen, [plan.num_samples])
        if reference_selectors is None:
            reference_selectors = same_choice(selectors, plan.names, models.reference, pair)
        bank, pairings = None, {}
        reference_name = reference_name or models.reference_name
        if not (is_shown_alike and reference_selectors == selectors):
            pair_with = partial(announced_pairing, plan.names, pair=pair, reference="the reference")
            of_reference = (models.reference, reference_probe, reference_selectors, reference_settings)
            bank, pairings[reference_name] = reference_bank(*of_reference, show, pair_with, plan.num_samples)
        comparison = Comparison(
            plan.names,
            {reference_name: bank},
            chosen,
            target,
            model_name=model_name or models.model_name,
            thresholds=thresholds,
            sample_kind=settings.sample_kind(probe),
            selection=selection,
            execution_order=plan.execution_order,
            keep_all_pairs=True,
            pairings=pairings,
        )
        variation = BatchVariation(plan.names, sums_device(target))
        with paired_batches(bank, comparison.add, has_two_loaders=has_two_loaders) as add:
            show(models.model, probe, plan, settings, add, variation.add)
    if variations := variation.result(distributed=False):
        warnings.warn(variation_message(variations, "the dataloader"), stacklevel=2)
    return one_or_all(checked_results(comparison, flags=variation_flags(variations)), measures)
