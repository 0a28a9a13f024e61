"""Before training with `FreezeConverged`: find the monitor, check the strategy, and choose the layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from lightning_cka.hsic.measure import CKA
from lightning_cka.monitor.bank_limit import number_of_comparisons
from lightning_cka.monitor.settings import Settings
from lightning_cka.monitor.trainer_events import TrainerEvents
from lightning_cka.monitor.trainer_state import is_trial
from lightning_cka.probe.layers import LayerPlan, LayerSelector, is_default, match_layers, taken_away
from lightning_cka.runtime.module_names import named_layers
from lightning_cka.runtime.namespaces import class_names

if TYPE_CHECKING:
    from lightning_cka.monitor.callback import CKAMonitor


def find_monitor(given: CKAMonitor | None, trainer: Trainer) -> TrainerEvents:
    """Return the monitor whose results count.

    Args:
        given: The one that the user gave; None: the only one of the Trainer.
        trainer: The Trainer.

    Raises:
        ValueError: The Trainer has no such monitor, or several, or it does not measure CKA.
    """
    found = [each for each in trainer.callbacks if isinstance(each, TrainerEvents)]  # type: ignore[attr-defined]  # Set by a connector.
    if given is not None and given not in found:
        raise ValueError("the monitor= of FreezeConverged is not among the callbacks of the Trainer: add it")
    if given is None and len(found) != 1:
        number = f"{len(found)}: pass one of them as monitor=" if found else "none: add one to its callbacks"
        raise ValueError(f"FreezeConverged needs a CKAMonitor, but the Trainer has {number}")
    monitor = given or found[0]
    if not any(isinstance(measure, CKA) for measure in monitor._settings.measures.values()):
        raise ValueError("FreezeConverged needs CKA: add 'cka' to measures= of CKAMonitor")
    return monitor


def key_of_cka(settings: Settings, reference: str) -> str:
    """Return the key of the results with a reference by the first CKA among the measures."""
    return settings.key(reference, next(name for name, each in settings.measures.items() if isinstance(each, CKA)))


def check_unused_parameters(trainer: Trainer, module: LightningModule) -> None:
    """Reject strategies that need a gradient of each parameter in each step.

    Raises:
        ValueError: The strategy is DDP without ``find_unused_parameters``, or with a static graph.
    """
    if "DDPStrategy" not in class_names(trainer.strategy):
        return
    options = getattr(trainer.strategy, "_ddp_kwargs", {})
    if options.get("static_graph"):
        raise ValueError("FreezeConverged does not work with static_graph=True: freezing changes the graph")
    # Lightning sets it by itself if the module optimizes by hand.
    if not options.get("find_unused_parameters") and module.automatic_optimization:
        raise ValueError(
            "FreezeConverged needs find_unused_parameters=True, because DDP waits for gradients of frozen layers "
            "otherwise: pass strategy='ddp_find_unused_parameters_true' to the Trainer"
        )


def chosen_in_order(plan: LayerPlan, selectors: tuple[LayerSelector, ...] | None, module: LightningModule) -> list[str]:
    """Return the compared layers that may be frozen, in execution order.

    Raises:
        ValueError: None of the chosen layers is compared.
    """
    without = taken_away(module, selectors)
    chosen = plan.names if is_default(selectors, named_layers(module)) else match_layers(module, selectors)
    order = [name for name in plan.execution_order if name in chosen and name not in without]
    if not order:
        raise ValueError(f"FreezeConverged: layers={list(selectors or ())} chooses none that CKAMonitor compares")
    return order


def warn_if_too_short(settings: Settings, patience: int, trainer: Trainer) -> None:
    """Warn if a new training will end before anything can be frozen."""
    number = number_of_comparisons(settings, trainer)
    needed = patience + (not settings.schedule.by_steps)  # After the last step that is due, training may go on.
    if number is None or number >= needed or trainer.global_step > 0 or is_trial(trainer):
        return
    rank_zero_warn(
        f"FreezeConverged will freeze nothing: training makes {number} comparisons, but with patience={patience} it "
        f"takes {needed}"
    )


def describe_way_back(patience: int) -> str:
    """Return in words what the CKA is with."""
    return f"the state {patience} comparison{'s' if patience > 1 else ''} ago"
