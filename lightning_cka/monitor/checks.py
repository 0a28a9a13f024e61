"""Check before training that the Trainer and the monitor fit together."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from difflib import get_close_matches
from math import inf
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn

from lightning_cka.monitor.reference import Reference
from lightning_cka.monitor.trainer_state import is_trial, may_never_end, validates, validates_within_epochs
from lightning_cka.runtime.namespaces import class_names
from lightning_cka.runtime.text import shortened

UNSERVED_STRATEGIES = {
    "DeepSpeedStrategy": "its engine owns the model",
    "FSDPStrategy": "it wraps layers and their weights in classes of its own; ModelParallelStrategy with torch's "
    "fully_shard (FSDP2) does the same work, and is served",
}


def check_strategy(trainer: Trainer) -> None:
    """Refuse strategies under which layers have no whole outputs, or cannot be read at all.

    Raises:
        ValueError: this is one.
    """
    instead = "Train without CKAMonitor, and compare checkpoints with lightning_cka.compare_models"
    strategy = trainer.strategy
    for name in class_names(strategy):
        if name in UNSERVED_STRATEGIES:
            raise ValueError(f"CKAMonitor does not work with {name}: {UNSERVED_STRATEGIES[name]}. {instead}")
    replicas = getattr(strategy, "distributed_sampler_kwargs", {}).get("num_replicas", trainer.world_size)
    if replicas != trainer.world_size:
        raise ValueError(
            f"CKAMonitor does not work with tensor parallelism: {type(strategy).__name__} has {trainer.world_size} "
            f"processes for {replicas} shares of the data, so that a process sees parts of a layer's output. Set "
            f"tensor_parallel_size=1, or else: {instead[0].lower()}{instead[1:]}"
        )


_ENDLESS = (
    "the training data have no length and max_epochs is -1, so that an epoch may never end; limit_train_batches= gives "
    "it a length"
)


def check_schedule(every_n_epochs: int, trainer: Trainer) -> None:
    """Refuse to log nothing.

    Args:
        every_n_epochs: of the monitor.
        trainer: of the training that is about to start.

    Raises:
        ValueError: no epoch is due.
    """
    if every_n_epochs > 1 and may_never_end(trainer):
        raise ValueError(
            f"every_n_epochs={every_n_epochs} would log nothing: {_ENDLESS}. With every_n_epochs=1 there is a result "
            "at each validation, and val_check_interval= says how often that is"
        )
    if trainer.num_training_batches == inf and trainer.max_epochs == -1 and not validates(trainer):
        rank_zero_warn(
            "CKAMonitor compares once, when training stops: there is no validation loop, and the training data have no "
            "length. A validation loader, or limit_train_batches=, gives results before that"
        )
    last = trainer.max_epochs
    if last is not None and 0 <= last < every_n_epochs and not is_trial(trainer):
        raise ValueError(f"every_n_epochs={every_n_epochs} would log nothing: max_epochs={last} comes before that")


def check_epochs(references: Sequence[Reference], every_n_epochs: int, trainer: Trainer | None = None) -> None:
    """Refuse reference epochs that will not be logged.

    Args:
        references: of the monitor.
        every_n_epochs: of the monitor.
        trainer: None: before there is one.

    Raises:
        ValueError: there is such an epoch.
    """
    often = (trainer.check_val_every_n_epoch or 1) if trainer is not None and validates(trainer) else 1
    last = None if trainer is None or is_trial(trainer) else trainer.max_epochs
    for reference in references:
        epoch = reference.epoch
        if epoch is None:
            continue
        if (epoch + 1) % every_n_epochs:
            raise ValueError(
                f"epoch {epoch} cannot be a reference: with every_n_epochs={every_n_epochs}, counted from 0, "
                f"epochs {every_n_epochs - 1}, {2 * every_n_epochs - 1}, ... are logged"
            )
        if (epoch + 1) % often:
            raise ValueError(
                f"epoch {epoch} cannot be a reference: check_val_every_n_epoch={often} leaves it without validation"
            )
        if trainer is not None and may_never_end(trainer):
            raise ValueError(f"epoch {epoch} cannot be a reference: {_ENDLESS}")
        if last is not None and 0 <= last <= epoch:
            raise ValueError(f"epoch {epoch} cannot be a reference: with max_epochs={last} it is not reached")


def check_monitored_keys(
    trainer: Trainer, prefix: str, references: Sequence[Reference], keys: Collection[str], every_n_epochs: int
) -> None:
    """Refuse callbacks and schedulers that would find their key missing.

    Args:
        trainer: whose callbacks and schedulers are looked at.
        prefix: of all keys of the monitor.
        references: of the monitor.
        keys: that the monitor will log, besides those of the diagnostics.
        every_n_epochs: of the monitor.

    Raises:
        ValueError: one looks for a key that the monitor does not log, or not at each epoch.
    """
    callbacks: Sequence[Any] = trainer.callbacks  # type: ignore[attr-defined]  # Set by a connector.
    plateaus = [config for config in trainer.lr_scheduler_configs if config.reduce_on_plateau]
    for callback in [*callbacks, *plateaus]:
        key = getattr(callback, "monitor", None)
        if not isinstance(key, str) or not key.startswith(prefix) or not getattr(callback, "strict", True):
            continue
        who = f"{type(getattr(callback, 'scheduler', callback)).__name__} looks for {key!r}"
        if key not in keys and not key.startswith(f"{prefix}diagnostics/"):
            if not prefix:
                continue  # It may be anyone's.
            close = get_close_matches(key, keys, n=3) or sorted(keys)
            raise ValueError(f"{who}, which CKAMonitor does not log; it logs {shortened(close)}")
        who += " at each validation, but CKAMonitor logs it"
        often = getattr(callback, "_every_n_epochs", getattr(callback, "frequency", 1)) or 1
        if often % every_n_epochs and (trainer.check_val_every_n_epoch or 1) % every_n_epochs:
            raise ValueError(
                f"{who} every {every_n_epochs} epochs; use every_n_epochs=1, or "
                f"check_val_every_n_epoch={every_n_epochs} in the Trainer"
            )
        for reference in references:
            if reference.epoch is None or not key.startswith(f"{prefix}{reference.name}/"):
                continue
            if reference.epoch or validates_within_epochs(trainer):
                raise ValueError(f"{who} from the end of epoch {reference.epoch} on")
