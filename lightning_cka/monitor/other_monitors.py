"""Several monitors in one Trainer must not log to the same keys or write to the same folder."""

from __future__ import annotations

from collections.abc import Sequence

from lightning.pytorch import Trainer

from lightning_cka.monitor.reference import Reference
from lightning_cka.monitor.run_folder import monitor_folder
from lightning_cka.monitor.settings import Settings


def check_outputs_differ(
    trainer: Trainer,
    settings: Settings,
    references: Sequence[Reference],
    other: Settings,
    other_references: Sequence[Reference],
) -> None:
    """Reject two monitors that would overwrite each other's output. Every process must call this.

    Args:
        trainer: The Trainer of both monitors.
        settings: Settings of one monitor.
        references: References of this monitor.
        other: Settings of the other monitor.
        other_references: References of the other monitor.

    Raises:
        ValueError: They log to the same keys, or one's folder is equal to or inside the other's.
    """
    if settings.log_key_prefix == other.log_key_prefix:
        shared = {reference.name for reference in references} & {reference.name for reference in other_references}
        keys = sorted(shared) or "the diagnostics of layers"
        raise ValueError(f"two CKAMonitors would log to the same keys for {keys}: set log_key_prefix=")
    if settings.diagnostics_prefix in (other.diagnostics_prefix, other.log_key_prefix) or (
        settings.log_key_prefix == other.diagnostics_prefix
    ):
        raise ValueError(
            f"two CKAMonitors would log to the same keys for the diagnostics of layers, under "
            f"{settings.diagnostics_prefix!r}: log_key_prefix={settings.log_key_prefix!r} and "
            f"{other.log_key_prefix!r} are too similar"
        )
    one, two = (monitor_folder(trainer, each).resolve() for each in (settings, other))
    if one == two or one in two.parents or two in one.parents:
        raise ValueError("two CKAMonitors would write to one folder, or into each other's: set dirpath=")
