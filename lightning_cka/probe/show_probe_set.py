"""Show the probe set to a model: batches in, Gram matrices out."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import ExitStack, closing

import torch
from torch import Tensor, nn

from lightning_cka.hsic.grams import MIN_SAMPLES
from lightning_cka.probe.bank_batch import BankBatch
from lightning_cka.probe.block_grams import BlockMemory, Observer
from lightning_cka.probe.block_inputs import BlockInputs
from lightning_cka.probe.forward import ForwardSettings
from lightning_cka.probe.gram_hooks import GramHooks
from lightning_cka.probe.layers import LayerPlan
from lightning_cka.probe.padding import token_mask, warn_of_empty_samples
from lightning_cka.probe.probe_set import ProbeBatch, ProbeSet
from lightning_cka.probe.tokens import TokenChoice, choose_tokens, tokens_per_sequence
from lightning_cka.runtime.collectives import in_lockstep
from lightning_cka.runtime.eval_mode import KeptState, temporary_eval_mode
from lightning_cka.runtime.module_names import named_layers
from lightning_cka.runtime.rng import isolated_rng, seed_rng
from lightning_cka.runtime.text import shortened

Consumer = Callable[[BankBatch], None]


def show_probe_set(
    model: nn.Module,
    probe: ProbeSet,
    plan: LayerPlan,
    forward_settings: ForwardSettings,
    consume: Consumer,
    *,
    rank: int = 0,
    world_size: int = 1,
    observe: Observer | None = None,
    sharded: bool = False,
) -> None:
    """Pass this rank's probe batches to a model, and its Gram matrices to ``consume``.

    Each output is reduced to its Gram matrix inside the forward hook. Features are kept only for Gram blocks of several
    forward passes, until the last one. If a layer's output cannot be read on some
    batch, its Gram matrix is ``nan``, with a warning: an error on one rank would leave the others waiting.

    Args:
        model: The model. It is restored afterwards, also after an error.
        probe: The probe set.
        plan: The layers, as `dry_run` found them.
        forward_settings: How a batch is passed to the model.
        consume: Called after each Gram block. The next block overwrites the Gram matrices.
        rank: Rank of this process.
        world_size: Number of processes that share the probe set.
        observe: Called with each layer's features before they are freed.
        sharded: Whether processes share the weights. Then each rank runs the same number of forward passes: a rank
            without a batch left repeats its last one.
    """
    modules = named_layers(model)
    draws = tokens_per_sequence(forward_settings.feature_fn) or 1
    memories = [BlockMemory() for _ in range(draws)]
    last: ProbeBatch | None = None
    with ExitStack() as stack:
        kept = stack.enter_context(
            temporary_eval_mode(model, parameters=plan.written_parameters, callers=forward_settings.callers)
        )
        stack.enter_context(isolated_rng(probe.seed, forward_settings.device))
        batches = stack.enter_context(closing(probe.batches(rank, world_size)))
        large = (batch for batch in batches if batch.block_size >= MIN_SAMPLES)
        for batch in in_lockstep(large, forward_settings.device) if sharded else large:
            if batch is None:
                last = last or probe.first_batch()
                forward_settings.forward(model, forward_settings.to_device(last.data))
                continue
            last = batch
            if batch.start == 0:
                hooks = GramHooks(batch.block_size, plan, forward_settings, memories, observe=observe)
                inputs = BlockInputs(batch.block_size)
            seed_rng(probe.batch_seed(batch.index, batch.start), forward_settings.device)
            data = forward_settings.to_device(batch.data)
            mask = _mask(batch, data, probe, plan, forward_settings)
            tokens = _tokens(batch, mask, probe, forward_settings)
            # Before the forward pass may write to them.
            inputs.add(batch, data, forward_settings.shown_part(data), tokens)
            with hooks.registered(modules, batch.num_samples, batch.start, mask=mask, tokens=tokens):
                forward_settings.forward(model, data)
            if batch.ends_block:
                for each in inputs.with_grams(batch.index, hooks.packed()):
                    consume(each)
        _warn_of_lost(kept)


def _warn_of_lost(kept: KeptState) -> None:
    """Warn if the forward passes changed what cannot be restored.

    The dry run has not seen it, and only this process may see it, so it must not raise.
    """
    if changed := kept.parameters.written().lost:
        warnings.warn(
            f"the forward pass writes to the parameters {shortened(changed)}, but did not in its first batch, so that "
            "they cannot be restored after the probe set: training differs from training without CKA. Write to them "
            "only if self.training",
            stacklevel=3,
        )
    if changed := kept.attributes.changed_large_tensors():
        warnings.warn(
            f"the forward pass writes to {shortened(changed)}, which is too large to be restored after the probe "
            "set: training differs from training without CKA. Make it a buffer, with register_buffer()",
            stacklevel=3,
        )
    if advanced := kept.attributes.advanced_generators():
        warnings.warn(
            f"the forward pass reads the generator {shortened(advanced)}, which cannot be put back after the probe "
            "set: training differs from training without CKA. Count the calls in an attribute instead",
            stacklevel=3,
        )


def _mask(
    batch: ProbeBatch, data: object, probe: ProbeSet, plan: LayerPlan, forward_settings: ForwardSettings
) -> Tensor | None:
    """Return which tokens are not padding. None: all, or the feature function does not ask for that."""
    if not forward_settings.leaves_out_padding:
        return None
    mask = token_mask(data, batch.num_samples)
    if mask is not None:
        warn_of_empty_samples(mask, batch.samples, probe.sample_kind)
    elif plan.num_tokens:  # All sequences have the same number of tokens.
        mask = torch.ones(batch.num_samples, plan.num_tokens, dtype=torch.bool, device="cpu")
    return mask


def _tokens(
    batch: ProbeBatch, mask: Tensor | None, probe: ProbeSet, forward_settings: ForwardSettings
) -> TokenChoice | None:
    """Return which tokens are samples. None: the sequences are."""
    number = tokens_per_sequence(forward_settings.feature_fn)
    if number is None:
        return None
    if mask is None:  # The layers are compared as they are.
        mask = torch.ones(batch.num_samples, 1, dtype=torch.bool, device="cpu")
    return choose_tokens(mask, batch.samples, number, probe.seed)
