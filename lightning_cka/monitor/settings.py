"""The checked arguments of a `CKAMonitor`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from lightning_cka.compare.bank_series import BankSource
from lightning_cka.compare.flags import Thresholds
from lightning_cka.compare.pairing import Pair, check_pair
from lightning_cka.decisions.convergence import DEFAULT_CONVERGED
from lightning_cka.hsic.grams import MIN_SAMPLES
from lightning_cka.hsic.measure import Measure
from lightning_cka.monitor.reference import OUTPUT_ENDINGS
from lightning_cka.monitor.schedule import Schedule
from lightning_cka.probe.features import FeatureFn, check_feature_fn
from lightning_cka.probe.forward import Call, ForwardFn, check_call, check_forward_fn
from lightning_cka.probe.layers import LayerSelector
from lightning_cka.probe.probe_labels import LabelsFn
from lightning_cka.probe.sample_selection import SampleSelection
from lightning_cka.runtime.file_names import distinct_file_names
from lightning_cka.runtime.integers import at_least
from lightning_cka.runtime.rng import check_seed


@dataclass(frozen=True)
class ProbeOptions:
    """Arguments about the probe set, the layers and the forward pass; see `lightning_cka.CKAMonitor`.

    Raises:
        ValueError: A number is too small or too large, or ``feature_fn`` or ``pair`` is unknown.
        TypeError: A number is not an integer, ``pair`` has another type, or ``forward_fn`` is no function.
    """

    selectors: tuple[LayerSelector, ...] | None
    reference_selectors: tuple[LayerSelector, ...] | None
    num_samples: int | None
    batch_size: int | None
    dataloader: Any
    dataloader_idx: int
    forward_fn: ForwardFn | None
    feature_fn: FeatureFn
    seed: int
    call: Call = "first"
    gram_batch_size: int | None = None
    pair: Pair = "name"
    reference_forward_fn: ForwardFn | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        for name, least in (("num_samples", MIN_SAMPLES), ("batch_size", 1), ("gram_batch_size", MIN_SAMPLES)):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, at_least(least, name, value))
        object.__setattr__(self, "dataloader_idx", at_least(0, "dataloader_idx", self.dataloader_idx))
        object.__setattr__(self, "seed", check_seed(self.seed))
        check_forward_fn(self.forward_fn)
        check_forward_fn(self.reference_forward_fn, "reference_forward_fn")
        check_feature_fn(self.feature_fn)
        check_call(self.call)
        check_pair(self.pair)


@dataclass(frozen=True)
class Settings:
    """Arguments about comparing and logging; see `lightning_cka.CKAMonitor`.

    Raises:
        ValueError: ``keep_banks`` or ``patience`` is not positive; ``tolerance`` is not in (0, 1); ``save_banks``,
            ``on_error`` or ``log_diagnostics`` is unknown; or ``labels_fn`` is given without ``plot_samples``.
        TypeError: ``keep_banks`` or ``patience`` is not an integer, ``labels_fn`` is not a function, ``log_key_prefix``
            is no text, or ``dirpath`` is no path.
    """

    probe: ProbeOptions
    measures: Mapping[str, Measure]
    thresholds: Thresholds
    selection: SampleSelection
    schedule: Schedule
    log_key_prefix: str
    dirpath: str | Path | None
    save_banks: bool | Literal["float16"]
    trajectory: bool
    keep_banks: int | None
    on_error: Literal["raise", "warn"]
    log_changes: bool = False
    plot_samples: bool = False
    labels_fn: LabelsFn | None = None
    log_diagnostics: Literal["flagged", "all"] = "flagged"
    log_intervals: bool = False
    ceiling: Sequence[BankSource] | None = None
    log_ranks: bool = False
    tolerance: float = DEFAULT_CONVERGED
    patience: int = 3
    summary: bool = True

    def __post_init__(self) -> None:
        """Check the values."""
        self._check_texts()
        if not 0 < self.tolerance < 1:
            raise ValueError(f"tolerance must be in (0, 1), but is {self.tolerance}")
        object.__setattr__(self, "patience", at_least(1, "patience", self.patience))
        if self.keep_banks is not None:
            object.__setattr__(self, "keep_banks", at_least(1, "keep_banks", self.keep_banks))
        if self.on_error not in ("raise", "warn"):
            raise ValueError(f"on_error must be 'raise' or 'warn', but is {self.on_error!r}")
        if self.save_banks not in (True, False, "float16"):
            raise ValueError(f"save_banks must be True, False or 'float16', but is {self.save_banks!r}")
        if self.log_diagnostics not in ("flagged", "all"):
            raise ValueError(f"log_diagnostics must be 'flagged' or 'all', but is {self.log_diagnostics!r}")
        if self.labels_fn is not None and not callable(self.labels_fn):
            raise TypeError(f"labels_fn must be a function of a batch, but is a {type(self.labels_fn).__name__}")
        if self.labels_fn is not None and not self.plot_samples:
            raise ValueError("labels_fn gives the colours of pictures of samples: pass plot_samples=True, too")

    def _check_texts(self) -> None:
        if not isinstance(self.log_key_prefix, str):
            raise TypeError(f"log_key_prefix must be a text, but is {self.log_key_prefix!r}")
        if self.dirpath is not None and not isinstance(self.dirpath, str | PathLike):
            raise TypeError(f"dirpath must be a path or None, but is {self.dirpath!r}")

    @property
    def needs_all_banks(self) -> bool:
        """Whether the bank of each logged epoch is written to disk."""
        return bool(self.save_banks) or self.trajectory

    def key(self, name: str, measure: str) -> str:
        """Return the name of a reference in logged keys and folders; it ends with the measure if there are several."""
        return f"{name}/{measure}" if len(self.measures) > 1 else name

    def logged(self, key: str) -> str:
        """Return the prefix of all values that are logged under a key of `key`."""
        return f"{self.log_key_prefix}{key}/"

    @property
    def diagnostics_prefix(self) -> str:
        """The prefix of logged diagnostics, such as "cka_diagnostics/"."""
        return self.group("diagnostics")

    def group(self, name: str) -> str:
        """Return the prefix of other logged values, such as "cka_frozen/": their own group beside "cka/"."""
        base = self.log_key_prefix.rstrip("/")
        return f"{base}{'_' if base[-1:].isalnum() else ''}{name}/"

    @property
    def ranks_prefix(self) -> str:
        """The prefix of logged effective ranks, such as "cka_rank/"."""
        return self.group("rank")

    def logged_diagnostics(self, measure: str) -> str:
        """Return the prefix of the diagnostics by a measure; it ends with the measure if there are several."""
        return f"{self.diagnostics_prefix}{measure}/" if len(self.measures) > 1 else self.diagnostics_prefix


def safe_measures(measures: Mapping[str, Measure]) -> dict[str, Measure]:
    """Return measures by names that are safe as names of folders. Ordinary names stay as they are."""
    names = distinct_file_names(measures, endings=OUTPUT_ENDINGS)
    return {names[name]: measure for name, measure in measures.items()}
