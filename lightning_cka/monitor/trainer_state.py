"""Functions that read the state of a Trainer: trial run, validation, last batch, step."""

from __future__ import annotations

from math import inf

from lightning.pytorch import Trainer


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


def is_end_of_epoch(trainer: Trainer) -> bool:
    """Whether no training batch of this epoch follows. An epoch can have several validations before its end."""
    return not validates(trainer) or trainer.fit_loop.epoch_loop.batch_progress.is_last_batch


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
