"""What the Trainer is doing: validation, trial run, last batch."""

from __future__ import annotations

from math import inf

from lightning.pytorch import Trainer


def is_trial(trainer: Trainer) -> bool:
    """Whether this is a fast_dev_run, which writes nothing."""
    return bool(getattr(trainer, "fast_dev_run", False))


def validates(trainer: Trainer) -> bool:
    """Whether training has a validation loop, with batches in it as far as that is known by now."""
    if not trainer.enable_validation:
        return False
    return trainer.val_dataloaders is None or sum(trainer.num_val_batches) > 0


def is_last_validation_batch(trainer: Trainer) -> bool:
    """Whether the validation batch that is at its end is the last one, of all loaders."""
    loop = trainer.validate_loop if trainer.state.fn == "validate" else trainer.fit_loop.epoch_loop.val_loop
    return loop.batch_progress.is_last_batch


def validates_within_epochs(trainer: Trainer) -> bool:
    return validates(trainer) and trainer.val_check_batch not in (inf, trainer.num_training_batches)


def may_never_end(trainer: Trainer) -> bool:
    """Whether nothing tells that a training epoch ends, and validation does not wait for it either."""
    endless = trainer.num_training_batches == inf and trainer.max_epochs == -1
    return endless and validates_within_epochs(trainer) and not is_trial(trainer)
