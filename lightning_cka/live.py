"""`LiveProbe`: the probe set, shown to models in the way that a Trainer's validation loop shows batches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from lightning.fabric.utilities.data import sized_len
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from torch import nn

from lightning_cka.bank import GramBank
from lightning_cka.capture import Consumer, ForwardFn, LayerPlan, Observer, Showing, show
from lightning_cka.collectives import failing_together, on_each_process, sums_device
from lightning_cka.dry_run import dry_run
from lightning_cka.exchangeability import BatchVariation, Variation, variation_message
from lightning_cka.layers import FeatureFn, LayerSelector
from lightning_cka.namespaces import class_names
from lightning_cka.probe import ProbeSet
from lightning_cka.reference import Reference
from lightning_cka.rng import isolated_rng
from lightning_cka.trainer_checks import is_trial
from lightning_cka.weights import is_sharded

FAST_DEV_RUN_SAMPLES = 32


@dataclass(frozen=True)
class ProbeOptions:
    """What a user chose of the probe set and of how it is shown; see `lightning_cka.CKAMonitor`."""

    selectors: tuple[LayerSelector, ...] | None
    reference_selectors: tuple[LayerSelector, ...] | None
    num_samples: int | None
    batch_size: int | None
    dataloader: Any
    dataloader_idx: int
    forward_fn: ForwardFn | None
    feature_fn: FeatureFn
    seed: int


class LiveProbe:
    """A probe set and the live model's layers, found by a dry run.

    Args:
        options: the user's.
        trainer: whose validation data are used, and the way in which it brings them to the model.
        module: the live model.

    Attributes:
        probe: the probe set.
        plan: the live model's layers.
        variation: layers in which the probe set's batches are not exchangeable, once the model was shown it.

    Raises:
        ValueError: no usable data, or layers or a model that cannot be used; see `dry_run`.
    """

    def __init__(self, options: ProbeOptions, trainer: Trainer, module: LightningModule) -> None:
        self._options = options
        self.variation: list[Variation] = []
        self._is_tested = False
        self._device = sums_device(module.device)
        together = failing_together(self._device, "show the model a probe batch")
        with together, _as_validation(trainer), _without_log(module):
            self.probe = _build_probe(options, trainer)
            self.plan = dry_run(module, self.probe, options.selectors, self._showing(trainer, module))
            validates = trainer.enable_validation and any(
                sized_len(loader) != 0 for loader in _validation_loaders(trainer)
            )
        _check_all_validate(validates, self._device)

    def show(self, trainer: Trainer, module: LightningModule, consume: Consumer) -> None:
        """Show this process's share of the probe set to the live model, once.

        The first time, batches that the user's loader made are tested for whether they are alike but for chance.
        """
        variation = None
        # What is read from a stream has been warned of before.
        if not (self.probe.is_shuffled or self._is_tested or self._options.dataloader is None):
            variation = BatchVariation(self.plan.names, self._device)
        self._show(trainer, module, module, self.plan, consume, None if variation is None else variation.add)
        if variation is not None:
            self._is_tested = True
            self.variation = variation.result(distributed=True)
            if self.variation:
                rank_zero_warn(variation_message(self.variation, "dataloader="))

    def empty_bank(self, module: LightningModule, epoch: int | None, step: int | None) -> GramBank:
        """Room for the Gram matrices of the live model at a moment of its training."""
        name = type(module).__name__
        return GramBank(self.plan.names, name, self.probe.sample_kind, seed=self.probe.seed, epoch=epoch, step=step)

    def bank(self, trainer: Trainer, module: LightningModule, epoch: int | None, step: int) -> GramBank:
        """The Gram matrices of the live model as it is now, between epochs; of the epoch that has just ended."""
        bank = self.empty_bank(module, epoch, step)
        self.show(trainer, module, bank.add)
        return bank

    def frozen_bank(self, reference: Reference, trainer: Trainer, module: LightningModule) -> GramBank:
        """The Gram matrices of a frozen reference, whose weights are then released.

        Raises:
            ValueError: it cannot be loaded, or its layers cannot be compared.
        """
        selectors: tuple[LayerSelector, ...] = self.plan.names
        argument, hint = "layers", ""
        if isinstance(reference.source, nn.Module):
            if self._options.reference_selectors:
                selectors, argument = self._options.reference_selectors, "reference_layers"
            else:
                hint = " (reference_layers= chooses its own layers)"
        with ExitStack() as stack:
            with self._together(reference, hint):
                weights = reference.read_weights(module)
            with self._together(reference, hint):
                model = stack.enter_context(reference.opened(module, weights))
                plan = self._plan_of(model, trainer, module, selectors, argument)
            bank = GramBank(plan.names, reference.name, self.probe.sample_kind, seed=self.probe.seed)
            self._show(trainer, module, model, plan, bank.add)
        return bank

    @contextmanager
    def _together(self, reference: Reference, hint: str) -> Iterator[None]:
        """What is wrong with a reference is told with its name, and on all processes."""
        with failing_together(self._device, f"show reference '{reference.name}' a probe batch"):
            try:
                yield
            except ValueError as error:
                raise ValueError(f"reference '{reference.name}': {error}{hint}") from error

    def _plan_of(
        self,
        model: nn.Module,
        trainer: Trainer,
        module: LightningModule,
        selectors: tuple[LayerSelector, ...],
        argument: str,
    ) -> LayerPlan:
        """Bring a frozen reference to where the live model is, and find its layers."""
        if _is_lightning(model):
            if not any(True for _ in model.parameters()):  # Its layers are yet to be made.
                _configure(model, self.probe.seed, module.device)
            model.trainer = trainer  # type: ignore[assignment]  # A LightningModule has one.
        if model is not module:
            trainer.precision_plugin.convert_module(model).to(module.device)
        with _as_validation(trainer), _without_log(model), _without_log(module):
            return dry_run(model, self.probe, selectors, self._showing(trainer, module), argument=argument)

    def _show(
        self,
        trainer: Trainer,
        module: LightningModule,
        model: nn.Module,
        plan: LayerPlan,
        consume: Consumer,
        observe: Observer | None = None,
    ) -> None:
        together = failing_together(self._device, "show the model the probe set")
        with together, _as_validation(trainer), _without_log(model), _without_log(module):
            show(
                model,
                self.probe,
                plan,
                self._showing(trainer, module),
                consume,
                rank=trainer.global_rank,
                world_size=trainer.world_size,
                observe=observe,
                sharded=is_sharded(model),
            )

    def _showing(self, trainer: Trainer, module: LightningModule) -> Showing:
        index = self._options.dataloader_idx

        def transfer(batch: Any) -> Any:
            batch = trainer.precision_plugin.convert_input(batch)
            batch = module._on_before_batch_transfer(batch, dataloader_idx=index)
            return trainer.strategy.batch_to_device(batch, dataloader_idx=index)

        return Showing(
            module.device,
            self._options.forward_fn,
            self._options.feature_fn,
            transfer,
            trainer.precision_plugin.val_step_context,
        )


def _build_probe(options: ProbeOptions, trainer: Trainer) -> ProbeSet:
    fast_dev_run = is_trial(trainer)
    if options.dataloader is not None:
        return ProbeSet.from_own_loader(options.dataloader, seed=options.seed, max_batches=1 if fast_dev_run else None)
    loaders = _validation_loaders(trainer)
    if not loaders:
        raise ValueError(
            "CKAMonitor draws its probe set from the validation dataloader, but this Trainer has no validation "
            "loop (no val_dataloaders or validation_step, or limit_val_batches=0); give fit() one, or pass dataloader="
        )
    if not 0 <= options.dataloader_idx < len(loaders):
        raise ValueError(f"dataloader_idx is {options.dataloader_idx}, but there are {len(loaders)} validation loaders")
    num_samples = options.num_samples
    if fast_dev_run:
        num_samples = min(num_samples or FAST_DEV_RUN_SAMPLES, FAST_DEV_RUN_SAMPLES)
    return ProbeSet.from_loader(
        loaders[options.dataloader_idx], num_samples=num_samples, batch_size=options.batch_size, seed=options.seed
    )


def _check_all_validate(validates: bool, device: torch.device) -> None:
    """Refuse validation on some processes only, who would wait for the others when they compare."""
    all_validate = on_each_process(validates, device)
    if any(all_validate) and not all(all_validate):
        idle = ", ".join(str(rank) for rank, each in enumerate(all_validate) if not each)
        raise ValueError(
            f"process {idle} has no validation batch, and would not compare when the others do: give each process some"
        )


def _validation_loaders(trainer: Trainer) -> list[Any]:
    loaders = trainer.val_dataloaders
    if loaders is None and trainer.enable_validation:
        # Lightning loads them at the first validation, which check_val_every_n_epoch may put off. It shall do so
        # then as if nothing had been asked for now.
        with isolated_rng(0):
            loaders = trainer.fit_loop.epoch_loop.val_loop._data_source.dataloader()
    if loaders is None or loaders in ([], (), {}):
        return []
    if "CombinedLoader" in class_names(loaders):
        loaders = loaders.iterables
    return list(CombinedLoader(loaders, "sequential").flattened)


@contextmanager
def _as_validation(trainer: Trainer) -> Iterator[None]:
    """The Trainer's stage is validation, for the hooks and models that ask it."""
    stage = trainer.state.stage
    trainer.validating = True
    try:
        yield
    finally:
        trainer.state.stage = stage


def _configure(model: nn.Module, seed: int, device: torch.device) -> None:
    """Have a LightningModule make its layers."""
    try:
        with isolated_rng(seed, device):
            model.configure_model()  # type: ignore[operator]  # A LightningModule has one.
    except Exception as error:
        raise ValueError(
            f"{type(model).__name__} has no layers yet, and configure_model() raised {type(error).__name__}: {error}. "
            "Outside a strategy there is no device_mesh; pass a module that has its layers, or a checkpoint"
        ) from error


def _is_lightning(module: nn.Module) -> bool:
    """Whether this is a LightningModule, of ``lightning.pytorch`` or of ``pytorch_lightning``."""
    return "LightningModule" in class_names(module)


@contextmanager
def _without_log(module: nn.Module) -> Iterator[None]:
    """What a LightningModule logs of probe batches is not logged: it would count as validation data."""
    if not _is_lightning(module):
        yield
        return
    names = ("log", "log_dict")
    found = {name: module.__dict__[name] for name in names if name in module.__dict__}
    try:
        module.__dict__.update(dict.fromkeys(names, lambda *_args, **_kwargs: None))
        yield
    finally:
        for name in names:
            module.__dict__.pop(name, None)
        module.__dict__.update(found)
