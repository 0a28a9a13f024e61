"""`CKAMonitor`: the Lightning callback with its arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lightning_cka.compare.bank_series import BankSource
from lightning_cka.compare.flags import Thresholds, check_thresholds
from lightning_cka.compare.pairing import Pair
from lightning_cka.decisions.convergence import DEFAULT_CONVERGED
from lightning_cka.hsic.check_measures import Measures, check_measures
from lightning_cka.hsic.kernels import Kernel
from lightning_cka.monitor.monitor_answers import MonitorAnswers
from lightning_cka.monitor.reference import ReferenceSource
from lightning_cka.monitor.reference_names import check_any_module, parse_references
from lightning_cka.monitor.run_ceilings import check_ceiling
from lightning_cka.monitor.schedule import TrainSteps, parse_schedule
from lightning_cka.monitor.settings import ProbeOptions, Settings, safe_measures
from lightning_cka.monitor.trainer_checks import check_epochs
from lightning_cka.probe.features import FeatureFn
from lightning_cka.probe.forward import Call, ForwardFn
from lightning_cka.probe.layers import Layers, check_layers
from lightning_cka.probe.probe_labels import LabelsFn
from lightning_cka.probe.sample_selection import Exclude, Groups, SampleSelection
from lightning_cka.runtime.namespaces import join_namespaces


class CKAMonitor(MonitorAnswers):
    """Logs how the representations of a model change while it trains.

    At each validation, the model is shown the probe set, a fixed set of validation samples. CKA compares its layers
    with the layers of each reference. The values are logged as a heatmap, a drift map and scalars, and kept in
    ``results``. A warning names layers with unreliable CKA. Training is bit for bit the same as without the callback.

    The compared weights are the ones that Lightning validates, for example averaged weights. Without a validation loop,
    they are the weights at the end of each training epoch. Runs of the Trainer's tuners are not compared.

    Args:
        reference: What to compare with: "initial" (the weights at the start of training), "previous" (the weights at
            the last logged epoch; "previous:3": three comparisons ago), the number of an epoch, counted from 0 (the
            weights at its last validation), "self" (the model's own other layers), the path of a checkpoint of the same
            architecture, a module, a sequence of these, or a mapping {name: reference}. While there is no earlier
            comparison, "previous" is "initial".
        layers: Names, patterns, module classes or their names, or a sequence of these. ``*`` stays within one dotted
            level, ``**`` crosses levels: ``"net.*"`` is each child of ``net``, ``"net.**"`` all below. ``!`` in front
            takes away. None: repeated blocks and what is around them, else innermost modules with parameters. A layer
            chosen by its full name must run.
        reference_layers: Layers of references that are modules, like ``layers``. None: the model's names, or if the
            reference does not have them, the layers that ``pair`` pairs with them, as of a bare backbone.
        pair: Which layers of a reference that is a module are paired, for all that is logged by layer: "name" (the same
            names, or without the one pair of prefixes that pairs most layers, as of ``bert.encoder`` and ``encoder``),
            "position", or a mapping {layer of the model: layer of the reference}. An empty mapping pairs none.
        num_samples: Maximum number of samples in the probe set. None: the whole validation dataset.
            ``limit_val_batches`` and ``overfit_batches`` do not restrict the choice.
        batch_size: Number of samples in a forward pass over the probe set. None: the validation loader's batch size.
        gram_batch_size: Number of samples in a Gram matrix, at least 4. Features of several forward passes are joined.
            None: as many forward passes as fit into 128 samples, or fewer so that there are 8 Gram matrices and the
            features take at most 1 GiB; with ``dataloader``, one batch. A stream or ``dataloader`` may yield one sample
            at a time, if the samples lie along the first dimension of each layer's output.
        dataloader: Your own loader of probe batches, used as it is. It should shuffle, because batches of similar
            samples bias CKA. ``num_samples``, ``batch_size`` and ``dataloader_idx`` are ignored. None: the probe set is
            drawn from the validation dataset.
        dataloader_idx: Index of the validation loader that the probe set is drawn from, if there are several.
        forward_fn: Function of a module and a batch that runs the model. None: ``module(batch)``, or for a tuple or
            list ``module(batch[0])``. From a mapping, ``forward`` gets the entries that it has arguments for.
        reference_forward_fn: The same for references that are modules. None: ``forward_fn``.
        feature_fn: How a layer's output becomes features ``(n, ...)``: "flatten", "mean" (over all dimensions but batch
            and channel; for token sequences, only tokens that ``attention_mask`` keeps), "cls" (the first token),
            "last" (the last token that ``attention_mask`` keeps), "tokens" (8 random tokens of each sequence are
            samples; "tokens:4" takes 4), or a function of the output. None: "flatten".
        call: Which call of a layer that runs several times per forward pass counts: "first", "last", or "mean".
        measures: "cka" (with ``kernel``), "mutual_knn", "rsa", "ridge", an object such as `lightning_cka.MutualKNN`,
            or a sequence of these. With several, logged keys contain the measure's name.
        kernel: Kernel of CKA: "linear", "rbf", "distance", an `lightning_cka.RBF`, a function of ``(n, n)`` squared
            distances, or a sequence of these. All probe batches fix the bandwidths of RBF kernels. With several
            kernels, logged keys contain the kernel's name.
        unbiased: Whether to use unbiased HSIC. The biased one, which some papers use, depends on the batch size.
        thresholds: Limits beyond which a layer is flagged. None: the defaults of `lightning_cka.Thresholds`.
        exclude: Numbers of probe samples to leave out, as flags name them. Banks on disk keep them.
        groups: Labels of the samples, for CKA within groups: a sequence that is indexed by sample numbers, such as the
            labels of the dataset, or a mapping from them. Features are centered within each group of each batch.
        every_n_epochs: Compare in every n-th epoch, at each of its validations. None: 1, unless there are steps.
        every_n_train_steps: Compare after every n-th optimizer step, after some steps (a list), or after steps 0, 1, 2,
            4, 8, ... ("log"), as ``trainer.global_step`` counts them. Validation does not matter then, and the weights
            in training are compared, not averaged ones.
        compare_at_start: Whether to compare before the first training step, too, except with "previous".
        seed: Random seed of the choice of samples, and of random operations in the model's forward pass.
        log_key_prefix: Prefix of all logged keys.
        dirpath: Folder of figures, results and banks. None: a folder named after ``log_key_prefix`` (``cka``),
            beside Lightning's checkpoints. Files of earlier runs are moved into its subfolder ``earlier-1``.
        save_banks: Whether to write the Gram matrices of each logged epoch to ``dirpath/banks``, for comparisons after
            training. "float16" halves the files, and changes linear CKA by less than 1e-4; for other kernels, see
            `GramBank.save`. Banks that resuming needs are always written.
        trajectory: Whether to log, when training ends, the CKA of each layer with itself at all other logged epochs. It
            implies ``save_banks``.
        keep_banks: Number of logged epochs whose banks stay on disk. Older ones are deleted, except "initial", numbered
            references, and banks that a checkpoint needs. None: all.
        on_error: What to do if a comparison fails during training: "raise" ends training, "warn" warns once and makes
            the epoch's results ``nan``.
        log_changes: Whether to log ``<layer>_change`` too, from the second logged epoch on: the CKA of a layer minus
            that of the previous logged epoch.
        log_intervals: Whether to log ``<layer>_lower`` and ``<layer>_upper`` too, the ends of the 95 % confidence
            interval. TensorBoard draws them as bands.
        log_diagnostics: Layers whose diagnostics are logged: "flagged" (those that had a flag, from then on) or "all".
        log_ranks: Whether to log the effective rank of each layer, and flag losses; see `lightning_cka.rank_history`.
        plot_samples: Whether to log pictures of where the samples lie in the layers: at the end of training, and of a
            layer when a flag first names samples in it. One epoch's Gram matrices stay in host memory. With
            ``save_banks``, the end is also drawn over epochs, and as a GIF.
        labels_fn: Function of a probe batch that returns one integer for each sample, for colours in the pictures.
            None: the second part of batches that are pairs, if it is that.
        ceiling: Banks of at least two other runs, or better three, that differ in their seed alone; their files or
            folders. Figures show what these reach; see `lightning_cka.seed_ceiling`.
        tolerance: Change of CKA that does not matter, in (0, 1), for ``converged_layers`` and the summary.
        patience: Number of comparisons for ``converged_layers``: the number of layers whose CKA with the reference at
            each of these was within the tolerance of the last one, with a confidence of 95 %.
        summary: Whether to print and log one table of the run when training ends.

    Attributes:
        references: The references, with their names.
        results: Results by reference name ("initial"), or with several measures or kernels by both names
            ("initial/mutual_knn", "initial/rbf"). Each value is a list with one result per comparison, including those
            before training was resumed. All processes have it. Results of ``trainer.validate()`` have ``epoch`` and
            ``step`` None.
        ceilings: A `SeedCeiling` for each measure, by its name, from the start of training on.

    Raises:
        ValueError: An argument is invalid. Problems with the model or the data raise before the first training step.
        TypeError: An argument has an unsupported type.
        FileNotFoundError: The checkpoint of a reference does not exist.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> import torch
        >>> from lightning.pytorch import Trainer
        >>> from lightning.pytorch.demos.boring_classes import BoringModel, RandomDataset
        >>> from torch.utils.data import DataLoader
        >>> from lightning_cka import CKAMonitor
        >>> model, loader = BoringModel(), DataLoader(RandomDataset(32, 512), batch_size=64)
        >>> model.layer = torch.nn.Linear(32, 16)
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
        reference: Mapping[str, ReferenceSource] | ReferenceSource | Sequence[ReferenceSource] = "initial",
        layers: Layers = None,
        *,
        reference_layers: Layers = None,
        pair: Pair = "name",
        num_samples: int | None = 2048,
        batch_size: int | None = None,
        gram_batch_size: int | None = None,
        dataloader: Any = None,
        dataloader_idx: int = 0,
        forward_fn: ForwardFn | None = None,
        reference_forward_fn: ForwardFn | None = None,
        feature_fn: FeatureFn = None,
        call: Call = "first",
        measures: Measures = "cka",
        kernel: Sequence[Kernel] | Kernel = "linear",
        unbiased: bool = True,
        thresholds: Thresholds | None = None,
        exclude: Exclude = None,
        groups: Groups = None,
        every_n_epochs: int | None = None,
        every_n_train_steps: TrainSteps | None = None,
        compare_at_start: bool = False,
        seed: int = 0,
        log_key_prefix: str = "cka/",
        dirpath: str | Path | None = None,
        save_banks: bool | Literal["float16"] = False,
        trajectory: bool = False,
        keep_banks: int | None = None,
        on_error: Literal["raise", "warn"] = "raise",
        log_changes: bool = False,
        log_intervals: bool = False,
        log_diagnostics: Literal["flagged", "all"] = "flagged",
        log_ranks: bool = False,
        plot_samples: bool = False,
        labels_fn: LabelsFn | None = None,
        ceiling: Sequence[BankSource] | None = None,
        tolerance: float = DEFAULT_CONVERGED,
        patience: int = 3,
        summary: bool = True,
    ) -> None:
        super().__init__()
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
            call=call,
            gram_batch_size=gram_batch_size,
            pair=pair,
            reference_forward_fn=reference_forward_fn,
        )
        self._settings = Settings(
            probe,
            measures=safe_measures(check_measures(measures, kernel, unbiased=unbiased)),
            thresholds=check_thresholds(thresholds),
            selection=SampleSelection(exclude, groups),
            schedule=parse_schedule(every_n_epochs, every_n_train_steps, compare_at_start),
            log_key_prefix=log_key_prefix,
            dirpath=dirpath,
            save_banks=save_banks,
            trajectory=trajectory,
            keep_banks=keep_banks,
            on_error=on_error,
            log_changes=log_changes,
            log_intervals=log_intervals,
            log_diagnostics=log_diagnostics,
            log_ranks=log_ranks,
            plot_samples=plot_samples,
            labels_fn=labels_fn,
            ceiling=ceiling,
            tolerance=tolerance,
            patience=patience,
            summary=summary,
        )
        self.references = parse_references(reference)
        check_epochs(self.references, self._settings.schedule)
        of_modules = {"reference_layers": reference_layers, "reference_forward_fn": reference_forward_fn}
        check_ceiling(ceiling, self.references)
        check_any_module(self.references, **of_modules, pair=None if pair == "name" else pair)


join_namespaces(CKAMonitor)
