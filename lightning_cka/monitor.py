"""`CKAMonitor`: the callback. It listens to the Trainer, and leaves the work to other modules."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn

from lightning_cka.capture import ForwardFn
from lightning_cka.comparison import Comparison, Outcome
from lightning_cka.diagnostics import Thresholds, check_thresholds
from lightning_cka.functional import MIN_SAMPLES
from lightning_cka.kernels import Kernel, check_feature_kernel, check_kernels
from lightning_cka.layers import FeatureFn, Layers, check_feature_fn, check_layers
from lightning_cka.live import LiveProbe, ProbeOptions
from lightning_cka.loggers import log_figures, log_text
from lightning_cka.notices import Notices
from lightning_cka.reference import ReferenceSource, parse_references
from lightning_cka.result import CKAResult
from lightning_cka.scalars import cka_scalars, diagnostic_scalars, logged_name


class CKAMonitor(Callback):
    """Logs how the representations of a model change while it trains.

    At each validation epoch that is due, the model is shown a fixed probe set, and the CKA of its
    layers with those of each reference is logged as heatmap, drift map and scalars, and kept in
    ``results``. Layers whose CKA is not to be trusted are flagged in all of them, and named in a warning.
    Training is bit for bit what it is without the callback.

    Args:
        reference: what to compare with: "initial" (the weights at the start of training), "previous"
            (those of the last logged epoch, at first the initial ones), "self" (the model's own other
            layers), the path of a checkpoint of the same architecture, a module, or a sequence of these.
        layers: glob patterns over the names of the LightningModule's submodules, module classes, or a
            sequence of these. None: the leaf modules that own parameters, at most 64, evenly spaced.
        reference_layers: the layers of references that are modules; None: as for the model.
        num_samples: size of the probe set, at most; None: the whole validation dataset.
        batch_size: of the probe set; None: the validation loader's, lowered if need be to have 8 batches.
        dataloader: a probe loader of your own, taken as it is; it should shuffle, since CKA averaged over
            batches of similar samples is biased.
        dataloader_idx: which of several validation loaders the probe set is drawn from.
        forward_fn: called with a module and a batch; None: ``module(batch)``, with the first element of a
            tuple or list, a mapping being spread over the arguments that ``forward`` names.
        feature_fn: "flatten" (default), "mean" (over all but batch and channel), "cls" (first token), or a
            function from a layer's output to ``(n, ...)`` features.
        kernel: "linear"; "rbf" or `lightning_cka.kernels.RBF`, whose bandwidths the first probe batch fixes;
            "distance"; a function of ``(n, n)`` squared distances; or a sequence of these, each with keys of its own.
        unbiased: False takes the biased HSIC, for comparison with papers that do; its values depend on the batch size.
        thresholds: from where on a layer is flagged; None: the defaults of `lightning_cka.diagnostics.Thresholds`.
        every_n_epochs: log at the end of every n-th epoch.
        seed: of the choice of probe samples, and of any randomness while they are shown.
        log_key_prefix: of all logged keys.
        dirpath: folder of the figures; None: one named as the prefix in the Trainer's ``log_dir``.

    Attributes:
        results: by the reference's name ("initial"), with several kernels by both ("initial/rbf"), one result per
            logged epoch. Filled on every process. Those of
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
        kernel: Kernel | Sequence[Kernel] = "linear",
        unbiased: bool = True,
        thresholds: Thresholds | None = None,
        every_n_epochs: int = 1,
        seed: int = 0,
        log_key_prefix: str = "cka/",
        dirpath: str | Path | None = None,
    ) -> None:
        _check_at_least(every_n_epochs, 1, "every_n_epochs")
        _check_at_least(num_samples, MIN_SAMPLES, "num_samples")
        _check_at_least(batch_size, MIN_SAMPLES, "batch_size")
        check_feature_fn(feature_fn)
        self._kernels = check_kernels(kernel)
        self.references = parse_references(reference)
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
        self._notices = Notices()

    @property
    def state_key(self) -> str:
        """Distinct for several monitors in one Trainer."""
        return self._generate_state_key(prefix=self._log_key_prefix, names=[r.name for r in self.references])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check everything, and take the Gram matrices of all references, before the first step."""
        self.results = {}
        self._notices = Notices()
        self._check_monitored_keys(trainer)
        if trainer.global_step > 0 and any(r.source in ("initial", "previous") for r in self.references):
            self._warn_once(
                f"training goes on from step {trainer.global_step}: 'initial' and 'previous' are the weights of now, "
                "not those of its first start"
            )
        self._prepare(trainer, pl_module)
        live = [r for r in self.references if r.source in ("initial", "previous")]
        bank = self._probe.bank(trainer, pl_module) if live else None
        for reference in live:
            reference.bank = bank

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prepare for ``trainer.validate()``, which has no training to start."""
        if trainer.state.fn == "validate":
            self._notices = Notices()
            self._prepare(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare and log, if this epoch is due."""
        if trainer.sanity_checking:
            return
        if trainer.state.fn == "validate" or self._is_due(trainer):
            self._compare_and_log(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare and log where there is no validation loop to do it in."""
        if not trainer.enable_validation and self._is_due(trainer):
            self._compare_and_log(trainer, pl_module)

    def _check_monitored_keys(self, trainer: Trainer) -> None:
        """Refuse callbacks that would find their key missing after an epoch that is not due."""
        for callback in trainer.callbacks:  # type: ignore[attr-defined]  # Set by a connector.
            key = getattr(callback, "monitor", None)
            often = getattr(callback, "_every_n_epochs", 1) or 1
            if (
                str(key).startswith(self._log_key_prefix)
                and getattr(callback, "strict", True)
                and often % self._every_n_epochs
                and (trainer.check_val_every_n_epoch or 1) % self._every_n_epochs
            ):
                raise ValueError(
                    f"{type(callback).__name__} looks for {key!r} at each validation, but CKAMonitor logs it every "
                    f"{self._every_n_epochs} epochs; use every_n_epochs=1, or check_val_every_n_epoch="
                    f"{self._every_n_epochs} in the Trainer"
                )

    def _check_other_monitors(self, trainer: Trainer) -> None:
        """Refuse monitors that would log to the same keys, or write to the same files."""
        for other in trainer.callbacks:  # type: ignore[attr-defined]  # Set by a connector.
            if other is self or not isinstance(other, CKAMonitor):
                continue
            shared = {r.name for r in self.references} & {r.name for r in other.references}
            if self._log_key_prefix == other._log_key_prefix:
                keys = sorted(shared) or "the diagnostics of layers"
                raise ValueError(f"two CKAMonitors would log to the same keys for {keys}: set log_key_prefix=")
            if shared and self._dirpath is not None and self._dirpath == other._dirpath:
                raise ValueError(f"two CKAMonitors would write the same files for {sorted(shared)}: set dirpath=")

    def _is_due(self, trainer: Trainer) -> bool:
        return (trainer.current_epoch + 1) % self._every_n_epochs == 0

    def _prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose the probe set, find the layers, and show it to the frozen references."""
        self._check_other_monitors(trainer)
        self._probe = LiveProbe(self._options, trainer, pl_module)
        if len(self._probe.plan.names) == 1 and any(reference.source == "self" for reference in self.references):
            raise ValueError("reference 'self' compares a model's layers with each other, but only one is chosen")
        for kernel in self._kernels.values():
            check_feature_kernel(kernel, self._probe.plan.num_samples)
        for reference in self.references:
            if reference.is_frozen:
                reference.bank = self._probe.frozen_bank(reference, trainer, pl_module)

    def _compare_and_log(self, trainer: Trainer, pl_module: LightningModule) -> None:
        ready = [r for r in self.references if r.is_ready]
        for reference in self.references:
            if not reference.is_ready:
                self._warn_once(f"there is no '{reference.name}' to compare with: this model was not trained here")
        if not ready:
            return
        comparison = Comparison(
            self._probe.plan.names,
            {reference.name: reference.bank for reference in ready},
            self._kernels,
            pl_module.device,
            model_name=type(pl_module).__name__,
            unbiased=self._unbiased,
            thresholds=self._thresholds,
            sample_kind=self._probe.probe.sample_kind,
            distributed=True,
            keep=any(reference.source == "previous" for reference in ready),
        )
        self._probe.show(trainer, pl_module, comparison.add)
        is_training = trainer.state.fn != "validate"
        step = trainer.fit_loop.epoch_loop._batches_that_stepped
        outcomes = comparison.results(
            epoch=trainer.current_epoch if is_training else None, step=step if is_training else None
        )
        # The Trainer broadcasts its log_dir, so that every process must ask for it.
        default = Path(trainer.log_dir or trainer.default_root_dir, self._log_key_prefix.strip("/") or "cka")
        dirpath = default if self._dirpath is None else Path(self._dirpath)
        for (name, kernel), outcome in outcomes.items():
            key = f"{name}/{kernel}" if len(self._kernels) > 1 else name
            self.results.setdefault(key, []).append(outcome.result)
            told = self._warn_of(trainer, name, outcome)
            self._log_scalars(pl_module, key, outcome.result)
            if trainer.is_global_zero and not getattr(trainer, "fast_dev_run", False):
                self._write(trainer, dirpath, key, step, told)
        self._log_diagnostics(pl_module, outcomes)
        for reference in ready:
            if reference.source == "previous" and is_training:
                reference.bank = comparison.bank

    def _log_scalars(self, pl_module: LightningModule, key: str, result: CKAResult) -> None:
        prefix = f"{self._log_key_prefix}{key}/"
        for name in () if result.within else result.same_named():
            if logged_name(name) != name:
                self._warn_once(f"the CKA of layer '{name}' is logged as '{prefix}{logged_name(name)}'")
        self._log(pl_module, prefix, cka_scalars(result))

    def _log_diagnostics(self, pl_module: LightningModule, outcomes: dict[tuple[str, str], Outcome]) -> None:
        for kernel in self._kernels:
            prefix = f"{self._log_key_prefix}diagnostics/" + (f"{kernel}/" if len(self._kernels) > 1 else "")
            results = [outcome.result for (_, other), outcome in outcomes.items() if other == kernel]
            self._log(pl_module, prefix, diagnostic_scalars(results))

    def _log(self, pl_module: LightningModule, prefix: str, values: dict[str, float]) -> None:
        for key, value in values.items():
            pl_module.log(prefix + key, value, on_step=False, on_epoch=True, sync_dist=True, batch_size=1)

    def _write(self, trainer: Trainer, dirpath: Path, key: str, step: int, told: list[str]) -> None:
        """Figures and warnings, to loggers and files. Rank 0 is alone here, and must not raise alone."""
        try:
            for message in told:
                log_text(trainer.loggers, f"{self._log_key_prefix}diagnostics", message, step)
            prefix = f"{self._log_key_prefix}{key}/"
            unable = log_figures(trainer.loggers, prefix, dirpath / key, self.results[key], step)
        except OSError as error:
            self._warn_once(f"the CKA figures could not be written, training goes on: {error}")
            return
        if unable:
            self._warn_once(f"{', '.join(unable)} cannot take images: the CKA figures are in {dirpath}")

    def _warn_of(self, trainer: Trainer, name: str, outcome: Outcome) -> list[str]:
        """Warn of what is new, and give the warnings of flags."""
        for message in self._notices.undefined(outcome):
            rank_zero_warn(message)
        told: list[str] = []
        if not getattr(trainer, "fast_dev_run", False):  # Its few samples prove nothing.
            told = self._notices.flagged(outcome, self._probe.probe.sample_kind, earlier_states=["previous"])
        for message in told:
            rank_zero_warn(message)
        if outcome.num_mismatched:
            # Not for rank 0 alone: each process sees batches of its own.
            warnings.warn(
                f"{outcome.num_mismatched} probe batches were left out of the comparison with '{name}', "
                "since their inputs are not those that it was shown: the dataset or dataloader= does not give the same "
                "samples each time",
                stacklevel=2,
            )
        return told

    def _warn_once(self, message: str) -> None:
        if self._notices.is_new(message):
            rank_zero_warn(message)


def _check_at_least(value: int | None, minimum: int, name: str) -> None:
    if value is not None and value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, but is {value}")
