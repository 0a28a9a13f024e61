"""`GramBank`: the Gram matrices of one model on one probe set, in memory and in files."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor

from lightning_cka.collectives import all_gather, all_reduce_sum, gather_objects
from lightning_cka.files import write_atomically
from lightning_cka.folding import half_size, triangle_places
from lightning_cka.kernels import median_squared_distances
from lightning_cka.packed import PackedGrams, sent
from lightning_cka.version import __version__

if TYPE_CHECKING:
    from torch import nn

FORMAT_VERSION = 1
"""Of bank files; see `GramBank.save`."""

_HEADER = "lightning_cka"


@dataclass(frozen=True)
class ShownBatch:
    """One probe batch, as a model saw it."""

    index: int
    """Its place in the probe set."""
    grams: PackedGrams
    """Linear Gram matrices of all layers."""
    fingerprint: str
    """Hash of the inputs."""
    samples: tuple[int, ...]
    """The numbers of its samples; see `lightning_cka.probe.ProbeBatch`."""


class BatchInputs(NamedTuple):
    """What one probe batch was made of."""

    samples: tuple[int, ...]
    fingerprint: str


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
        self.batches: dict[int, ShownBatch] = {}
        self.probe: dict[int, BatchInputs] = {}
        self._medians: Tensor | None = None

    def __repr__(self) -> str:
        size = f"{len(self.layers)} layers, {self.num_samples} samples in {len(self.batches)} batches"
        return f"GramBank({self.title}: {size})"

    def add(self, batch: ShownBatch) -> None:
        """Keep a copy of one batch."""
        grams = PackedGrams(*(part.to("cpu", copy=True) for part in batch.grams))
        self._put(replace(batch, grams=grams))

    def _put(self, batch: ShownBatch) -> None:
        self.batches[batch.index] = batch
        self.probe[batch.index] = BatchInputs(batch.samples, batch.fingerprint)
        self._medians = None

    def get(self, index: int, fingerprint: str, device: torch.device) -> PackedGrams | None:
        """One batch's Gram matrices, on ``device``; None if it is not there or its inputs were not the same."""
        batch = self.batches.get(index)
        if batch is None or batch.fingerprint != fingerprint:
            return None
        return PackedGrams(*(sent(part, device) for part in batch.grams))

    def __iter__(self) -> Iterator[ShownBatch]:
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

    @staticmethod
    def from_model(model: nn.Module, dataloader: Any, layers: Any = None, **options: Any) -> GramBank:
        """The bank of a model that is shown the batches of a dataloader; see `lightning_cka.compare.bank_of_model`."""
        from lightning_cka.compare import bank_of_model

        return bank_of_model(model, dataloader, layers, **options)

    def save(self, path: str | Path, *, float16: bool = False) -> bytes:
        """Write all to a safetensors file, whole or not at all.

        Per batch ``i``, it has the tensors ``i.offsets``, ``i.scales`` and ``i.row_squares`` of
        `lightning_cka.packed.PackedGrams`; as ``i.halves``, ``(L, n(n-1)/2)``, the strictly lower triangles of its
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
            parts["halves"] = parts["halves"].index_select(1, triangle_places(batch.grams.num_samples))
            if float16:
                parts["halves"], parts["halves_unit"] = _to_half(parts["halves"])
            tensors.update((f"{batch.index}.{name}", part.contiguous()) for name, part in parts.items())
        content = to_safetensors(tensors, {_HEADER: json.dumps(self._header(), separators=(",", ":"))})
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
                header = _read_header(path.name, file.metadata())
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
                        grams = _read_grams(file, index)
                        bank._put(ShownBatch(index, grams, inputs.fingerprint, inputs.samples))
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


def _read_header(name: str, metadata: dict[str, str] | None) -> dict[str, Any]:
    if not metadata or _HEADER not in metadata:
        raise ValueError(f"{name!r} is no bank of lightning_cka, but another safetensors file")
    header: dict[str, Any] = json.loads(metadata[_HEADER])
    if header["format_version"] > FORMAT_VERSION:
        version = header.get("package_version", "unknown")
        raise ValueError(
            f"{name!r} has format version {header['format_version']}, of lightning_cka {version}; "
            f"this one reads versions up to {FORMAT_VERSION}: install a newer lightning_cka"
        )
    return header


def _read_grams(file: Any, index: int) -> PackedGrams:
    parts = {name: file.get_tensor(f"{index}.{name}") for name in PackedGrams._fields}
    if parts["halves"].dtype == torch.float16:
        unit = file.get_tensor(f"{index}.halves_unit")
        parts["halves"] = parts["halves"].to(unit.dtype) * unit[:, None]
    n = parts["offsets"].shape[1]
    folded = parts["halves"].new_zeros(len(parts["halves"]), n * half_size(n))
    parts["halves"] = folded.index_copy_(1, triangle_places(n), parts["halves"])
    return PackedGrams(**parts)


def _to_half(halves: Tensor) -> tuple[Tensor, Tensor]:
    """Half vectors ``(L, p)`` in half precision, and the powers of 2 ``(L,)`` that they are in units of."""
    largest = halves.abs().amax(1)
    # The largest entry comes to lie in [2^14, 2^15), which leaves the small ones the whole range of float16.
    unit = torch.where(largest > 0, torch.exp2(largest.log2().floor() - 14), torch.ones_like(largest))
    return (halves / unit[:, None]).half(), unit
