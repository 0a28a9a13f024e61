"""`Freezing`: which layers of one training are frozen, and when further ones are."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from lightning_cka.compare.result import CKAResult
from lightning_cka.compare.run_files import last_of_training, moment_order, moment_text
from lightning_cka.decisions.converged_prefix import converged_prefix
from lightning_cka.monitor.freeze_checks import describe_way_back, key_of_cka
from lightning_cka.monitor.reference import Reference
from lightning_cka.monitor.trainer_events import TrainerEvents
from lightning_cka.monitor.warn_once import WarnOnce
from lightning_cka.probe.chosen_layers import in_short
from lightning_cka.runtime.collectives import all_gather
from lightning_cka.runtime.devices import sums_device
from lightning_cka.runtime.frozen_layers import FrozenLayers
from lightning_cka.runtime.module_names import is_compiled, named_layers
from lightning_cka.runtime.temporary_hook import TemporaryHook


class FreezeOptions(NamedTuple):
    """Arguments of `lightning_cka.FreezeConverged`."""

    tolerance: float
    patience: int
    level: float


class Freezing:
    """Freezes layers of a model after comparisons, and trains them again on request. Every process calls its methods.

    Args:
        options: What a layer must pass.
        monitor: The monitor whose results count.
        reference: Its reference to the state ``patience`` comparisons ago.
        module: The live model.

    Attributes:
        frozen: Epoch and step of the comparison after which a layer was frozen, by layer.
    """

    def __init__(
        self, options: FreezeOptions, monitor: TrainerEvents, reference: Reference, module: LightningModule
    ) -> None:
        self.frozen: dict[str, tuple[int | None, int]] = {}
        self.module = module
        self._options = options
        self._monitor = monitor
        self._reference = reference
        self._layers = FrozenLayers(module)
        self._since = (-1, -1)  # Order of the last comparison that does not count.
        self._held: list[str] = []  # Layers that others keep from training, such as BackboneFinetuning.
        self._judged: CKAResult | None = None
        self._hook: Any = None
        self._warn = WarnOnce()

    def state_dict(self) -> dict[str, Any]:
        """Return plain values for a checkpoint."""
        frozen = {name: list(when) for name, when in self.frozen.items()}
        return {"frozen": frozen, "since": list(self._since), "held": self._held}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned. `apply` then freezes these layers."""
        self.frozen = {name: (epoch, step) for name, (epoch, step) in state["frozen"].items()}
        step, epoch = state["since"]
        self._since = (step, epoch)
        self._held = state.get("held", [])

    def apply(self) -> None:
        """Freeze the layers that are to be frozen, and no others."""
        self._layers.set(self.frozen)

    def keep_in_eval(self) -> None:
        """Keep batch norms of frozen layers in eval mode."""
        self._layers.keep_in_eval()

    def unfreeze(self, names: Collection[str]) -> None:
        """Train layers again. Comparisons up to now do not count any more."""
        if not names:
            return
        self.frozen = {name: when for name, when in self.frozen.items() if name not in names}
        for last in last_of_training(self._results()):
            self._since = moment_order(last.epoch, last.step)
        self.apply()

    def judge(self, order: Sequence[str], trainer: Trainer) -> None:
        """Freeze the layers that have converged, if the last comparison is a new one.

        Args:
            order: The layers that may be frozen, in execution order.
            trainer: The Trainer, between two optimizer steps.
        """
        results = self._results()
        if not results or results[-1] is self._judged:
            return
        self._judged = results[-1]
        tolerance, patience, level = self._options
        recent = last_of_training(results, patience)
        before, self._held = self._held, self._layers.held(order)
        if recent and not set(before) <= set(self._held):  # A layer that did not train has not converged.
            self._since = moment_order(recent[-1].epoch, recent[-1].step)
        if sum(moment_order(each.epoch, each.step) > self._since for each in recent) < patience:
            return
        last = recent[-1]
        found = converged_prefix(last, order, tolerance, level, {*self.frozen, *self._held})
        if found.problem:
            self._warn(
                f"FreezeConverged: layer '{found.stopped_by}' {found.problem}. It and those after it are not frozen"
            )
        names = list(found.bounds)[: self._number_to_freeze(list(found.bounds), trainer)]
        if not names:
            return
        self.frozen |= dict.fromkeys(names, (last.epoch, last.step or 0))
        self.apply()
        lowest = min(found.bounds[name] for name in names)
        rank_zero_info(
            f"FreezeConverged froze {in_short(names)} after {moment_text(last.epoch, last.step)}: CKA with "
            f"{describe_way_back(patience)} is above {lowest:.4f} ({level:.0%} confidence)"
        )
        self._say_what_still_trains(names[-1])

    def _number_to_freeze(self, names: Sequence[str], trainer: Trainer) -> int:
        """Return how many further layers to freeze, which is the same on all processes."""
        allowed = self._layers.number_allowed([*self.frozen, *names], trainer.optimizers) - len(self.frozen)
        if names and allowed < len(names):
            self._warn(
                f"FreezeConverged: layer '{names[allowed]}' has converged, too, but an optimizer would have nothing to "
                "train without it. Training itself may have converged"
            )
        # All processes have the same results. Rounding errors must not make them differ.
        own = torch.tensor(min(len(names), allowed), device=sums_device(self.module.device))
        return int(min(all_gather(own, distributed=True)))

    def _say_what_still_trains(self, last: str) -> None:
        """Warn about shared parameters, and after the next forward pass about those that run before the last layer."""
        if shared := self._layers.shared(self.frozen):
            self._warn(f"FreezeConverged: {in_short(shared)} stays trainable, because a layer that trains shares it")
        if not is_compiled(self.module):  # A hook would be compiled, too.
            self._hook = named_layers(self.module)[last].register_forward_hook(TemporaryHook(self._look_behind))

    def _look_behind(self, output: Any) -> None:
        known = self._layers.shared(self.frozen)
        if reached := [name for name in self._layers.reached_from(output) if name not in known]:
            self._warn(
                f"FreezeConverged: backward passes still go through frozen layers, because {in_short(reached)} runs "
                "before them and belongs to no frozen layer. Let CKAMonitor compare its layer, or freeze it yourself"
            )

    def remove_hook(self) -> None:
        """Remove the hook that looks for parameters that run before frozen layers."""
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def _results(self) -> list[CKAResult]:
        """Return the results with the state some comparisons ago, in order."""
        return self._monitor.results.get(key_of_cka(self._monitor._settings, self._reference.name), [])
