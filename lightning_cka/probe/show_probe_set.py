"""Show the probe set to a model: hooks in, Gram matrices out."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing

from torch import nn

from lightning_cka.hsic.grams import MIN_SAMPLES, Workspace
from lightning_cka.probe.bank_batch import BankBatch
from lightning_cka.probe.fingerprint import fingerprint
from lightning_cka.probe.forward import ForwardSettings
from lightning_cka.probe.hooks import BatchGrams, Observer, batch_token_mask
from lightning_cka.probe.layers import LayerPlan
from lightning_cka.probe.probe_set import ProbeBatch, ProbeSet
from lightning_cka.runtime.collectives import in_step
from lightning_cka.runtime.module_names import named_layers
from lightning_cka.runtime.restore import left_as_found
from lightning_cka.runtime.rng import isolated_rng, seed_rng

Consumer = Callable[[BankBatch], None]


def show(
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
    """Show this rank's share of the probe set to a model.

    Each activation is reduced to its Gram matrix inside the forward hook. A layer whose output cannot
    be read on some batch gets ``nan`` there, and a warning: one rank must not raise alone.

    Args:
        model: left as it was found, also on an error.
        probe: what to show.
        plan: the layers, as `dry_run` found them.
        forward_settings: how.
        consume: called after each batch; its Gram matrices are overwritten by the next one.
        rank: of this process.
        world_size: number of processes that share the probe set.
        observe: sees the features too, before they are freed.
        sharded: processes share the weights, so that each must make as many forward passes as the others: surplus ones
            show what was shown before.
    """
    modules = named_layers(model)
    workspace = Workspace()
    last: ProbeBatch | None = None
    with ExitStack() as stack:
        stack.enter_context(left_as_found(model))
        stack.enter_context(isolated_rng(probe.seed, forward_settings.device))
        found = stack.enter_context(closing(probe.batches(rank, world_size)))
        large = (batch for batch in found if batch.num_samples >= MIN_SAMPLES)
        for batch in in_step(large, forward_settings.device) if sharded else large:
            if batch is None:
                last = last or probe.first_batch()
                forward_settings.forward(model, forward_settings.to_device(last.data))
                continue
            last = batch
            seed_rng(probe.batch_seed(batch.index), forward_settings.device)
            data = forward_settings.to_device(batch.data)
            inputs = fingerprint(data)  # Before a model writes to its inputs.
            mask = batch_token_mask(batch, data, probe.sample_kind) if forward_settings.feature_fn == "mean" else None
            grams = BatchGrams(batch.num_samples, plan, forward_settings, workspace, observe, mask)
            with ExitStack() as hooks:
                for row, name in enumerate(plan.names):
                    hooks.enter_context(modules[name].register_forward_hook(grams.hook(row, name)))
                forward_settings.forward(model, data)
            consume(BankBatch(batch.index, grams.finish(), inputs, batch.samples))
