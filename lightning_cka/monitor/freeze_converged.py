"""`FreezeConverged`: the Lightning callback that stops the training of layers that have converged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BaseFinetuning

from lightning_cka.hsic.standard_error import check_level
from lightning_cka.monitor.callback import CKAMonitor
from lightning_cka.monitor.freeze_checks import (
    check_unused_parameters,
    chosen_in_order,
    find_monitor,
    warn_if_too_short,
)
from lightning_cka.monitor.freezing import FreezeOptions, Freezing
from lightning_cka.monitor.known_metrics import log_values
from lightning_cka.monitor.trainer_checks import check_strategy
from lightning_cka.monitor.trainer_events import TrainerEvents
from lightning_cka.monitor.trainer_state import validates
from lightning_cka.probe.layer_patterns import names_matching
from lightning_cka.probe.layers import Layers, check_layers
from lightning_cka.runtime.integers import at_least
from lightning_cka.runtime.listed import listed
from lightning_cka.runtime.namespaces import join_namespaces
from lightning_cka.runtime.text import shortened


class FreezeConverged(BaseFinetuning):
    """Freezes the first layers of a model as they converge, so that the rest trains faster. It changes training.

    After each comparison of the Trainer's `CKAMonitor`, it looks for the longest prefix of the compared layers, in
    execution order, whose CKA with the state ``patience`` comparisons ago is above 1 - ``tolerance``, with the lower
    end of its confidence interval. From the next optimizer step on, these layers get no gradients. Step by step, a slow
    drift would pass, so that a longer way back counts. It uses the monitor's results, and lets the monitor compare with
    ``"previous:PATIENCE"`` too. Layers that are flagged or have no interval are not frozen, nor those after them. A
    flag of lost effective rank does not matter, and layers that others keep from training are passed over.

    Batch norms of frozen layers stay in eval mode. Parameters that other modules share stay trainable. Each optimizer
    keeps something to train, and keeps its state of the frozen parameters. A layer never starts to train again by
    itself; `unfreeze` does that. DDP needs ``find_unused_parameters=True``, and compiled models are compiled again.
    High CKA does not mean that a layer has nothing left to learn: CKA does not see what only shifts features, such as
    biases and position embeddings. Compare the validation loss with and without. Papers: Raghu et al. 2017
    (https://arxiv.org/abs/1706.05806), Wang et al. 2022 (https://arxiv.org/abs/2201.06227).

    Args:
        tolerance: Largest change of CKA that does not matter, in (0, 1).
        patience: Number of comparisons to look back, at least 1.
        layers: Which of the compared layers may be frozen, like ``layers`` of `CKAMonitor`. None: all of them.
        level: Level of the confidence intervals, in (0, 1).
        monitor: The monitor whose results count. None: the only one of the Trainer. With several measures, it is the
            first CKA.

    Raises:
        ValueError: An argument is out of range. Before training: there is no monitor, or the strategy needs a setting.
        TypeError: An argument has an unsupported type.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> from lightning_cka import CKAMonitor, FreezeConverged
        >>> freeze = FreezeConverged(tolerance=0.02, patience=3)
        >>> trainer = Trainer(callbacks=[CKAMonitor("initial"), freeze], logger=False, enable_checkpointing=False)
        >>> freeze.frozen
        {}
    """

    def __init__(
        self,
        tolerance: float = 0.01,
        patience: int = 3,
        layers: Layers = None,
        *,
        level: float = 0.95,
        monitor: CKAMonitor | None = None,
    ) -> None:
        super().__init__()
        join_namespaces(FreezeConverged)
        if not 0 < tolerance < 1:
            raise ValueError(f"tolerance must be in (0, 1), but is {tolerance}")
        check_level(level)
        self._options = FreezeOptions(tolerance, at_least(1, "patience", patience), level)
        self._selectors = check_layers(layers)
        self._given = monitor
        self._monitor: TrainerEvents | None = None
        self._freezing: Freezing | None = None
        self._order: list[str] = []
        self._step = 0
        self._has_stepped = True

    @property
    def frozen(self) -> dict[str, tuple[int | None, int]]:
        """Epoch and step of the comparison after which a layer was frozen, by layer, in execution order."""
        return {} if self._freezing is None else dict(self._freezing.frozen)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: which layers are frozen, and since when."""
        return {} if self._freezing is None else self._freezing.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the state of a checkpoint. Its layers are frozen before the next training step."""
        if self._freezing is not None and state_dict:
            self._freezing.load_state_dict(state_dict)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the monitor and check the strategy. Begin anew, unless this ``fit()`` continues an earlier one."""
        if stage != "fit":
            return
        self._monitor = find_monitor(self._given, trainer)
        check_strategy(trainer)
        check_unused_parameters(trainer, pl_module)
        reference = self._monitor.compare_with_previous(self._options.patience, pl_module)
        before = self._freezing
        if before is None or before.module is not pl_module or trainer.global_step == 0:
            self.unfreeze()
            self._freezing = Freezing(self._options, self._monitor, reference, pl_module)
        self._order, self._has_stepped = [], True

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore no parameter groups, as `BaseFinetuning` does: this callback adds none."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002  # Lightning passes it by position.
        """Warn if training will end before anything can be frozen."""
        self._step = trainer.global_step
        if self._monitor is not None:
            warn_if_too_short(self._monitor._settings, self._options.patience, trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ask for no parameter groups, as `BaseFinetuning` does."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:  # noqa: ARG002  # Lightning passes it by position.
        """Freeze what the last comparison allows, unless gradients of several batches are being accumulated."""
        if self._freezing is None or self._monitor is None:
            return
        if not self._order:  # By the first batch, the monitor has found the layers.
            self._order = chosen_in_order(self._monitor.plan, self._selectors, pl_module)
            self._freezing.apply()
        if self._has_stepped or batch_idx == 0:
            self._freezing.judge(self._order, trainer)
        self._freezing.keep_in_eval()

    def on_train_batch_end(self, trainer: Trainer, *_args: Any, **_kwargs: Any) -> None:
        """Note whether an optimizer has stepped."""
        before, self._step = self._step, trainer.global_step
        self._has_stepped = self._step != before
        self._remove_hook()

    def on_exception(self, *_args: Any, **_kwargs: Any) -> None:
        """Leave no hook on the model."""
        self._remove_hook()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the number of frozen layers."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._log(pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the number of frozen layers if there is no validation loop."""
        if not validates(trainer):
            self._log(pl_module)

    def unfreeze(self, layers: str | Sequence[str] | None = None) -> None:
        """Let layers train again. They can be frozen again after ``patience`` further comparisons.

        Call it on all processes, between two optimizer steps, for example in ``on_train_epoch_start``.

        Args:
            layers: Names or patterns of frozen layers. None: all.

        Raises:
            ValueError: A name or pattern matches no frozen layer.
        """
        frozen, chosen = self.frozen, []
        for pattern in listed(layers) if layers is not None else ():
            if not (found := names_matching(pattern, frozen)):
                raise ValueError(f"no frozen layer matches {pattern!r}; frozen: {shortened(list(frozen)) or 'none'}")
            chosen += found
        if self._freezing is not None:
            self._freezing.unfreeze(frozen if layers is None else chosen)

    def _log(self, module: LightningModule) -> None:
        if self._monitor is not None:
            log_values(module, {f"{self._monitor._settings.group('frozen')}layers": float(len(self.frozen))})

    def _remove_hook(self) -> None:
        if self._freezing is not None:
            self._freezing.remove_hook()


join_namespaces(FreezeConverged)
