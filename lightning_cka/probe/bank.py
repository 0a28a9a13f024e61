"""`GramBank`: the Gram matrices of one model on one probe set, in memory and in files."""

from __future__ import annotations

import json
import warnings
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from lightning_cka.hsic.folding import triangle_indices
from lightning_cka.hsic.kernel_grams import median_squared_distances
from lightning_cka.hsic.packed import PackedGrams
from lightning_cka.probe.bank_batch import BankBatch, BatchInputs
from lightning_cka.probe.bank_format import FORMAT_VERSION, HEADER, read_grams, read_header, to_half
from lightning_cka.probe.dry_run import dry_run
from lightning_cka.probe.exchangeability import BatchVariation, variation_message
from lightning_cka.probe.features import FeatureFn, check_feature_fn
from lightning_cka.probe.forward import ForwardFn, ForwardSettings
from lightning_cka.probe.layers import Layers, check_layers
from lightning_cka.probe.sampling import probe_set_like, probe_set_of_loader
from lightning_cka.probe.standalone import device_of, on_device, show_with_progress
from lightning_cka.runtime.collectives import all_gather, all_reduce_sum, gather_objects
from lightning_cka.runtime.devices import sums_device, to_device
from lightning_cka.runtime.files import write_atomically
from lightning_cka.version import __version__

if TYPE_CHECKING:
    from torch import nn


class GramBank:
    """What is kept of a model that was shown the probe set: Gram matrices, in host memory.

    Takes ``4 L (n (ceil(n/2) + 2) + 1)`` bytes per batch of n samples, for L layers in float32. Under several
    processes each one's bank holds the batches that it was shown.

    Args:
        layers: names of the layers, in the order of the Gram matrices' rows.
        model_name: class of the model, for titles and axis labels.
        sample_kind: what the samples' numbers are.
        seed: of the choice of samples, and of any randomness while they were shown.
        epoch: of training, counted from 0; None: before it, or outside.
        step: of training, on the axis of Lightning's own scalars.

    Attributes:
        batches: by their place in the probe set.
        probe: what the batches were made of, also of those that `load` left in the file.
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
        self._medians: Tensor | None = None

    def __repr__(self) -> str:
        size = f"{len(self.layers)} layers, {self.num_samples} samples in {len(self.batches)} batches"
        return f"GramBank({self.title}: {size})"

    def add(self, batch: BankBatch) -> None:
        """Keep a copy of one batch."""
        grams = PackedGrams(*(part.to("cpu", copy=True) for part in batch.grams))
        self._put(replace(batch, grams=grams))

    def _put(self, batch: BankBatch) -> None:
        self.batches[batch.index] = batch
        self.probe[batch.index] = BatchInputs(batch.samples, batch.fingerprint)
        self._medians = None

    def get(self, index: int, fingerprint: str, device: torch.device) -> PackedGrams | None:
        """One batch's Gram matrices, on ``device``; None if it is not there or its inputs were not the same."""
        batch = self.batches.get(index)
        if batch is None or batch.fingerprint != fingerprint:
            return None
        return PackedGrams(*(to_device(part, device) for part in batch.grams))

    def __iter__(self) -> Iterator[BankBatch]:
        """The batches, in order."""
        return (self.batches[index] for index in sorted(self.batches))

    def medians(self, device: torch.device, *, distributed: bool) -> Tensor:
        """Median squared distances ``(L,)`` of the probe set's first batch, that fix the bandwidths of kernels.

        Args:
            device: the one that the processes talk through.
            distributed: the processes' banks are parts of one, and all of them ask, at first and ever after.
        """
        if self._medians is None:
            # Of banks whose first batches cannot be compared, what is left may begin later.
            first = self.batches.get(0 if distributed else min(self.batches, default=0))
            found = torch.zeros(len(self.layers), dtype=torch.float64)
            if first is not None:
                found = median_squared_distances(first.grams)
            self._medians = all_reduce_sum(found.to(device), distributed=distributed)
        return self._medians

    @property
    def title(self) -> str:
        """The model's name and the moment of its training."""
        if self.epoch is None:
            return f"{self.model_name}, initial" if self.step == 0 else self.model_name
        return f"{self.model_name}, epoch {self.epoch}"

    @property
    def num_samples(self) -> int:
        """Number of samples in the bank."""
        return sum(batch.grams.num_samples for batch in self.batches.values())

    @property
    def sample_batches(self) -> list[list[int]]:
        """The samples' numbers, batch by batch, also of batches that `load` left in the file."""
        return [list(self.probe[index].samples) for index in sorted(self.probe)]

    def probe_differences(self, other: GramBank) -> list[str]:
        """In which ways the probe sets of two banks differ, in words; empty if they are one."""
        found = []
        if self.seed != other.seed:
            found.append(f"the seed ({self.seed} and {other.seed})")
        if alone := self.probe.keys() ^ other.probe.keys():
            found.append(
                f"the number of batches ({len(self.probe)} and {len(other.probe)}, {len(alone)} of them not in both)"
            )
        common = sorted(self.probe.keys() & other.probe.keys())
        differing = [index for index in common if self.probe[index].samples != other.probe[index].samples]
        if differing or self.sample_kind != other.sample_kind:
            found.append(
                f"the samples of {len(differing)} of {len(common)} batches ({self.sample_kind} and {other.sample_kind})"
            )
        if differing := [index for index in common if self.probe[index].fingerprint != other.probe[index].fingerprint]:
            found.append(f"the inputs in {len(differing)} of {len(common)} batches")
        return found

    @classmethod
    def from_model(
        cls,
        model: nn.Module,
        dataloader: Any,
        layers: Layers = None,
        *,
        like: GramBank | str | Path | None = None,
        forward_fn: ForwardFn | None = None,
        feature_fn: FeatureFn = None,
        seed: int = 0,
        device: torch.device | str | None = None,
        progress_bar: bool = True,
    ) -> GramBank:
        """Show a model a probe set, and keep its Gram matrices.

        Args:
            model: left as it was found, on its own device.
            dataloader: as in `compare_models`.
            layers: likewise.
            like: a bank or its file, such as one that `CKAMonitor` saved, whose samples are shown, by their indices in the
                dataloader's dataset, in the same batches.
            forward_fn: as in `compare_models`.
            feature_fn: likewise.
            seed: of any randomness while the model is shown the samples; ``like`` has its own.
            device: where to compute; None: the model's own.
            progress_bar: show one.

        Raises:
            ValueError: as `compare_models` does, or ``like`` does not name its samples by dataset index.
        """
        check_feature_fn(feature_fn)
        selectors = check_layers(layers)
        target = torch.device(device) if device is not None else device_of(model)
        forward_settings = ForwardSettings(target, forward_fn, feature_fn)
        like = None if like is None else open_bank(like)
        probe = (
            probe_set_of_loader(dataloader, seed=seed)
            if like is None
            else probe_set_like(like.sample_batches, like.sample_kind, dataloader, seed=like.seed)
        )
        with on_device(model, target):
            plan = dry_run(model, probe, selectors, forward_settings)
            bank = cls(plan.names, type(model).__name__, probe.sample_kind, seed=probe.seed)
            variation = BatchVariation(plan.names, sums_device(target))
            total = len(dataloader) if like is None and hasattr(dataloader, "__len__") else None
            show_with_progress(
                model, probe, plan, forward_settings, bank.add, variation.add, total=total, progress_bar=progress_bar
            )
        if like is None and (found := variation.result(distributed=False)):
            warnings.warn(variation_message(found, "the dataloader"), stacklevel=2)
        if like is not None and (differences := bank.probe_differences(like)):
            warnings.warn(
                f"this probe set is not that of like=: it differs in {'; '.join(differences)}. Is it another dataset, or "
                "are its samples transformed in another way?",
                stacklevel=2,
            )
        return bank

    def save(self, path: str | Path, *, float16: bool = False) -> bytes:
        """Write all to a safetensors file, whole or not at all.

        Per batch ``i``, it has the tensors ``i.offsets``, ``i.scales`` and ``i.row_squares`` of
        `lightning_cka.hsic.packed.PackedGrams`; as ``i.halves``, ``(L, n(n-1)/2)``, the strictly lower triangles of its
        U-centered Gram matrices, row by row; and in its header, under "lightning_cka", JSON: the format's and the
        package's version, the model's class, layers, epoch, step, batch sizes, and the probe set's fingerprint: its
        seed, and of each batch the samples' numbers and a hash of the inputs.

        Args:
            path: of the file; its folder is made if need be.
            float16: store the halves in half precision, relative to each layer's largest entry. Takes half the space,
                and changes CKA by less than 1e-4, unless single samples dominate a layer.

        Returns:
            The file's content.

        Raises:
            OSError: it cannot be written.
        """
        tensors: dict[str, Tensor] = {}
        for batch in self:
            parts = dict(batch.grams._asdict())
            parts["halves"] = parts["halves"].index_select(1, triangle_indices(batch.grams.num_samples))
            if float16:
                parts["halves"], parts["halves_unit"] = to_half(parts["halves"])
            tensors.update((f"{batch.index}.{name}", part.contiguous()) for name, part in parts.items())
        content = to_safetensors(tensors, {HEADER: json.dumps(self._header(), separators=(",", ":"))})
        write_atomically(Path(path), content)
        return content

    @classmethod
    def load(cls, path: str | Path, *, batches: Collection[int] | None = None) -> GramBank:
        """Read what `save` wrote.

        Args:
            path: of the file.
            batches: places in the probe set of those to read; None: all. ``probe`` tells of the others too.

        Raises:
            ValueError: it is no bank, cannot be read, or is of a newer version of this package.
            FileNotFoundError: there is no such file.
        """
        path = Path(path)
        if not path.is_file():
            found = "is a folder" if path.is_dir() else "is not there"
            raise FileNotFoundError(f"there is no bank {str(path)!r}: it {found}")
        try:
            with safe_open(path, framework="pt") as file:
                header = read_header(path.name, file.metadata())
                bank = cls(
                    tuple(header["layers"]),
                    header["model_name"],
                    header["probe"]["sample_kind"],
                    seed=header["probe"]["seed"],
                    epoch=header["epoch"],
                    step=header["step"],
                )
                for shown in header["probe"]["batches"]:
                    inputs = BatchInputs(tuple(shown["samples"]), shown["inputs"])
                    index = shown["index"]
                    bank.probe[index] = inputs
                    if batches is None or index in batches:
                        grams = read_grams(file, index)
                        bank._put(BankBatch(index, grams, inputs.fingerprint, inputs.samples))
        except (SafetensorError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path.name!r} cannot be read as a bank: {type(error).__name__}: {error}") from error
        return bank

    def _header(self) -> dict[str, Any]:
        return {
            "format_version": FORMAT_VERSION,
            "package_version": __version__,
            "model_name": self.model_name,
            "layers": self.layers,
            "epoch": self.epoch,
            "step": self.step,
            "batch_sizes": [batch.grams.num_samples for batch in self],
            "probe": {
                "seed": self.seed,
                "sample_kind": self.sample_kind,
                "batches": [
                    {"index": batch.index, "samples": batch.samples, "inputs": batch.fingerprint} for batch in self
                ],
            },
        }

    def whole(self, device: torch.device, *, distributed: bool) -> GramBank | None:
        """The bank with all processes' batches, on the first process; None on others. Every process must ask.

        Args:
            device: the one that the processes talk through.
            distributed: the processes' banks are parts of one.
        """
        counts = all_gather(torch.tensor([len(self.batches)], device=device), distributed=distributed)
        whole = self.empty()
        mine = list(self)
        is_first = False
        for place in range(max(int(count) for count in counts)):
            batch = mine[place] if place < len(mine) else None
            gathered = gather_objects(batch, distributed=distributed)
            is_first = bool(gathered)
            for shown in gathered:
                if shown is not None:
                    whole._put(shown)
        return whole if is_first else None

    def empty(self, layers: tuple[str, ...] | None = None) -> GramBank:
        """One without batches, of the same model and moment; None: of the same layers."""
        layers = self.layers if layers is None else layers
        return GramBank(layers, self.model_name, self.sample_kind, seed=self.seed, epoch=self.epoch, step=self.step)


def open_bank(bank: GramBank | str | Path, batches: Collection[int] | None = None) -> GramBank:
    """A bank that may be a file; of a file, the batches that are asked for, None: all."""
    return bank if isinstance(bank, GramBank) else GramBank.load(bank, batches=batches)
