"""Check before the first pass that Gram blocks can be made, and that the features that they keep fit into memory."""

from __future__ import annotations

from dataclasses import replace

import torch
from lightning.pytorch.utilities import rank_zero_info

from lightning_cka.probe.batching import DEFAULT_BYTES
from lightning_cka.probe.layers import LayerPlan
from lightning_cka.probe.probe_set import ProbeSet
from lightning_cka.runtime.devices import total_memory
from lightning_cka.runtime.text import shortened

MEMORY_SHARE = 4
"""The features that are kept for a Gram block may take one part in so many of a device's memory."""


def fit_blocks(probe: ProbeSet, plan: LayerPlan, device: torch.device) -> tuple[ProbeSet, LayerPlan]:
    """Make default Gram blocks smaller if their features take over 1 GiB or cannot be joined, and log what they take.

    Args:
        probe: The probe set.
        plan: The layers, as `dry_run` found them.
        device: The device that keeps the features.

    Returns:
        The probe set and the plan, with smaller blocks if necessary.

    Raises:
        ValueError: See `check_blocks`.
    """
    is_large = kept_bytes(plan) > DEFAULT_BYTES
    if probe.smaller is not None and plan.has_parts and (plan.unequal or is_large):
        probe = probe.smaller(None if plan.unequal else plan.sample_bytes)
        batch = probe.first_batch()
        cause = "features of several forward passes cannot be joined" if plan.unequal else "features take over 1 GiB"
        rank_zero_info(
            f"CKA: Gram matrices have {batch.block_size} samples instead of {plan.num_samples}, since {cause}. "
            "feature_fn='mean' allows more samples"
        )
        has_parts = batch.num_samples < batch.block_size
        plan = replace(
            plan, num_samples=batch.block_size, has_parts=has_parts, unequal=plan.unequal if has_parts else {}
        )
    check_blocks(plan, device)
    if plan.has_parts:
        rank_zero_info(
            f"CKA: each Gram matrix has {plan.num_samples} samples of several forward passes. The features that are "
            f"kept for it, of {len(plan.names)} layers, take {kept_bytes(plan) / 2**20:.3g} MiB on {device}"
        )
    return probe, plan


def kept_bytes(plan: LayerPlan) -> int:
    """Return the size of the features that are kept for a Gram block, in bytes."""
    return plan.sample_bytes * plan.num_samples if plan.has_parts else 0


def check_blocks(plan: LayerPlan, device: torch.device) -> None:
    """Check that Gram blocks of several forward passes can be made of a model's features.

    Args:
        plan: The model's layers.
        device: The device that keeps the features.

    Raises:
        ValueError: Features differ in size between forward passes, or take over a quarter of the device's memory.
    """
    if plan.has_parts and plan.unequal:
        names = list(plan.unequal)
        layers = f"layer {names[0]!r}" if len(names) == 1 else f"layers {shortened(names)}"
        raise ValueError(f"{layers} {plan.unequal[names[0]]}")
    memory = total_memory(device)
    if memory is None or kept_bytes(plan) <= memory // MEMORY_SHARE:
        return
    fitting = memory // MEMORY_SHARE // plan.sample_bytes
    hint = f", or gram_batch_size={fitting} or less" if fitting >= 4 else ""
    raise ValueError(
        f"Gram matrices of {plan.num_samples} samples need the features of {len(plan.names)} layers, "
        f"{kept_bytes(plan) / 2**30:.3g} GiB, but may take a quarter of the memory of {device}, "
        f"{memory / MEMORY_SHARE / 2**30:.3g} GiB. Pass feature_fn='mean', fewer layers{hint}"
    )
