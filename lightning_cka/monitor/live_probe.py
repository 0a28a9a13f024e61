"""`LiveProbe`: show models the probe set as a Trainer's validation loop shows batches."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from lightning.fabric.utilities.data import sized_len
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn

from lightning_cka.compare.reference_layers import layers_in_reference
from lightning_cka.monitor.lightning_module import as_validation, configure, is_lightning_module, without_log
from lightning_cka.monitor.reference import Reference
from lightning_cka.monitor.settings import ProbeOptions
from lightning_cka.monitor.validation_data import build_probe_set, check_all_validate, validation_loaders
from lightning_cka.probe.bank import GramBank
from lightning_cka.probe.block_grams import Observer
from lightning_cka.probe.chosen_layers import announce_layers
from lightning_cka.probe.dataset_probe import DatasetProbe
from lightning_cka.probe.dry_run import dry_run
from lightning_cka.probe.exchangeability import BatchVariation, Variation, variation_message
from lightning_cka.probe.fit_blocks import check_blocks, fit_blocks
from lightning_cka.probe.forward import ForwardSettings
from lightning_cka.probe.forward_messages import ForwardFailedError
from lightning_cka.probe.joined_probe import joined_probe
from lightning_cka.probe.layers import LayerPlan, LayerSelector
from lightning_cka.probe.probe_labels import LabelsFn, read_labels
from lightning_cka.probe.show_probe_set import Consumer, show_probe_set
from lightning_cka.probe.tokens import token_kind
from lightning_cka.runtime.collectives import gather_objects, synchronized_errors
from lightning_cka.runtime.devices import sums_device
from lightning_cka.runtime.sharding import is_sharded


class LiveProbe:
    """The probe set and the live model's layers, which a dry run finds.

    Args:
        options: Arguments about the probe set.
        trainer: The Trainer, with its validation data, precision and strategy.
        module: The live model.
        known: Descriptions of the probe sets of the run that training continues; see `ProbeSet.description`. If an
            earlier version of the package would have drawn one of them, it is used.
        is_shown_later: Whether the first pass comes after training has begun, so that the dry run must show as much as
            a pass does.

    Attributes:
        probe: The probe set.
        plan: The live model's layers.
        variation: Layers in which the batches of the user's ``dataloader`` are not exchangeable; empty before `show`.

    Raises:
        ValueError: There are no usable data, or the model or its layers cannot be used; see `dry_run`.
    """

    def __init__(
        self,
        options: ProbeOptions,
        trainer: Trainer,
        module: LightningModule,
        known: Collection[str] = (),
        *,
        is_shown_later: bool = False,
    ) -> None:
        self._options = options
        self.variation: list[Variation] = []
        self._is_tested = False
        self._device = sums_device(module.device)
        with synchronized_errors(self._device, "find its probe set"), as_validation(trainer), without_log(module):
            own = build_probe_set(options, trainer)
        joined = joined_probe(own, self._device).as_in(known)
        together = synchronized_errors(self._device, "show the model a probe batch")
        with together, as_validation(trainer), without_log(module):
            plan = dry_run(
                module,
                joined,
                options.selectors,
                self._forward_settings(trainer, module),
                whole_batch=is_shown_later,
            )
            self.probe, self.plan = fit_blocks(joined, plan, module.device)
            announce_layers(self.plan, module, options.selectors)
            sizes = map(sized_len, validation_loaders(trainer))
            validates = trainer.enable_validation and any(size != 0 for size in sizes)
        check_all_validate(validates, self._device)

    @property
    def sample_kind(self) -> str:
        """Return what the numbers of samples are."""
        return token_kind(self.probe.sample_kind, self._options.feature_fn)

    @property
    def sample_numbers(self) -> list[int] | None:
        """Return the numbers of all probe samples; None if they are only known after the probe set was shown."""
        if not isinstance(self.probe, DatasetProbe):
            return None
        return [sample for batch in self.probe.indices for sample in batch]

    def labels(self, trainer: Trainer, labels_fn: LabelsFn | None) -> dict[int, int] | None:
        """Return the labels of all probe samples on rank 0, by sample number. Every process must call this.

        Returns:
            The labels; None on other ranks, and if a batch of any process has none.

        Raises:
            ValueError: ``labels_fn`` fails or returns something else; see `read_labels`.
            TypeError: It does not return integers.
        """
        with synchronized_errors(self._device, "read the labels of its probe set"):
            own = read_labels(self.probe, labels_fn, rank=trainer.global_rank, world_size=trainer.world_size)
        parts = gather_objects(own, distributed=True)
        if not parts or any(part is None for part in parts):
            return None
        return {sample: label for part in parts for sample, label in part.items()}

    def show(self, trainer: Trainer, module: LightningModule, consume: Consumer) -> None:
        """Show the live model this process's batches of the probe set.

        The first call also tests whether the batches of the user's ``dataloader`` are exchangeable.

        Args:
            trainer: The Trainer.
            module: The live model.
            consume: Called with the Gram matrices of each batch.
        """
        variation = None
        # The monitor has already warned about streams: their first samples are not a random choice.
        if not (self.probe.is_shuffled or self._is_tested or self._options.dataloader is None):
            variation = BatchVariation(self.plan.names, self._device)
        self._show(trainer, module, module, self.plan, consume, None if variation is None else variation.add)
        if variation is not None:
            self._is_tested = True
            self.variation = variation.result(distributed=True)
            if self.variation:
                rank_zero_warn(variation_message(self.variation, "dataloader="))

    def empty_bank(self, module: LightningModule, epoch: int | None, step: int | None) -> GramBank:
        """Return an empty bank for the live model at an epoch and step."""
        names = (self.plan.names, type(module).__name__, self.sample_kind)
        return GramBank(*names, seed=self.probe.seed, epoch=epoch, step=step)

    def bank(self, trainer: Trainer, module: LightningModule, epoch: int | None, step: int) -> GramBank:
        """Return the bank of the live model as it is now, between epochs; ``epoch`` is the one that has just ended."""
        bank = self.empty_bank(module, epoch, step)
        self.show(trainer, module, bank.add)
        return bank

    def frozen_bank(self, reference: Reference, trainer: Trainer, module: LightningModule) -> GramBank:
        """Return the bank of a frozen reference. Its weights are released afterwards.

        Raises:
            ValueError: The reference cannot be loaded, or its layers cannot be compared or paired.
        """
        settings = self._forward_settings(trainer, module)
        chosen, hint = None, ""
        if isinstance(reference.source, nn.Module):
            settings = settings.of_reference(self._options.reference_forward_fn)
            chosen = self._options.reference_selectors
            hint = "" if chosen else " (reference_layers= chooses its own layers)"
        with ExitStack() as stack:
            with self._naming_errors(reference):
                weights = reference.read_weights(module)
            with self._naming_errors(reference, hint):
                model = stack.enter_context(reference.as_model(module, weights))
                plan = self._plan_of(model, trainer, module, chosen, settings)
            with self._naming_errors(reference):
                reference.pair_layers(self.plan.names, plan.names, self._options.pair)
            bank = GramBank(plan.names, reference.name, self.sample_kind, seed=self.probe.seed)
            self._show(trainer, module, model, plan, bank.add, settings=settings)
        return bank

    @contextmanager
    def _naming_errors(self, reference: Reference, hint: str = "") -> Iterator[None]:
        """Add the reference's name to errors, and raise on all processes if one of them fails."""
        with synchronized_errors(self._device, f"show reference '{reference.name}' a probe batch"):
            try:
                yield
            except ValueError as error:
                end = "" if isinstance(error, ForwardFailedError) else hint
                raise ValueError(f"reference '{reference.name}': {error}{end}") from error

    def _plan_of(
        self,
        model: nn.Module,
        trainer: Trainer,
        module: LightningModule,
        chosen: tuple[LayerSelector, ...] | None,
        settings: ForwardSettings,
    ) -> LayerPlan:
        """Move a frozen reference to the live model's device and precision, and find its layers."""
        if is_lightning_module(model):
            if not any(True for _ in model.parameters()):  # Its layers do not exist yet.
                configure(model, self.probe.seed, module.device)
            model.trainer = trainer  # type: ignore[assignment]  # A LightningModule has one.
        if model is not module:
            trainer.precision_plugin.convert_module(model).to(module.device)
        options = self._options
        selectors = chosen or layers_in_reference(self.plan.names, options.selectors, model, options.pair)
        with as_validation(trainer), without_log(model), without_log(module):
            plan = dry_run(model, self.probe, selectors, settings, argument="reference_layers" if chosen else "layers")
        check_blocks(plan, module.device)
        if chosen:
            announce_layers(plan, model, chosen, "layers of the reference")
        return plan

    def _show(
        self,
        trainer: Trainer,
        module: LightningModule,
        model: nn.Module,
        plan: LayerPlan,
        consume: Consumer,
        observe: Observer | None = None,
        *,
        settings: ForwardSettings | None = None,
    ) -> None:
        together = synchronized_errors(self._device, "show the model the probe set")
        with together, as_validation(trainer), without_log(model), without_log(module):
            show_probe_set(
                model,
                self.probe,
                plan,
                settings or self._forward_settings(trainer, module),
                consume,
                rank=trainer.global_rank,
                world_size=trainer.world_size,
                observe=observe,
                sharded=is_sharded(model),
            )

    def _forward_settings(self, trainer: Trainer, module: LightningModule) -> ForwardSettings:
        index = self._options.dataloader_idx

        def transfer(batch: Any) -> Any:
            batch = trainer.precision_plugin.convert_input(batch)
            batch = module._on_before_batch_transfer(batch, dataloader_idx=index)
            return trainer.strategy.batch_to_device(batch, dataloader_idx=index)

        return ForwardSettings(
            module.device,
            self._options.forward_fn,
            self._options.feature_fn,
            transfer,
            trainer.precision_plugin.val_step_context,
            self._options.call,
        )
