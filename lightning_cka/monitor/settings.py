"""The user's settings of a `CKAMonitor`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lightning_cka.compare.flags import Thresholds
from lightning_cka.hsic.kernels import Kernel
from lightning_cka.probe.features import FeatureFn
from lightning_cka.probe.forward import Call, ForwardFn
from lightning_cka.probe.layers import LayerSelector


@dataclass(frozen=True)
class ProbeOptions:
    """What a user chose of the probe set and of how it is shown; see `lightning_cka.CKAMonitor`."""

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


@dataclass(frozen=True)
class Settings:
    """What a user chose of comparing and logging; see `lightning_cka.CKAMonitor`."""

    probe: ProbeOptions
    kernels: Mapping[str, Kernel]
    unbiased: bool
    thresholds: Thresholds | None
    every_n_epochs: int
    log_key_prefix: str
    save_banks: bool | Literal["float16"]
    trajectory: bool
