"""`CKAMonitor`: the Lightning callback, which turns Trainer events into calls of a `Session`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from lightning_cka.compare.flags import Thresholds, check_thresholds
from lightning_cka.compare.result import CKAResult
from lightning_cka.hsic.kernels import Kernel, check_kernels
from lightning_cka.monitor.checks import check_epochs, check_schedule, check_strategy
from lightning_cka.monitor.monitored_keys import check_monitored_keys
from lightning_cka.monitor.other_monitors import check_outputs_differ
from lightning_cka.monitor.reference import ReferenceSource, parse_references
from lightning_cka.monitor.session import Session
from lightning_cka.monitor.settings import ProbeOptions, Settings
from lightning_cka.monitor.trainer_state import is_last_validation_batch, is_trial, is_validate, validates
from lightning_cka.probe.features import FeatureFn
from lightning_cka.probe.forward import ForwardFn
from lightning_cka.probe.layers import Layers, check_layers
from lightning_cka.runtime.namespaces import join_namespaces


class CKAMonitor(Callback):
    """Logs how the representations of a model change while it trains.

    At each validation, the model is shown the probe set, a fixed set of validation samples. CKA compares its layers
    with the layers of each reference. The values are logged as a heatmap, a drift map and scalars, and kept in
    ``results``. A warning names layers with unreliable CKA. Training is bit for bit the same as without the callback.

    The compared weights are the ones that Lightning validates, for example averaged weights. Without a validation loop,
    they are the weights at the end of each training epoch. Runs of the Trainer's tuners are not compared.

    Args:
        reference: What to compare with: "initial" (the weights at the start of training), "previous" (the weights at
            the last logged epoch), the number of an epoch, counted from 0 (the weights at its last validation), "self"
            (the model's own other layers), the path of a checkpoint of the same architecture, a module, or a sequence
            of these. Before the first logged epoch, "previous" is "initial".
        layers: Glob patterns over names of submodules, module classes, or a sequence of these. None: the leaf modules
            with parameters, at most 64, evenly spaced. Layers that match but do not run in ``forward`` are skipped. A
            layer chosen by its full name must run.
        reference_layers: Layers of references that are modules, like ``layers``. None: the names of the model's layers.
        num_samples: Maximum number of samples in the probe set. None: the whole validation dataset.
            ``limit_val_batches`` and ``overfit_batches`` do not restrict the choice.
        batch_size: Number of samples in a probe batch, at least 4. None: the validation loader's batch size, or less so
            that there are 8 batches.
        dataloader: Your own loader of probe batches, used as it is. It should shuffle, because batches of similar
            samples bias CKA. None: the probe set is drawn from the validation dataset.
        dataloader_idx: Index of the validation loader that the probe set is drawn from, if there are several.
        forward_fn: Function of a module and a batch that runs the model. None: ``module(batch)``, or for a tuple or
            list ``module(batch[0])``. From a mapping, ``forward`` gets the entries that it has arguments for.
        feature_fn: How a layer's output becomes features ``(n, ...)``: "flatten", "mean" (over all dimensions but batch
            and channel; of tokens, those in ``attention_mask``), "cls" (the first token), or a function of the output.
            None: "flatten".
        kernel: "linear", "rbf", "distance", an `lightning_cka.RBF`, a function of ``(n, n)`` squared distances, or a
            sequence of these. The first probe batch fixes the bandwidths of RBF kernels. With several kernels, logged
            keys contain the kernel's name.
        unbiased: Whether to use unbiased HSIC. The biased one, which some papers use, depends on the batch size.
        thresholds: Limits beyond which a layer is flagged. None: the defaults of `lightning_cka.Thresholds`.
        every_n_epochs: Log in every n-th epoch, at each of its validations. If an epoch may never end, use 1 and set
            the Trainer's ``val_check_interval``.
        seed: Random seed of the choice of samples, and of random operations in the model's forward pass.
        log_key_prefix: Prefix of all logged keys.
        dirpath: Folder of figures, results and banks. None: a folder called like the prefix, beside Lightning's
            checkpoints. Files of earlier runs are moved into its subfolder ``earlier-1``.
        save_banks: Whether to write the Gram matrices of each logged epoch to ``dirpath/banks``, for comparisons after
            training. "float16" halves the files, and changes CKA by less than 1e-4. Banks that resuming needs are
            always written.
        trajectory: Whether to log, when training ends, the CKA of each layer with itself at all other logged epochs. It
            implies ``save_banks``.

    Attributes:
        references: The references, with their names.
        results: Results by reference name ("initial"), or with several kernels by both names ("initial/rbf"). Each
            value is a list with one result per comparison, including those before training was resumed. All processes
            have it. Results of ``trainer.validate()`` have ``epoch`` and ``step`` None.

    Raises:
        ValueError: An argument is invalid. Problems with the model or the data raise before the first training step.
        TypeError: An argument has an unsupported type.
        FileNotFoundError: The checkpoint of a reference does not exist.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from lightning.pytorch import Trainer
        >>> from lightning.pytorch.demos.boring_classes import BoringModel, RandomDataset
        >>> from torch.utils.data import DataLoader
        >>> from lightning_cka import CKAMonitor
        >>> model, loader = BoringModel(), DataLoader(RandomDataset(32, 512), batch_size=64)
        >>> model.layer = nn.Linear(32, 16)
        >>> monitor = CKAMonitor(reference="initial")
        >>> quiet = dict.fromkeys(["logger", "enable_progress_bar", "enable_model_summary"], False)
        >>> with TemporaryDirectory() as folder:
        ...     trainer = Trainer(max_epochs=1, callbacks=[monitor], default_root_dir=folder, **quiet)
        ...     trainer.fit(model, loader, loader)
        >>> result = monitor.results["initial"][-1]
        >>> result.epoch, result.layers, 0 < result.mean() < 1
        (0, ('layer',), True)
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
        )
        self._settings = Settings(
            probe,
            kernels=check_kernels(kernel),
            unbiased=unbiased,
            thresholds=check_thresholds(thresholds),
            every_n_epochs=every_n_epochs,
            log_key_prefix=log_key_prefix,
            dirpath=dirpath,
            save_banks=save_banks,
            trajectory=trajectory,
        )
        self.references = parse_references(reference)
        check_epochs(self.references, self._settings.every_n_epochs)
        if reference_layers is not None and not any(isinstance(r.source, nn.Module) for r in self.references):
            raise ValueError("reference_layers are the layers of a reference that is a module, but there is none")
        self.results: dict[str, list[CKAResult]] = {}
        self._session: Session | None = None
        self._saved: dict[str, Any] = {}

    @property
    def state_key(self) -> str:
        """Return a key that is unique for each monitor of a Trainer."""
        return self._generate_state_key(prefix=self._settings.log_key_prefix, names=[r.name for r in self.references])

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: results, and where the banks are."""
        if self._session is None or self._session.run is None:
            return {}
        return self._session.run.state_dict() | {"log_key_prefix": self._settings.log_key_prefix}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:  # noqa: ARG002
        """Read the state of the monitor with this prefix, which may have other references now."""
        for key, state in checkpoint["callbacks"].items():
            has_prefix = state.get("log_key_prefix") == self._settings.log_key_prefix
            if str(key).startswith(type(self).__qualname__) and has_prefix:
                self._saved = state

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: ARG002
        """Clear the state of an earlier run. Lightning reads the checkpoint to resume from after this."""
        self._saved = {}
        if stage == "fit":
            # A tuner saves and reads a checkpoint before training, which must not contain an earlier run.
            self._session = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check all settings, and take or restore the banks of all references, before the first step."""
        every_n_epochs = self._settings.every_n_epochs
        check_schedule(every_n_epochs, trainer)
        check_epochs(self.references, every_n_epochs, trainer)
        session = self._open_session(trainer, pl_module)
        check_monitored_keys(trainer, self._settings, self.references, session.probe.plan.names)
        session.start(self._saved)
        self.results = session.results

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prepare for ``trainer.validate()``, which has no start of training."""
        if is_validate(trainer):
            self._open_session(trainer, pl_module)

    def on_validation_batch_end(self, trainer: Trainer, *_args: Any, **_kwargs: Any) -> None:
        """Compare at the last validation batch, while the model still has the weights that were validated.

        A callback that averages weights may restore the model's own ones at the end of the validation epoch.
        """
        if (session := self._due_session(trainer)) and is_last_validation_batch(trainer):
            session.compare()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Log the results of the comparison."""
        if session := self._due_session(trainer):
            session.log()
            if is_validate(trainer):
                session.deliver(wait=True)

    def on_train_batch_start(self, *_args: Any, **_kwargs: Any) -> None:
        """Log the figures of the last comparison that are drawn by now."""
        if self._session is not None:
            self._session.deliver(wait=False)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Compare and log if there is no validation loop."""
        if not validates(trainer) and (session := self._due_session(trainer)):
            session.log()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Write tables and animations, and log the trajectories."""
        if self._session is not None:
            self._session.end()

    def on_exception(self, *_args: Any, **_kwargs: Any) -> None:
        """Log the figures of the last comparison before the Trainer stops."""
        if self._session is not None:
            self._session.deliver(wait=True)

    def _due_session(self, trainer: Trainer) -> Session | None:
        """Return the session if this epoch is to be logged; otherwise None."""
        is_due = (trainer.current_epoch + 1) % self._settings.every_n_epochs == 0
        is_due = is_due or is_validate(trainer) or is_trial(trainer)
        return self._session if is_due and not trainer.sanity_checking else None

    def _open_session(self, trainer: Trainer, module: LightningModule) -> Session:
        check_strategy(trainer)
        for other in trainer.callbacks:  # type: ignore[attr-defined]  # Set by a connector.
            if other is not self and isinstance(other, CKAMonitor):
                check_outputs_differ(trainer, self._settings, self.references, other._settings, other.references)
        run = self._session.run if self._session is not None else None
        self._session = Session(self._settings, self.references, self.results, trainer, module, run)
        return self._session


join_namespaces(CKAMonitor)
