"""`EpochLog` and `StepLog`: collect the scalars of a comparison, and log all of them together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from lightning.pytorch import LightningModule, Trainer

from lightning_cka.monitor.known_metrics import log_values


class ScalarLog(ABC):
    """Collects scalars."""

    def __init__(self) -> None:
        self._values: dict[str, float] = {}

    def add(self, key_prefix: str, values: Mapping[str, float]) -> None:
        """Add values by the last part of their keys, which are the same on all processes."""
        self._values.update({key_prefix + name: value for name, value in values.items()})

    @abstractmethod
    def send(self) -> None:
        """Log the values. Every process must call this."""


class EpochLog(ScalarLog):
    """Logs through a LightningModule, averaged over an epoch and over processes.

    Args:
        module: The live model, in a hook that may log.
    """

    def __init__(self, module: LightningModule) -> None:
        super().__init__()
        self._module = module

    def send(self) -> None:
        """Log the values. Every process must call this."""
        log_values(self._module, self._values)


class StepLog(ScalarLog):
    """Logs at a step of training, whatever hook of Lightning runs: all values go to the loggers together.

    In a hook of training, ``LightningModule.log`` drops values of steps that ``log_every_n_steps`` leaves out, or
    averages them until the end of the epoch.

    Args:
        trainer: The Trainer.
        module: The live model.
        step: The step of the loggers.
    """

    def __init__(self, trainer: Trainer, module: LightningModule, step: int) -> None:
        super().__init__()
        self._trainer = trainer
        self._device = module.device
        self._step = step

    def send(self) -> None:
        """Hand the values to the loggers, and to callbacks that monitor them. Every process must call this."""
        if not self._values:
            return
        metrics = {
            name: torch.tensor(value, device=self._device, dtype=torch.get_default_dtype())
            for name, value in self._values.items()
        }
        self._trainer.callback_metrics.update(metrics)
        self._trainer.logged_metrics.update(metrics)
        for logger in self._trainer.loggers:
            # As Lightning does, each scalar comes with the epoch. Loggers log on rank 0 only.
            logger.log_metrics(self._values | {"epoch": self._trainer.current_epoch}, self._step)
            logger.save()
