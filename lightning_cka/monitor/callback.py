"""`CKAMonitor`: the Lightning callback. It turns Trainer events into calls of the session."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from lightning_cka.compare.flags import Thresholds, check_thresholds
from lightning_cka.compare.result import CKAResult
from lightning_cka.hsic.grams import MIN_SAMPLES
from lightning_cka.hsic.kernels import Kernel, check_kernels
from lightning_cka.monitor.checks import check_epochs, check_monitored_keys, check_schedule, check_strategy
from lightning_cka.monitor.reference import ReferenceSource, parse_references
from lightning_cka.monitor.run_folder import run_folder
from lightning_cka.monitor.session import Session
from lightning_cka.monitor.settings import ProbeOptions, Settings
from lightning_cka.monitor.trainer_state import is_last_validation_batch, is_trial, validates
from lightning_cka.probe.features import FeatureFn, check_feature_fn
from lightning_cka.probe.forward import Call, ForwardFn, check_call
from lightning_cka.probe.layers import Layers, check_layers
from lightning_cka.runtime.namespaces import join_namespaces


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
            sequence of these. None: the innermost modules with parameters, at most 64. Of what a
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
        call: which call of a layer that runs several times in one forward pass counts: "first", "last", or "mean", the
            mean of the features over all calls.
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
        call: Call = "first",
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
        check_call(call)
        if save_banks not in (True, False, "float16"):
            raise ValueError(f"save_banks must be True, False or 'float16', but is {save_banks!r}")
        self.references = parse_references(reference)
        check_epochs(self.references, every_n_epochs)
        if reference_layers is not None and not any(isinstance(r.source, nn.Module) for r in self.references):
            raise ValueError("reference_layers are the layers of a reference that is a module, but there is none")
        self.results: dict[str, list[CKAResult]] = {}
        probe = ProbeOptions(
            selectors=check_layers(layers),
            reference_selectors=check_layers(reference_layers, "reference_layers"),
            num_samples=num_samples,
            batch_size=batch_size,
            dataloader=dataloader,
            dataloader_idx=dataloader_idx,
            forward_fn=forward_fn,
            feature_fn=feature_fn,
            seed=seed,
            call=call,
        )
        self._settings = Settings(
            probe,
            kernels=check_kernels(kernel),
            unbiased=unbiased,
            thresholds=check_thresholds(thresholds),
            every_n_epochs=every_n_epochs,
            log_key_prefix=log_key_prefix,
            save_banks=save_banks or trajectory,
            trajectory=trajectory,
        )
        self._dirpath = dirpath
        self._session: Session | None = None
        self._resumed: dict[str, Any] = {}

    @property
    def state_key(self) -> str:
        """Distinct for several monitors in one Trainer."""
        return self._generate_state_key(prefix=self._settings.log_key_prefix, names=[r.name for r in self.references])

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: results, and where the banks are."""
        if self._session is None or self._session.memory is None:
            return {}
        return self._session.memory.state() | {"log_key_prefix": self._settings.log_key_prefix}

    def on_load_checkpoint(
        self,
        trainer: Trainer,  # noqa: ARG002  # Lightning passes it to all hooks.
        pl_module: LightningModule,  # noqa: ARG002  # Likewise.
        checkpoint: dict[str, Any],
    ) -> None:
        """Take the state of the monitor of this prefix, whatever its references, for training to go on with."""
        for key, state in checkpoint["callbacks"].items():
            if (
                str(key).startswith(type(self).__qualname__)
                and state.get("log_key_prefix") == self._settings.log_key_prefix
            ):
                self._resumed = state

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: ARG002
        """Forget an earlier checkpoint: the one that is resumed from, if any, is read after this."""
        self._resumed = {}
        if stage == "fit":
            # A tuner saves a checkpoint before training, and reads it again: nothing of an earlier run shall be in it.
            self._session = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check everything, and take or restore the Gram matrices of all references, before the first step."""
        every_n_epochs = self._settings.every_n_epochs
        check_schedule(every_n_epochs, trainer)
        check_epochs(self.references, every_n_epochs, trainer)
        session = self._begin(trainer, pl_module)
        check_monitored_keys(trainer, self._settings.log_key_prefix, self.references, session.keys(), every_n_epochs)
        session.remember(self._resumed)
        self.results = session.results

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prepare for ``trainer.validate()``, which has no training to start."""
        if trainer.state.fn == "validate":
            self._begin(trainer, pl_module)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002  # Lightning passes it to all hooks.
        *_args: Any,
        **_kwargs: Any,
    ) -> None:
        """Compare, if this epoch is due, with the weights that were validated.

        A callback that put averaged weights in their place for validation may take them out again at the epoch's end,
        before or after this one, as the order of the callbacks has it.
        """
        if (session := self._due(trainer)) and is_last_validation_batch(trainer):
            session.compare()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Log what was compared."""
        if session := self._due(trainer):
            session.log()
            if trainer.state.fn == "validate":
                session.deliver(wait=True)

    def on_train_batch_start(
        self,
        trainer: Trainer,  # noqa: ARG002  # Lightning passes it to all hooks.
        pl_module: LightningModule,  # noqa: ARG002  # Likewise.
        *_args: Any,
        **_kwargs: Any,
    ) -> None:
        """Log the figures of the last comparison, once they are drawn."""
        if self._session is not None:
            self._session.deliver(wait=False)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Compare and log where there is no validation loop to do it in."""
        if not validates(trainer) and (session := self._due(trainer)):
            session.log()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Write tables and animations of the whole run, and log the trajectories."""
        if self._session is not None:
            self._session.end()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:  # noqa: ARG002
        """Do not lose the figures of the last comparison."""
        if self._session is not None:
            self._session.deliver(wait=True)

    def _due(self, trainer: Trainer) -> Session | None:
        """The session, if there is something to compare in it now."""
        is_due = (trainer.current_epoch + 1) % self._settings.every_n_epochs == 0
        is_due = is_due or trainer.state.fn == "validate" or is_trial(trainer)
        return self._session if is_due and not trainer.sanity_checking else None

    def _begin(self, trainer: Trainer, module: LightningModule) -> Session:
        check_strategy(trainer)
        self._check_other_monitors(trainer)
        memory = self._session.memory if self._session is not None else None
        self._session = Session(
            self._settings, self.references, self._place(trainer), self.results, trainer, module, memory
        )
        return self._session

    def _check_other_monitors(self, trainer: Trainer) -> None:
        """Refuse monitors that would log to the same keys, or write to the same files."""
        for other in trainer.callbacks:  # type: ignore[attr-defined]  # Set by a connector.
            if other is self or not isinstance(other, CKAMonitor):
                continue
            if self._settings.log_key_prefix == other._settings.log_key_prefix:
                shared = {r.name for r in self.references} & {r.name for r in other.references}
                keys = sorted(shared) or "the diagnostics of layers"
                raise ValueError(f"two CKAMonitors would log to the same keys for {keys}: set log_key_prefix=")
            folders = [monitor._place(trainer).resolve() for monitor in (self, other)]
            if any(one == two or one in two.parents for one, two in permutations(folders)):
                raise ValueError("two CKAMonitors would write to one folder, or into each other's: set dirpath=")

    def _place(self, trainer: Trainer) -> Path:
        """The folder of all files. Every process must ask."""
        default = run_folder(trainer) / (self._settings.log_key_prefix.strip("/") or "cka")
        return default if self._dirpath is None else Path(self._dirpath)


join_namespaces(CKAMonitor)


def _check_at_least(value: int | None, minimum: int, name: str) -> None:
    if value is not None and value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, but is {value}")
