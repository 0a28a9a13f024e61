"""`BlockGrams`: the Gram matrices of one block, from the features of its forward passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lightning_cka.hsic.grams import Workspace
from lightning_cka.hsic.packed import PackedGrams
from lightning_cka.hsic.stack import GramStack
from lightning_cka.probe.block_features import BlockFeatures

Observer = Callable[[int, Tensor], None]
"""Called inside the forward hook, with a layer's row and its features ``(n, ...)``."""


@dataclass
class BlockMemory:
    """Memory that is used again from block to block."""

    grams: Workspace = field(default_factory=Workspace)
    """Memory of Gram matrices."""
    features: dict[int, Tensor] = field(default_factory=dict)
    """Features of a block that has several forward passes, by row."""


class BlockGrams:
    """Turns the features of each layer into a Gram matrix, when the block's last forward pass has given them.

    Args:
        num_layers: Number of layers.
        num_samples: Number of samples n in the block.
        device: Device of the Gram matrices.
        memory: Memory that the next block uses again.
        observe: Called with the features of each layer. None: no observer.
    """

    def __init__(
        self, num_layers: int, num_samples: int, device: torch.device, memory: BlockMemory, observe: Observer | None
    ) -> None:
        self._observe = observe
        self._features = BlockFeatures(memory.features, num_samples)
        self._stack = GramStack(num_layers, num_samples, dtype=torch.float32, device=device, workspace=memory.grams)

    def add(self, row: int, features: Tensor, start: int) -> str | None:
        """Add the features of one forward pass; see `BlockFeatures.add`.

        Returns:
            Why the layer's Gram matrix is undefined, as a verb phrase; None if it is not.
        """
        block = self._features.add(row, features, start)
        if isinstance(block, str):
            return block
        if block is not None:
            if self._observe is not None:
                self._observe(row, block)
            self._stack.add(row, block)
        return None

    def set_undefined(self, row: int) -> None:
        """Set the Gram matrix of a layer to ``nan``."""
        with torch.inference_mode(False), torch.no_grad():
            self._stack.set_undefined(row)

    def packed(self) -> PackedGrams:
        """Return the Gram matrices of all layers."""
        return self._stack.packed()
