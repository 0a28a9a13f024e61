"""`TrainerEvents`: what a monitor does at each event of the Trainer."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_cka.compare.result import CKAResult
from lightning_cka.decisions.ceiling import SeedCeiling
from lightning_cka.monitor.finish_resumed import finish_run
from lightning_cka.monitor.monitored_keys import check_monitored_keys
from lightning_cka.monitor.other_monitors import check_outputs_differ
from lightning_cka.monitor.reference import Reference
from lightning_cka.monitor.reference_names import name_references, parse_references
from lightning_cka.monitor.run_state import RunState, saved_probes
from lightning_cka.monitor.saved_state import read_state, sealed
from lightning_cka.monitor.session import Session
from lightning_cka.monitor.settings import Settings
from lightning_cka.monitor.trainer_checks import check_epochs, check_schedule, check_strategy
from lightning_cka.monitor.trainer_state import (
    is_last_training_batch,
    is_last_validation_batch,
    is_trial,
    is_validate,
    moment_of_step,
    moment_of_validation,
    validates,
)
from lightning_cka.probe.layers import LayerPlan
from lightning_cka.runtime.module_names import unwrapped


class TrainerEvents(Callback):
    """Turns the events of a Trainer into calls of a `Session`.

    Attributes:
        references: The references of the monitor.
        results: See `lightning_cka.CKAMonitor`.
        ceilings: See `lightning_cka.CKAMonitor`.
    """

    references: list[Reference]
    _settings: Settings

    def __init__(self) -> None:
        self.results: dict[str, list[CKAResult]] = {}
        self.ceilings: dict[str, SeedCeiling] = {}
        self._session: Session | None = None
        self._run: RunState | None = None
        self._earlier: RunState | None = None
        self._saved: dict[str, Any] = {}
        self._step = 0

    @property
    def state_key(self) -> str:
        """Return a key that is unique for each monitor of a Trainer."""
        return self._generate_state_key(prefix=self._settings.log_key_prefix, names=[r.name for r in self.references])

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: where results and banks are, not the results themselves."""
        if self._run is None:
            return {}
        return sealed(self._run.state_dict() | {"log_key_prefix": self._settings.log_key_prefix})

    @property
    def plan(self) -> LayerPlan:
        """Return which layers of the live model are compared. They are known from the start of training on."""
        if self._session is None:
            raise RuntimeError("the compared layers are known from the start of training on")
        return self._session.probe.plan

    def compare_with_previous(self, lag: int, module: LightningModule) -> Reference:
        """Return the reference to the state some comparisons ago, which is added if the user did not list it.

        Call it before training starts, in ``setup``.

        Args:
            lag: Number of comparisons to look back.
            module: The live model.
        """
        found = [reference for reference in self.references if reference.lag == lag]
        if not found:
            found = parse_references(f"previous:{lag}")
            self.references += found
            name_references(self.references, type(unwrapped(module)).__name__)
        return found[0]

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:  # noqa: ARG002  # Lightning passes it by position.
        """Read the state of the monitor with this prefix, which may have other references now."""
        self._saved = read_state(checkpoint, type(self).__qualname__, self.state_key, self._settings.log_key_prefix)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: ARG002  # Lightning passes it by position.
        """Name the references, and clear the state of an earlier run. Lightning reads the checkpoint after this."""
        self._saved = {}
        name_references(self.references, type(unwrapped(pl_module)).__name__)
        if stage == "fit":
            # A tuner saves and reads a checkpoint before training, which must not contain an earlier run.
            self._earlier, self._run, self._session = self._run or self._earlier, None, None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check all settings, and take or restore the banks of all references, before the first step."""
        schedule = self._settings.schedule
        check_schedule(schedule, trainer)
        check_epochs(self.references, schedule, trainer)
        session = self._open_session(trainer, pl_module)
        check_monitored_keys(trainer, self._settings, self.references, session.probe.plan.names)
        session.start(self._saved, self._earlier)
        self.results, self._run, self._earlier = session.results, session.run, None
        self.ceilings = session.ceilings
        self._step = trainer.global_step

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prepare for ``trainer.validate()``, which has no start of training."""
        if is_validate(trainer):
            self._open_session(trainer, pl_module)

    def on_validation_batch_end(self, trainer: Trainer, *_args: Any, **_kwargs: Any) -> None:
        """Compare at the last validation batch, while the model still has the weights that were validated.

        A callback that averages weights may restore the model's own ones at the end of the validation epoch.
        """
        if (session := self._due_session(trainer)) and is_last_validation_batch(trainer):
            session.compare(moment_of_validation(trainer))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002  # Lightning passes it by position.
        """Log the results of the comparison."""
        if session := self._due_session(trainer):
            session.log(moment_of_validation(trainer))
            if is_validate(trainer):
                session.finish()

    def on_train_batch_start(self, *_args: Any, **_kwargs: Any) -> None:
        """Log the figures of the last comparison that are drawn by now."""
        if self._session is not None:
            self._session.deliver(wait=False)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_args: Any, **_kwargs: Any) -> None:
        """Compare and log after an optimizer step that is due.

        The compared weights are those that are trained, not averaged ones, which Lightning uses in validation only.
        """
        before, self._step = self._step, trainer.global_step
        session, schedule = self._session, self._settings.schedule
        if session is None or not schedule.by_steps or self._step == before:
            return
        if schedule.is_due(before, self._step) or (is_trial(trainer) and is_last_training_batch(trainer)):
            session.log(moment_of_step(trainer, pl_module))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002  # Lightning passes it by position.
        """Compare and log if there is no validation loop."""
        if not validates(trainer) and (session := self._due_session(trainer)):
            session.log(moment_of_validation(trainer))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002  # Lightning passes it by position.
        """Write tables and animations, and log the trajectories."""
        if self._session is not None:
            self._session.end()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Finish a checkpoint's run that has nothing left to train: Lightning calls no ``on_train_start`` then."""
        if self._session is None:
            self._run = self._earlier
            if self._saved and not is_trial(trainer):
                self._run = finish_run(self._saved, self.references, self._settings, trainer, pl_module)
            self.results = self.results if self._run is None else self._run.results

    def on_exception(self, *_args: Any, **_kwargs: Any) -> None:
        """Log the figures of the last comparison before the Trainer stops."""
        if self._session is not None:
            self._session.finish()

    def _due_session(self, trainer: Trainer) -> Session | None:
        """Return the session if this epoch is to be logged; otherwise None."""
        schedule = self._settings.schedule
        is_due = schedule.is_due_epoch(trainer.current_epoch) or (is_trial(trainer) and not schedule.by_steps)
        is_due = is_due or is_validate(trainer)
        return self._session if is_due and not trainer.sanity_checking else None

    def _open_session(self, trainer: Trainer, module: LightningModule) -> Session:
        check_strategy(trainer)
        others = [c for c in trainer.callbacks if c is not self and isinstance(c, TrainerEvents)]  # type: ignore[attr-defined]  # Set by a connector.
        for other in others:
            check_outputs_differ(trainer, self._settings, self.references, other._settings, other.references)
        known = saved_probes(self._saved) | (self._earlier.probes if self._earlier else set())
        self._session = Session(self._settings, self.references, self.results, trainer, module, self._run, known)
        return self._session
