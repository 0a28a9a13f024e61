"""`CKAMonitor`: the callback. It listens to the Trainer, and leaves the work to other modules."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any, Literal, NamedTuple

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from lightning_cka.bank import GramBank
from lightning_cka.capture import ForwardFn
from lightning_cka.collectives import sums_device
from lightning_cka.comparison import Comparison, Outcome
from lightning_cka.exchangeability import variation_flags
from lightning_cka.files import INITIAL, moment
from lightning_cka.flags import Thresholds, check_thresholds
from lightning_cka.functional import MIN_SAMPLES
from lightning_cka.kernels import Kernel, check_feature_kernel, check_kernels, kernel_name
from lightning_cka.layers import FeatureFn, Layers, check_feature_fn, check_layers, describe_function
from lightning_cka.live import LiveProbe, ProbeOptions
from lightning_cka.loggers import run_folder
from lightning_cka.memory import Kind, Memory
from lightning_cka.namespaces import join_namespaces
from lightning_cka.reference import ReferenceSource, parse_references
from lightning_cka.report import Report
from lightning_cka.result import CKAResult
from lightning_cka.scalars import scalar_names
from lightning_cka.trainer_checks import (
    check_epochs,
    check_monitored_keys,
    check_schedule,
    check_strategy,
    is_last_validation_batch,
    is_trial,
    validates,
)
from lightning_cka.trajectory import trajectories


class CKAMonitor(Callback):
    """Logs how the representations of a model change while it trains.

    At each validation epoch that is due, the model is shown a fixed probe set, and the CKA of its
    layers with those of each reference is logged as heatmap, drift map and scalars, and kept in
    ``results``. Layers whose CKA is not to be trusted are flagged in all of them, and named in a warning.
    Training is bit for bit what it is without the callback.

    The weights that are compared are those that were validated, also if a callback put an average in their place for
    validation, wherever in the list of callbacks it is; "initial" are those at the start of training. Without a
    validation loop, they are those at the end of the training epoch. What the Trainer's tuners run is not compared.

    Args:
        reference: what to compare with: "initial" (the weights at the start of training), "previous"
            (those of the last logged epoch, at first the initial ones), the number of an epoch (those at its last
            validation, from its end on), "self" (the model's own other layers), the path of a checkpoint of the same
            architecture, a module, or a sequence of these.
        layers: glob patterns over the names of the LightningModule's submodules, module classes, or a
            sequence of these. None: the leaf modules that own parameters, at most 64, evenly spaced. Of what a
            pattern or a class matches, layers that do not run are left out; those chosen by name are refused.
        reference_layers: the layers of references that are modules; None: as for the model.
        num_samples: size of the probe set, at most; None: the whole validation dataset. It is drawn from all of it,
            whatever part of it ``limit_val_batches`` or ``overfit_batches`` leave.
        batch_size: of the probe set; None: the validation loader's, lowered if need be to have 8 batches.
        dataloader: a probe loader of your own, taken as it is; it should shuffle, since CKA averaged over
            batches of similar samples is biased.
        dataloader_idx: which of several validation loaders the probe set is drawn from, in the order of the list,
            the mapping or the ``CombinedLoader`` that they are in.
        forward_fn: called with a module and a batch; None: ``module(batch)``, with the first element of a
            tuple or list, a mapping being spread over the arguments that ``forward`` names.
        feature_fn: "flatten" (default), "mean" (over all but batch and channel; of tokens, over those that the batch's
            ``attention_mask`` has), "cls" (first token), or a function from a layer's output to ``(n, ...)`` features.
        kernel: "linear"; "rbf" or `lightning_cka.kernels.RBF`, whose bandwidths the first probe batch fixes;
            "distance"; a function of ``(n, n)`` squared distances; or a sequence of these, each with keys of its own.
        unbiased: False takes the biased HSIC, for comparison with papers that do; its values depend on the batch size.
        thresholds: from where on a layer is flagged; None: the defaults of `lightning_cka.diagnostics.Thresholds`.
        every_n_epochs: log at the validations of every n-th epoch, of which there may be several; in training by steps,
            where an epoch may never end, leave it at 1, and set the Trainer's ``val_check_interval``.
        seed: of the choice of probe samples, and of any randomness while they are shown.
        log_key_prefix: of all logged keys.
        dirpath: folder of figures, results and banks; None: one named as the prefix in the folder of the run, where
            Lightning keeps its checkpoints. What another run left there is moved to a folder ``earlier-1`` in it.
        save_banks: write the Gram matrices of each logged epoch to ``dirpath/banks``, to be compared later with those
            of any other model; "float16" in half the space, with CKA within 1e-4. Those that a resumed run needs are
            written in any case.
        trajectory: at the end of training, log the CKA of each layer with itself at all logged epochs; implies
            ``save_banks``.

    Attributes:
        results: by the reference's name ("initial"), with several kernels by both ("initial/rbf"), one result per
            logged epoch, also of those before training was resumed. Filled on every process. Those of
            ``trainer.validate()``, whose weights may be of any epoch, have ``epoch`` and ``step`` None.

    Raises:
        ValueError: an argument that cannot be right. What can only be seen with the model and the data
            is checked at the start of training, before the first step.

    Example:
        >>> from lightning_cka import CKAMonitor
        >>> monitor = CKAMonitor(reference=["initial", "previous"], layers="net.*")
    """

    def __init__(
        self,
        reference: ReferenceSource | Sequence[ReferenceSource] = "initial",
        layers: Layers = None,
        *,
        reference_layers: Layers = None,
        num_samples: int | None = 2048,
        batch_size: int | None = None,
        dataloader: Any = None,
        dataloader_idx: int = 0,
        forward_fn: ForwardFn | None = None,
        feature_fn: FeatureFn = None,
        kernel: Sequence[Kernel] | Kernel = "linear",
        unbiased: bool = True,
        thresholds: Thresholds | None = None,
        every_n_epochs: int = 1,
        seed: int = 0,
        log_key_prefix: str = "cka/",
        dirpath: str | Path | None = None,
        save_banks: bool | Literal["float16"] = False,
        trajectory: bool = False,
    ) -> None:
        join_namespaces(CKAMonitor)
        _check_at_least(every_n_epochs, 1, "every_n_epochs")
        _check_at_least(num_samples, MIN_SAMPLES, "num_samples")
        _check_at_least(batch_size, MIN_SAMPLES, "batch_size")
        check_feature_fn(feature_fn)
        self._kernels = check_kernels(kernel)
        self.references = parse_references(reference)
        check_epochs(self.references, every_n_epochs)
        if save_banks not in (True, False, "float16"):
            raise ValueError(f"save_banks must be True, False or 'float16', but is {save_banks!r}")
        self.results: dict[str, list[CKAResult]] = {}
        self._options = ProbeOptions(
            selectors=check_layers(layers),
            reference_selectors=check_layers(reference_layers, "reference_layers"),
            num_samples=num_samples,
            batch_size=batch_size,
            dataloader=dataloader,
            dataloader_idx=dataloader_idx,
            forward_fn=forward_fn,
            feature_fn=feature_fn,
            seed=seed,
        )
        if reference_layers is not None and not any(isinstance(r.source, nn.Module) for r in self.references):
            raise ValueError("reference_layers are the layers of a reference that is a module, but there is none")
        self._unbiased = unbiased
        self._thresholds = check_thresholds(thresholds)
        self._every_n_epochs = every_n_epochs
        self._log_key_prefix = log_key_prefix
        self._dirpath = dirpath
        self._save_banks = save_banks or trajectory
        self._trajectory = trajectory
        self._memory: Memory | None = None
        self._resumed: dict[str, Any] = {}
        self._seen: _Seen | None = None

    @property
    def state_key(self) -> str:
        """Distinct for several monitors in one Trainer."""
        return self._generate_state_key(prefix=self._log_key_prefix, names=[r.name for r in self.references])

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: results, and where the banks are."""
        if self._memory is None:
            return {}
        return self._memory.state() | {"log_key_prefix": self._log_key_prefix}

    def on_load_checkpoint(
        self,
        trainer: Trainer,  # noqa: ARG002  # Lightning passes it to all hooks.
        pl_module: LightningModule,  # noqa: ARG002  # Likewise.
        checkpoint: dict[str, Any],
    ) -> None:
        """Take the state of the monitor of this prefix, whatever its references, for training to go on with."""
        for key, state in checkpoint["callbacks"].items():
            if str(key).startswith(type(self).__qualname__) and state.get("log_key_prefix") == self._log_key_prefix:
                self._resumed = state

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: ARG002
        """Forget an earlier checkpoint: the one that is resumed from, if any, is read after this."""
        self._resumed, self._seen = {}, None
        if stage == "fit":
            # A tuner saves a checkpoint before training, and reads it again: nothing of an earlier run shall be in it.
            self._memory = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check everything, and take or restore the Gram matrices of all references, before the first step."""
        check_schedule(self._every_n_epochs, trainer)
        check_epochs(self.references, self._every_n_epochs, trainer)
        self._prepare(trainer, pl_module)
        check_monitored_keys(trainer, self._log_key_prefix, self.references, self._keys(), self._every_n_epochs)
        self._remember(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prepare for ``trainer.validate()``, which has no training to start."""
        if trainer.state.fn == "validate":
            self._prepare(trainer, pl_module)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *_args: Any, **_kwargs: Any
    ) -> None:
        """Compare, if this epoch is due, with the weights that were validated.

        A callback that put averaged weights in their place for validation may take them out again at the epoch's end,
        before or after this one, as the order of the callbacks has it.
        """
        if self._is_due(trainer) and is_last_validation_batch(trainer):
            self._seen = self._compare(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what was compared."""
        if self._is_due(trainer):
            # There is no last batch of a loader that gave none.
            self._log(trainer, pl_module, self._seen or self._compare(trainer, pl_module))
            self._seen = None

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare and log where there is no validation loop to do it in."""
        if not validates(trainer) and self._is_due(trainer):
            self._log(trainer, pl_module, self._compare(trainer, pl_module))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Write tables and animations of the whole run, and log the trajectories."""
        for reference in self.references:
            if not reference.is_ready and not is_trial(trainer):
                self._report.warn_once(f"'{reference.name}' was not compared with: that epoch had no validation")
        if not self.results and all(reference.is_ready for reference in self.references):
            self._report.warn_once(
                f"CKAMonitor has no results: training ended before a validation in an epoch that was due "
                f"(every_n_epochs={self._every_n_epochs}, check_val_every_n_epoch={trainer.check_val_every_n_epoch})"
            )
        if self._report.writes:
            self._report.outlet.attempt(self._summarize)

    def _summarize(self) -> None:
        self._report.summarize(self.results)
        banks, step = self._memory.trajectory() if self._trajectory and self._memory is not None else ([], 0)
        if len(banks) > 1:
            for name, kernel in self._kernels.items():
                found = trajectories(banks, kernel=kernel, unbiased=self._unbiased, thresholds=self._thresholds)
                self._report.take_trajectories(name, found, step)

    def _keys(self) -> set[str]:
        """What will be logged of each reference."""
        keys = set()
        for reference in self.references:
            own = () if reference.source == "self" else self._probe.plan.names
            other = reference.bank.layers if reference.is_frozen and reference.bank is not None else own
            for kernel in self._kernels:
                prefix = f"{self._log_key_prefix}{self._report.key(reference.name, kernel)}/"
                keys |= {prefix + name for name in scalar_names(name for name in own if name in other)}
        return keys

    def _check_other_monitors(self, trainer: Trainer) -> None:
        """Refuse monitors that would log to the same keys, or write to the same files."""
        for other in trainer.callbacks:  # type: ignore[attr-defined]  # Set by a connector.
            if other is self or not isinstance(other, CKAMonitor):
                continue
            if self._log_key_prefix == other._log_key_prefix:
                shared = {r.name for r in self.references} & {r.name for r in other.references}
                keys = sorted(shared) or "the diagnostics of layers"
                raise ValueError(f"two CKAMonitors would log to the same keys for {keys}: set log_key_prefix=")
            folders = [monitor._place(trainer).resolve() for monitor in (self, other)]
            if any(one == two or one in two.parents for one, two in permutations(folders)):
                raise ValueError("two CKAMonitors would write to one folder, or into each other's: set dirpath=")

    def _place(self, trainer: Trainer) -> Path:
        """The folder of all files. Every process must ask."""
        default = run_folder(trainer) / (self._log_key_prefix.strip("/") or "cka")
        return default if self._dirpath is None else Path(self._dirpath)

    def _is_due(self, trainer: Trainer) -> bool:
        if trainer.sanity_checking:
            return False
        if trainer.state.fn == "validate" or is_trial(trainer):
            return True
        return (trainer.current_epoch + 1) % self._every_n_epochs == 0

    def _prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose the probe set, find the layers, and show it to the frozen references."""
        check_strategy(trainer)
        self._check_other_monitors(trainer)
        self._probe = LiveProbe(self._options, trainer, pl_module)
        if len(self._probe.plan.names) == 1 and any(reference.source == "self" for reference in self.references):
            raise ValueError("reference 'self' compares a model's layers with each other, but only one is chosen")
        for kernel in self._kernels.values():
            check_feature_kernel(kernel, self._probe.plan.num_samples)
        self._folder = self._place(trainer)
        self._report = Report(trainer, self._log_key_prefix, self._folder, list(self._kernels))
        for reference in self.references:
            if reference.is_frozen:
                reference.bank = self._probe.frozen_bank(reference, trainer, pl_module)

    def _remember(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the run's history and the banks of earlier states, or begin them."""
        state, report = self._resumed, self._report
        features = f"{describe_function(self._options.forward_fn)}, {describe_function(self._options.feature_fn)}"
        kinds = {
            report.key(reference.name, name): Kind(
                kernel_name(kernel),
                self._unbiased,
                list(self._probe.plan.names),
                features,
                self._probe.probe.description,
                f"{reference.identity} {reference.bank.layers}" if reference.is_frozen and reference.bank else "",
            )
            for reference in self.references
            for name, kernel in self._kernels.items()
        }
        memory = self._memory = Memory(
            self._folder,
            self.references,
            kinds,
            sums_device(pl_module.device),
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            float16=self._save_banks == "float16",
        )
        self.results = memory.results
        messages = memory.restore_results(state)
        skipped = self._skipped_epoch(trainer)
        needs = memory.earlier or self._save_banks
        now = self._probe.bank(trainer, pl_module, skipped, report.step) if needs else None
        goes_on = bool(state) or report.step > 0
        unsaved = ""
        if now is not None:
            if goes_on:
                messages += memory.restore_banks(state, now, trainer.current_epoch, trainer.global_step)
            else:
                memory.begin(now)
            unsaved = memory.unsaved(now) or (INITIAL if self._save_banks and not goes_on else "")
        for message in messages:
            report.warn_once(message)
        if report.writes:
            report.outlet.attempt(lambda: memory.tidy(state, now))
        if now is not None and unsaved:
            self._keep(trainer, unsaved, now)

    def _skipped_epoch(self, trainer: Trainer) -> int | None:
        """The epoch that ended with a checkpoint before its validation, which Lightning leaves out on resuming."""
        epoch, progress = trainer.current_epoch - 1, trainer.fit_loop.epoch_loop.batch_progress
        often = math.lcm(self._every_n_epochs, trainer.check_val_every_n_epoch or 1)
        # The last batch is completed once all callbacks have seen it; its validation comes thereafter.
        ended = progress.is_last_batch and progress.current.completed < progress.current.ready
        if not self._resumed or not ended or epoch < 0 or (epoch + 1) % often:
            return None
        self._report.warn_once(
            f"epoch {epoch} has no CKA: its checkpoint was saved before its validation, which is left out on resuming"
        )
        return epoch

    def _keep(self, trainer: Trainer, name: str, bank: GramBank) -> None:
        """Write a bank to disk. Every process must call this."""
        if self._memory is not None and not is_trial(trainer):
            try:
                self._memory.keep(name, bank)
            except OSError as error:
                self._report.outlet.warn_of(error, "a bank could not be written, resuming will lack it")

    def _compare(self, trainer: Trainer, pl_module: LightningModule) -> _Seen | None:
        """Show the live model the probe set; None if there is nothing to compare with."""
        report = self._report
        epoch, is_training = trainer.current_epoch, trainer.state.fn != "validate"
        # Counted up already where a training epoch is at its end: Lightning's own scalars are one step before.
        step = report.step if trainer.validating else report.step - 1
        live = self._probe.empty_bank(pl_module, epoch, step) if is_training and self._needs_bank(epoch) else None
        for reference in self.references:
            if live is not None and reference.epoch == epoch:
                reference.stand_for(live, moment(epoch, step))
            if not reference.is_ready and not is_training:
                report.warn_once(f"there is no '{reference.name}' to compare with: this model was not trained here")
        # Of several validations in an epoch, its reference is that of the last one.
        at_end = not validates(trainer) or trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        ready = {
            reference.name: reference
            for reference in self.references
            if reference.is_ready and (at_end or not is_training or reference.epoch != epoch)
        }
        if not ready and live is None:
            return None
        comparison = Comparison(
            self._probe.plan.names,
            {name: reference.bank for name, reference in ready.items()},
            self._kernels,
            pl_module.device,
            model_name=type(pl_module).__name__,
            unbiased=self._unbiased,
            thresholds=self._thresholds,
            sample_kind=self._probe.probe.sample_kind,
            distributed=True,
            bank=live,
        )
        self._probe.show(trainer, pl_module, comparison.add)
        outcomes = comparison.results(
            variation_flags(self._probe.variation),
            epoch=epoch if is_training else None,
            step=step if is_training else None,
        )
        return _Seen(outcomes, {name: reference.title for name, reference in ready.items()}, live)

    def _log(self, trainer: Trainer, pl_module: LightningModule, seen: _Seen | None) -> None:
        """Tell what came out, and keep the Gram matrices that will be asked for again."""
        if seen is None:
            return
        report, outcomes, live = self._report, seen.outcomes, seen.live
        for (name, kernel), outcome in outcomes.items():
            result = replace(outcome.result, reference_name=seen.titles[name])
            history = self.results.setdefault(report.key(name, kernel), [])
            history.append(result)
            told = report.warn_of(name, outcome, self._probe)
            report.take(pl_module, report.key(name, kernel), history, told)
        report.take_diagnostics(pl_module, outcomes)
        if live is not None:
            name = moment(live.epoch, live.step)
            for reference in self.references:
                if reference.source == "previous":
                    reference.stand_for(live, name)
            self._keep(trainer, name, live)

    def _needs_bank(self, epoch: int) -> bool:
        """Whether the model's Gram matrices of this epoch will be asked for again."""
        return bool(self._save_banks) or any(r.source == "previous" or r.epoch == epoch for r in self.references)


class _Seen(NamedTuple):
    """What came of one pass of the live model."""

    outcomes: dict[tuple[str, str], Outcome]
    titles: dict[str, str]
    """Of the references, by name."""
    live: GramBank | None
    """The model's Gram matrices, if they will be asked for again."""


join_namespaces(CKAMonitor)


def _check_at_least(value: int | None, minimum: int, name: str) -> None:
    if value is not None and value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, but is {value}")
