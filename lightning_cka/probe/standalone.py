"""Show a model the probe set without a Trainer, with a progress bar."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import nn
from tqdm.auto import tqdm

from lightning_cka.probe.bank_batch import BankBatch
from lightning_cka.probe.capture import Consumer, show
from lightning_cka.probe.forward import ForwardSettings
from lightning_cka.probe.hooks import Observer
from lightning_cka.probe.layers import LayerPlan
from lightning_cka.probe.probe_set import ProbeSet


def show_with_progress(
    model: nn.Module,
    probe: ProbeSet,
    plan: LayerPlan,
    forward_settings: ForwardSettings,
    consume: Consumer,
    observe: Observer | None = None,
    *,
    total: int | None,
    progress_bar: bool,
) -> None:
    with tqdm(desc=f"CKA: {type(model).__name__}", total=total, unit="batch", disable=not progress_bar) as bar:

        def consume_and_count(batch: BankBatch) -> None:
            consume(batch)
            bar.update()

        show(model, probe, plan, forward_settings, consume_and_count, observe=observe)
        bar.update((total or bar.n) - bar.n)  # Batches of too few samples were skipped.


@contextmanager
def on_device(model: nn.Module, device: torch.device) -> Iterator[None]:
    """The model on ``device``, and where it was afterwards."""
    home = device_of(model)
    if home == device:
        yield
        return
    try:
        model.to(device)
        yield
    finally:
        model.to(home)


def device_of(model: nn.Module) -> torch.device:
    tensor = next(chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if tensor is None else tensor.device
