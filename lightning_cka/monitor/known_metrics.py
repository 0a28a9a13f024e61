"""`log_values`: log many values through a LightningModule, without Lightning's checks of keys that it knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule


def log_values(module: LightningModule, values: Mapping[str, float]) -> None:
    """Log values as ``module.log`` does, averaged over an epoch and over processes. Every process must call this.

    ``module.log`` takes half a millisecond for each key: it copies the description of the key and the state of its
    metric. The first value goes through it. So does each new key. The metrics of other keys get their values directly.

    Args:
        module: The live model, in a hook that may log.
        values: Values by key.
    """
    known = _known_metrics(module)
    # One tensor: on an accelerator, each value of its own would be copied by itself.
    dtype = torch.get_default_dtype()
    tensors = torch.tensor(list(values.values()), device=module.device, dtype=dtype).unbind()
    for place, ((name, value), tensor) in enumerate(zip(values.items(), tensors, strict=True)):
        key = f"{module._current_fx_name}.{name}"
        if place and key in known and known[key].value.device == tensor.device:
            known.update_metrics(key, tensor, 1)
        else:
            module.log(name, value, on_step=False, on_epoch=True, sync_dist=True, batch_size=1)


def _known_metrics(module: LightningModule) -> Any:
    """Return Lightning's metrics of all keys that were logged before, if ``log`` is Lightning's own."""
    owner = next(cls for cls in type(module).__mro__ if "log" in vars(cls))
    trainer = module._trainer
    if "log" in vars(module) or owner.__name__ != "LightningModule" or trainer is None or module._fabric is not None:
        return {}
    known = getattr(trainer, "_results", None)
    return known if hasattr(known, "update_metrics") else {}  # Other versions of Lightning may name them otherwise.
