"""`rank_history`: the effective rank of each layer over the training of a model, from banks or results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from lightning_cka.compare.bank_series import (
    BankSource,
    batches_at_a_time,
    check_same_layers_and_probe_set,
    moment_names,
    sources_of_run,
)
from lightning_cka.compare.layer_ranks import LayerRanks, ranks_with_peaks
from lightning_cka.compare.rank_sums import RankSums
from lightning_cka.compare.result import CKAResult
from lightning_cka.compare.run_files import is_of_training
from lightning_cka.decisions.rank_history import RankHistory
from lightning_cka.probe.bank import GramBank, open_bank
from lightning_cka.probe.bank_selection import bank_of_layers
from lightning_cka.probe.layers import Layers
from lightning_cka.probe.sample_selection import Exclude, SampleSelection


def rank_history(
    source: str | Path | GramBank | Sequence[BankSource] | Sequence[CKAResult],
    layers: Layers = None,
    *,
    exclude: Exclude = None,
) -> RankHistory:
    """Return the effective rank of each layer over the training of a model.

    The effective rank is the exponential of the entropy of the normalised singular values of the centered features.
    It is computed for each probe batch of n samples, and averaged over batches; it is at most n - 1. Thus compare ranks
    of equal batches only. In self-supervised training, it falls if features collapse.

    Papers: Garrido et al. 2023 (RankMe, https://arxiv.org/abs/2210.02885); Roy and Vetterli 2007.

    Args:
        source: The folder that `CKAMonitor(save_banks=True)` wrote; a bank or its file; several of these, in order of
            time; or results of one reference from `CKAMonitor(log_ranks=True)`, in order.
        layers: Patterns of layer names; None: all layers. Only for banks.
        exclude: Numbers of samples to leave out. Only for banks.

    Returns:
        The ranks with their confidence intervals over batches, and the effective dimensions.

    Raises:
        ValueError: There is no bank, no result has ranks, a pattern matches no layer, or the banks have different
            layers or probe sets.
        FileNotFoundError: The folder or a file does not exist.

    Example:
        >>> import torch
        >>> from lightning_cka import GramBank, rank_history
        >>> _ = torch.manual_seed(0)
        >>> net = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU())
        >>> bank = GramBank.from_model(net, [torch.randn(64, 16) for _ in range(8)], progress_bar=False)
        >>> history = rank_history(bank)
        >>> history.num_samples, [round(value) for value in history.rank[:, 0].tolist()]
        (64, [14])
    """
    one_bank = isinstance(source, GramBank) or (isinstance(source, str | Path) and Path(source).is_file())
    sources: Any = [source] if one_bank else source
    if not isinstance(sources, str | Path) and any(isinstance(each, CKAResult) for each in sources):
        return _of_results(sources)
    return _of_banks(sources_of_run(sources, "a history of ranks", 1), layers, exclude)


def _of_results(results: Sequence[CKAResult]) -> RankHistory:
    known = [(each, each.ranks) for each in results if is_of_training(each) and each.ranks is not None]
    if not known:
        raise ValueError(
            "these results have no effective ranks. CKAMonitor(log_ranks=True) computes them. From a run with "
            "save_banks=True, rank_history(folder) computes them afterwards"
        )
    if any(ranks.layers.keys() != known[-1][1].layers.keys() for _, ranks in known):
        raise ValueError("these results have ranks of different layers: pass results of one reference and one run")
    moments = moment_names([result for result, _ in known])
    return RankHistory(known[-1][0].model_name, moments, tuple(ranks for _, ranks in known))


def _of_banks(sources: Sequence[BankSource], layers: Layers, exclude: Exclude) -> RankHistory:
    headers = [open_bank(source, batches=()) for source in sources]  # Everything but the Gram matrices.
    check_same_layers_and_probe_set(headers)
    first = headers[0]
    names = bank_of_layers(first, layers).layers
    found: list[LayerRanks] = []
    for source, header in zip(sources, headers, strict=True):
        sums = RankSums(names, SampleSelection(exclude, None), first.sample_kind)
        for indices in batches_at_a_time(first):
            batches = bank_of_layers(open_bank(source, batches=indices), list(names)).batches
            for index in indices:
                sums.add(batches[index])
        own = sums.result(torch.device("cpu"), distributed=False)
        found.append(ranks_with_peaks(*own, found[-1] if found else None, header.epoch, header.step))
    return RankHistory(first.model_name, moment_names(headers), tuple(found))
