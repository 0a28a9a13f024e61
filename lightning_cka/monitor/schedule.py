"""`Schedule`: when the model is compared: at validations of every n-th epoch, or after some optimizer steps."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lightning_cka.runtime.integers import at_least, to_integer

TrainSteps = int | Sequence[int] | Literal["log"]
"""Every n-th step, some steps, or "log": steps 0, 1, 2, 4, 8, ..."""


@dataclass(frozen=True)
class Schedule:
    """When the model is compared.

    Steps are optimizer steps, as ``trainer.global_step`` counts them. Step 0 is the start of training.

    Attributes:
        every_n_epochs: Compare at the validations of every n-th epoch. None: compare by steps.
        every_n_train_steps: Compare after these steps, whatever Lightning validates. None: compare at validations.
        at_start: Whether to compare before the first training step.
    """

    every_n_epochs: int | None = 1
    every_n_train_steps: int | tuple[int, ...] | Literal["log"] | None = None
    at_start: bool = False

    @property
    def by_steps(self) -> bool:
        """Whether comparisons follow optimizer steps instead of validations."""
        return self.every_n_train_steps is not None

    @property
    def first_step(self) -> int | None:
        """Return the first step after the start of training that is due; None if there is none."""
        steps = self.every_n_train_steps
        if isinstance(steps, tuple):
            return next((step for step in steps if step > 0), None)
        return 1 if steps == "log" else steps

    def is_due_epoch(self, epoch: int) -> bool:
        """Whether the validations of an epoch, counted from 0, are due."""
        return self.every_n_epochs is not None and (epoch + 1) % self.every_n_epochs == 0

    def is_due(self, before: int, now: int) -> bool:
        """Whether a step after ``before``, up to and including ``now``, is due."""
        return self.number_of_steps(before, now) > 0

    def number_of_steps(self, before: int, now: int) -> int:
        """Return how many steps after ``before`` (at least 0), up to and including ``now``, are due."""
        steps, before = self.every_n_train_steps, max(0, before)
        if isinstance(steps, int):
            return max(0, now // steps - before // steps)
        if steps == "log":
            return max(0, now.bit_length() - before.bit_length())
        return bisect_right(steps or (), now) - bisect_right(steps or (), before)

    def __str__(self) -> str:
        """Return the argument of `lightning_cka.CKAMonitor` that sets the schedule, with its value."""
        if not self.by_steps:
            return f"every_n_epochs={self.every_n_epochs}"
        steps = self.every_n_train_steps
        if isinstance(steps, tuple):
            return f"every_n_train_steps=[{', '.join(map(str, steps[:5]))}{', ...' if len(steps) > 5 else ''}]"
        return f"every_n_train_steps={steps!r}"


def parse_schedule(every_n_epochs: Any, every_n_train_steps: Any, compare_at_start: Any) -> Schedule:
    """Return the schedule of a `lightning_cka.CKAMonitor`.

    Args:
        every_n_epochs: A number of epochs. None: 1, or no epochs if there are steps.
        every_n_train_steps: A number of steps, some steps, "log" or None.
        compare_at_start: Whether to compare before the first training step. "log" and a list with 0 do, too.

    Raises:
        ValueError: Both are given, a number is too small, or there is no step.
        TypeError: A number is not an integer, or ``compare_at_start`` is not a bool.
    """
    if not isinstance(compare_at_start, bool):
        raise TypeError(f"compare_at_start must be True or False, but is {compare_at_start!r}")
    if every_n_train_steps is None:
        every = at_least(1, "every_n_epochs", 1 if every_n_epochs is None else every_n_epochs)
        return Schedule(every, None, compare_at_start)
    if every_n_epochs is not None:
        raise ValueError(
            f"every_n_epochs={every_n_epochs} compares at validations, every_n_train_steps={every_n_train_steps!r} "
            "after optimizer steps: pass one of them"
        )
    steps = _parse_steps(every_n_train_steps)
    has_start = steps == "log" or (isinstance(steps, tuple) and steps[0] == 0)
    return Schedule(None, steps, compare_at_start or has_start)


def _parse_steps(value: Any) -> int | tuple[int, ...] | Literal["log"]:
    if isinstance(value, str) and value == "log":
        return "log"
    if isinstance(value, str):
        raise ValueError(f"every_n_train_steps must be a number, some steps or 'log', but is {value!r}")
    if not isinstance(value, Iterable):
        return _step(1, value)
    steps = tuple(sorted({_step(0, step) for step in value}))
    if not steps:
        raise ValueError("every_n_train_steps is empty: pass at least one step, a number, or 'log'")
    return steps


def _step(minimum: int, value: Any) -> int:
    if isinstance(value, bool):
        raise TypeError(f"every_n_train_steps must be an integer, some integers or 'log', but has {value}")
    return at_least(minimum, "every_n_train_steps", to_integer("every_n_train_steps", value))
