"""`GramBank`: the Gram matrices of one model on one probe set."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import torch

from lightning_cka.hsic.packed import PackedGrams
from lightning_cka.probe.bank_batch import BankBatch
from lightning_cka.probe.bank_format import read_bank, write_bank
from lightning_cka.probe.bank_gathering import gather_batches
from lightning_cka.probe.bank_medians import Bandwidths, BankMedians
from lightning_cka.probe.bank_vectors import BankVectors
from lightning_cka.probe.exchangeability import variation_message
from lightning_cka.probe.features import FeatureFn
from lightning_cka.probe.forward import Call, ForwardFn, ForwardSettings
from lightning_cka.probe.given_batches import probe_set_like, probe_set_of_loader
from lightning_cka.probe.layers import Layers, check_layers
from lightning_cka.probe.probe_identity import BatchInputs, ProbeIdentity, unlike_message
from lightning_cka.probe.standalone import collect_batches
from lightning_cka.runtime.checkpoint_models import Architecture, ModelSource, check_sources, source_name, to_model
from lightning_cka.runtime.devices import to_device
from lightning_cka.runtime.files import write_atomically
from lightning_cka.runtime.placement import device_of
from lightning_cka.runtime.rng import check_seed


class GramBank:
    """The Gram matrices of one model on the probe set, in host memory.

    A batch of n samples takes ``4 L (n (ceil(n/2) + 2) + 1)`` bytes for L layers in float32. With several processes,
    each process's bank holds the batches that it showed its model.

    Args:
        layers: Names of the layers, in the order of the Gram matrices' rows.
        model_name: Class of the model, for titles and axis labels.
        sample_kind: What the sample numbers are, such as "dataset index".
        seed: Seed of the choice of samples, and of all random numbers while they were shown.
        epoch: Epoch of training, counted from 0. None: before training, by steps, or without training.
        step: Step of training, on the axis of Lightning's own scalars.

    Attributes:
        batches: The batches, by their index in the probe set.
        probe: Samples and inputs of the batches, by index. It includes batches that `load` did not read.
    """

    def __init__(
        self,
        layers: tuple[str, ...],
        model_name: str,
        sample_kind: str = "sample",
        *,
        seed: int = 0,
        epoch: int | None = None,
        step: int | None = None,
    ) -> None:
        self.layers = layers
        self.model_name = model_name
        self.sample_kind = sample_kind
        self.seed = seed
        self.epoch = epoch
        self.step = step
        self.batches: dict[int, BankBatch] = {}
        self.probe: dict[int, BatchInputs] = {}
        self.vectors = BankVectors()
        self._medians = BankMedians(len(layers))

    def __repr__(self) -> str:
        size = f"{len(self.layers)} layers, {self.num_samples} samples in {len(self.batches)} batches"
        return f"GramBank({self.title}: {size})"

    def __iter__(self) -> Iterator[BankBatch]:
        """Iterate over the batches, in order."""
        return (self.batches[index] for index in sorted(self.batches))

    @property
    def title(self) -> str:
        """Return the model's name and the epoch, or the step if there is no epoch."""
        step = None if self.step is None else f"step {self.step}" if self.step else "initial"
        return ", ".join(filter(None, (self.model_name, step if self.epoch is None else f"epoch {self.epoch}")))

    @property
    def num_samples(self) -> int:
        """Return the number of samples in the bank."""
        return sum(batch.grams.num_samples for batch in self.batches.values())

    @property
    def sample_batches(self) -> list[list[int]]:
        """Return the sample numbers, batch by batch, including batches that `load` did not read."""
        return [list(self.probe[index].samples) for index in sorted(self.probe)]

    def add(self, batch: BankBatch) -> None:
        """Add a copy of one batch."""
        self._add_without_copy(batch.host_copy())

    def add_with_medians(self, batch: BankBatch) -> None:
        """Add a copy of one batch, and compute its medians on the device of its Gram matrices; see `bandwidths`."""
        self.add(batch)
        self._medians.compute(batch.index, batch.grams)

    def _add_without_copy(self, batch: BankBatch) -> None:
        self.batches[batch.index] = batch
        self.probe[batch.index] = BatchInputs(batch.samples, batch.fingerprint)
        self._medians.forget(batch.index)
        self.vectors.forget(batch.index)

    def get(self, index: int, fingerprint: str, device: torch.device) -> PackedGrams | None:
        """Return one batch's Gram matrices on ``device``; None if it is missing or had other inputs."""
        batch = self.batches.get(index)
        if batch is None or batch.fingerprint != fingerprint:
            return None
        return PackedGrams(*(to_device(part, device) for part in batch.grams))

    def empty(self, layers: tuple[str, ...] | None = None) -> GramBank:
        """Return a bank without batches for the same model, epoch and step. ``layers`` None: the same layers."""
        layers = self.layers if layers is None else layers
        return GramBank(layers, self.model_name, self.sample_kind, seed=self.seed, epoch=self.epoch, step=self.step)

    def bandwidths(self, device: torch.device, *, distributed: bool) -> Bandwidths:
        """Return what fixes the bandwidths of kernels; see `BankMedians.bandwidths`."""
        return self._medians.bandwidths(self.batches, device, distributed=distributed)

    def whole(self, device: torch.device, *, distributed: bool) -> GramBank | None:
        """Gather all processes' batches on the first process. Every process must call this method.

        Args:
            device: The device that the processes communicate through.
            distributed: Whether the bank is split over processes.

        Returns:
            The whole bank on the first process; None on the others, and for a bank without batches.
        """
        batches = gather_batches(list(self), device, distributed=distributed)
        if batches is None:
            return None
        whole = self.empty()
        for batch in batches:
            whole._add_without_copy(batch)
        return whole

    def probe_differences(self, other: GramBank) -> list[str]:
        """Return in what the probe sets of two banks differ, in words; an empty list if they are the same."""
        own, others = (ProbeIdentity(bank.seed, bank.sample_kind, bank.probe) for bank in (self, other))
        return own.differences(others)

    @classmethod
    def from_model(
        cls,
        model: ModelSource,
        dataloader: Any,
        layers: Layers = None,
        *,
        architecture: Architecture | None = None,
        like: GramBank | str | Path | None = None,
        forward_fn: ForwardFn | None = None,
        feature_fn: FeatureFn = None,
        call: Call = "first",
        gram_batch_size: int | None = None,
        seed: int = 0,
        device: torch.device | str | None = None,
        progress_bar: bool = True,
    ) -> GramBank:
        """Show a model a probe set, and return its Gram matrices.

        Args:
            model: The model, or the path of a checkpoint. A model is restored afterwards, on its own device.
            dataloader: The batches; see `compare_models`.
            layers: The layers; see `compare_models`.
            architecture: A module of a checkpoint's class, or the class; see `compare_models`.
            like: A bank or its file, such as one that `CKAMonitor` saved. The model is shown the same samples in the
                same Gram matrices, by their indices in the dataloader's dataset.
            forward_fn: Passes a batch to the model; see `compare_models`.
            feature_fn: Turns outputs into features; see `compare_models`.
            call: Which call of a layer that runs several times counts; see `compare_models`.
            gram_batch_size: Number of samples in a Gram matrix; see `compare_models`. With ``like``, its own are used.
            seed: Seed of all random numbers while the samples are shown. With ``like``, its seed is used.
            device: Device to compute on. None takes the model's own.
            progress_bar: Whether to show a progress bar.

        Raises:
            ValueError: As `compare_models`, or the samples of ``like`` are not identified by dataset index.
            FileNotFoundError: There is no such checkpoint.
        """
        check_sources({"model": model}, architecture)
        name, model = source_name(model), to_model(model, architecture)
        target = device_of(model) if device is None else torch.device(device)
        forward_settings = ForwardSettings(target, forward_fn, feature_fn, call=call)
        like = None if like is None else open_bank(like)
        probe = (
            probe_set_like(like.sample_batches, like.sample_kind, dataloader, seed=like.seed)
            if like is not None
            else probe_set_of_loader(dataloader, seed=check_seed(seed), gram_batch_size=gram_batch_size)
        )
        collected = collect_batches(model, probe, check_layers(layers), forward_settings, progress_bar=progress_bar)
        bank = cls(collected.layers, name, forward_settings.sample_kind(probe), seed=probe.seed)
        for batch in collected.batches:
            bank._add_without_copy(batch)
        if like is None and collected.variation:
            warnings.warn(variation_message(collected.variation, "the dataloader"), stacklevel=2)
        if like is not None and (differences := bank.probe_differences(like)):
            warnings.warn(unlike_message(differences), stacklevel=2)
        return bank

    def save(self, path: str | Path, *, float16: bool = False) -> None:
        """Write the bank to a safetensors file; `lightning_cka.probe.bank_format` describes its content.

        It takes some MiB of memory, or that of the largest Gram matrix.

        Args:
            path: Path of the file. Missing folders are created. An error or a killed process leaves no partial file.
            float16: Store the Gram matrices in half precision, relative to each layer's largest entry. The file takes
                half the space. Linear CKA changes by less than 1e-4, that of others by 2e-3, or it is ``nan``.

        Raises:
            OSError: The file cannot be written.
        """
        write_atomically(Path(path), lambda file: write_bank(self, file, float16=float16))

    @classmethod
    def load(cls, path: str | Path, *, batches: Collection[int] | None = None) -> GramBank:
        """Read a file that `save` wrote.

        Args:
            path: Path of the file.
            batches: Indices of the batches to read. None reads all. The attribute ``probe`` includes the others too.

        Raises:
            ValueError: The file is not a bank, is damaged, or has a newer format.
            FileNotFoundError: There is no such file.
        """
        content = read_bank(Path(path), batches)
        bank = cls(**content.header.attributes)
        bank.probe.update(content.header.probe)
        for batch in content.batches:
            bank._add_without_copy(batch)
        return bank


def open_bank(bank: GramBank | str | Path, batches: Collection[int] | None = None) -> GramBank:
    """Return a bank as it is, or load it from a file; ``batches`` as in `GramBank.load`."""
    return bank if isinstance(bank, GramBank) else GramBank.load(bank, batches=batches)
