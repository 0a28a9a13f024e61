"""Functions that read the state of a Trainer: trial run, validation, last batch, step, moment of a comparison."""

from __future__ import annotations

import math
from math import inf
from typing import NamedTuple

from lightning.pytorch import LightningModule, Trainer


def is_trial(trainer: Trainer) -> bool:
    """Whether this is a ``fast_dev_run``, which writes nothing."""
    return bool(getattr(trainer, "fast_dev_run", False))


def is_validate(trainer: Trainer) -> bool:
    """Whether ``trainer.validate()`` runs, which has no training."""
    return trainer.state.fn == "validate"


def validates(trainer: Trainer) -> bool:
    """Whether training has a validation loop. While Lightning has not loaded its data, they count as not empty."""
    if not trainer.enable_validation:
        return False
    return trainer.val_dataloaders is None or sum(trainer.num_val_batches) > 0


def is_last_validation_batch(trainer: Trainer) -> bool:
    """Whether the validation batch that ends now is the last one of all loaders."""
    loop = trainer.validate_loop if is_validate(trainer) else trainer.fit_loop.epoch_loop.val_loop
    return loop.batch_progress.is_last_batch


def is_last_training_batch(trainer: Trainer) -> bool:
    """Whether the training batch that ends now is the last one of its epoch."""
    return trainer.fit_loop.epoch_loop.batch_progress.is_last_batch


def is_end_of_epoch(trainer: Trainer) -> bool:
    """Whether no training batch of this epoch follows. An epoch can have several validations before its end."""
    return not validates(trainer) or is_last_training_batch(trainer)


def validates_within_epochs(trainer: Trainer) -> bool:
    """Whether there are validations before the end of a training epoch."""
    return validates(trainer) and trainer.val_check_batch not in (inf, trainer.num_training_batches)


def validates_after_batch(trainer: Trainer) -> bool:
    """Whether a validation follows the current training batch, which is not the last one of its epoch."""
    every = trainer.val_check_batch
    if not every or not validates_within_epochs(trainer):
        return False  # Without a number of batches, Lightning validates by time.
    progress = trainer.fit_loop.epoch_loop.batch_progress
    batches = progress.total.ready if trainer.check_val_every_n_epoch is None else progress.current.ready
    return batches % every == 0


def has_endless_training_data(trainer: Trainer) -> bool:
    """Whether the training data have no length and the number of epochs has no limit."""
    return trainer.num_training_batches == inf and trainer.max_epochs == -1


def may_never_end(trainer: Trainer) -> bool:
    """Whether a training epoch may never end, while validation does not wait for its end."""
    return has_endless_training_data(trainer) and validates_within_epochs(trainer) and not is_trial(trainer)


def current_step(trainer: Trainer) -> int:
    """Return the step of Lightning's own scalars: the number of training batches that ended with an optimizer step."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def compared_step(trainer: Trainer) -> int:
    """Return the step at which Lightning logs the values of this comparison."""
    # At the end of a training epoch Lightning has already counted its last step. In validation it has not.
    return current_step(trainer) - (not trainer.validating)


class Moment(NamedTuple):
    """When the model is compared.

    Attributes:
        epoch: Training epoch; None for ``trainer.validate()``, and if comparisons follow optimizer steps.
        step: Step of the result; None for ``trainer.validate()``. At a validation, it is the step at which Lightning
            logs. Otherwise it is the number of optimizer steps so far.
        logged_step: The step of the loggers if the monitor logs by itself; None if ``LightningModule.log`` does.
    """

    epoch: int | None
    step: int | None
    logged_step: int | None = None

    @property
    def is_start(self) -> bool:
        """Whether this is the moment before the first training step."""
        return self == START


START = Moment(None, 0, 0)
"""The moment before the first training step."""


def moment_of_validation(trainer: Trainer) -> Moment:
    """Return the moment of a validation, or of the end of a training epoch."""
    # The weights of trainer.validate() can be of any epoch.
    return Moment(None, None) if is_validate(trainer) else Moment(trainer.current_epoch, compared_step(trainer))


def moment_of_step(trainer: Trainer, module: LightningModule) -> Moment:
    """Return the moment after an optimizer step, at the end of a training batch.

    Lightning logs a training loss at the number of steps before it. The weights are logged at the number of steps that
    they have had, on the same axis: it counts batches if several optimizers step in one batch.
    """
    axis = trainer.global_step if module.automatic_optimization else current_step(trainer) + 1
    return Moment(None, trainer.global_step, axis)


def last_train_step(trainer: Trainer) -> int | None:
    """Return about how many optimizer steps training will have had in the end; None if it has no known end."""
    limits = [trainer.max_steps] if trainer.max_steps >= 0 else []
    batches, epochs = trainer.num_training_batches, trainer.max_epochs
    if epochs is not None and epochs >= 0 and math.isfinite(batches):
        optimizers = max(1, len(trainer.optimizers))
        limits.append(math.ceil(batches / trainer.accumulate_grad_batches) * epochs * optimizers)
    return min(limits, default=None)
