"""Before training, check that the Trainer and the monitor fit together: strategy, schedule, reference epochs."""

from __future__ import annotations

from collections.abc import Sequence

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn

from lightning_cka.monitor.reference import Reference
from lightning_cka.monitor.schedule import Schedule
from lightning_cka.monitor.trainer_state import (
    has_endless_training_data,
    is_trial,
    last_train_step,
    may_never_end,
    validates,
)
from lightning_cka.runtime.namespaces import class_names

UNSUPPORTED_STRATEGIES = {
    "DeepSpeedStrategy": "its engine owns the model",
    "FSDPStrategy": "it wraps layers and weights in its own classes; use ModelParallelStrategy with torch's "
    "fully_shard (FSDP2)",
}


INSTEAD = "train without CKAMonitor, and compare checkpoints with lightning_cka.compare_models"


ENDLESS = (
    "the training data have no length and max_epochs is -1, so that an epoch may never end; limit_train_batches= gives "
    "it a length"
)


def check_strategy(trainer: Trainer) -> None:
    """Reject strategies under which no process sees a layer's whole output.

    Raises:
        ValueError: The Trainer has such a strategy.
    """
    strategy = trainer.strategy
    for name in class_names(strategy):
        if name in UNSUPPORTED_STRATEGIES:
            raise ValueError(
                f"CKAMonitor does not work with {name}: {UNSUPPORTED_STRATEGIES[name]}. Otherwise {INSTEAD}"
            )
    replicas = getattr(strategy, "distributed_sampler_kwargs", {}).get("num_replicas", trainer.world_size)
    if replicas != trainer.world_size:
        raise ValueError(
            f"CKAMonitor does not work with tensor parallelism: {type(strategy).__name__} has {trainer.world_size} "
            f"processes for {replicas} shares of the data, so that a process sees parts of a layer's output. Set "
            f"tensor_parallel_size=1. Otherwise {INSTEAD}"
        )


def check_schedule(schedule: Schedule, trainer: Trainer) -> None:
    """Reject settings with which nothing would be logged.

    Args:
        schedule: The monitor's schedule.
        trainer: The Trainer, before the first step.

    Raises:
        ValueError: No epoch or step would be logged.
    """
    every_n_epochs = schedule.every_n_epochs
    if every_n_epochs is None:
        _check_steps(schedule, trainer)
        return
    if every_n_epochs > 1 and may_never_end(trainer):
        raise ValueError(
            f"every_n_epochs={every_n_epochs} would log nothing: {ENDLESS}. With every_n_epochs=1 there is a result "
            "at each validation, and val_check_interval= sets how often Lightning validates"
        )
    if has_endless_training_data(trainer) and not validates(trainer):
        rank_zero_warn(
            "CKAMonitor compares once, when training stops: there is no validation loop, and the training data have no "
            "length. For earlier results, add a validation loader, or set limit_train_batches="
        )
    last = trainer.max_epochs
    if last is not None and 0 <= last < every_n_epochs and not is_trial(trainer):
        raise ValueError(f"every_n_epochs={every_n_epochs} would log nothing: max_epochs={last} comes before that")


def _check_steps(schedule: Schedule, trainer: Trainer) -> None:
    first, last = schedule.first_step, last_train_step(trainer)
    if schedule.at_start or first is None or last is None or is_trial(trainer) or first <= last:
        return
    # Without automatic optimization, or with a schedule of accumulation, the number of steps is not known.
    names = {name for callback in trainer.callbacks for name in class_names(callback)}  # type: ignore[attr-defined]  # Set by a connector.
    if not trainer.lightning_module.automatic_optimization or "GradientAccumulationScheduler" in names:
        return
    raise ValueError(
        f"{schedule} would log nothing: training ends at step {last}, before step {first}. Pass smaller steps, or "
        "compare_at_start=True"
    )


def check_epochs(references: Sequence[Reference], schedule: Schedule, trainer: Trainer | None = None) -> None:
    """Reject reference epochs that will not be logged.

    Args:
        references: The monitor's references.
        schedule: The monitor's schedule.
        trainer: The Trainer before the first step; None: check only what is known without it.

    Raises:
        ValueError: A reference is an epoch that will not be logged.
    """
    for reference in references:
        epoch = reference.epoch
        if epoch is None:
            continue
        problem = _off_schedule(epoch, schedule) or (_not_reached(epoch, trainer) if trainer is not None else "")
        if problem:
            raise ValueError(f"epoch {epoch} cannot be a reference: {problem}")


def _off_schedule(epoch: int, schedule: Schedule) -> str:
    every_n_epochs = schedule.every_n_epochs
    if every_n_epochs is None:
        return (
            f"with {schedule}, the model is compared after steps, not at the ends of epochs. Pass the path of a "
            "checkpoint of that epoch, or use every_n_epochs="
        )
    if schedule.is_due_epoch(epoch):
        return ""
    return (
        f"with every_n_epochs={every_n_epochs}, counted from 0, epochs {every_n_epochs - 1}, {2 * every_n_epochs - 1}, "
        "... are logged"
    )


def _not_reached(epoch: int, trainer: Trainer) -> str:
    check_every = (trainer.check_val_every_n_epoch or 1) if validates(trainer) else 1
    last = None if is_trial(trainer) else trainer.max_epochs
    problems = {
        f"check_val_every_n_epoch={check_every} leaves it without validation": (epoch + 1) % check_every != 0,
        ENDLESS: may_never_end(trainer),
        f"with max_epochs={last} it is not reached": last is not None and 0 <= last <= epoch,
    }
    return next((problem for problem, is_found in problems.items() if is_found), "")
