"""`BlockInputs`: what a bank keeps of the inputs of one Gram block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning_cka.hsic.packed import PackedGrams
from lightning_cka.probe.bad_inputs import BadInputs
from lightning_cka.probe.bank_batch import BankBatch
from lightning_cka.probe.fingerprint import BlockFingerprint
from lightning_cka.probe.input_hashes import InputHashes
from lightning_cka.probe.probe_set import ProbeBatch
from lightning_cka.probe.tokens import TokenChoice


class BlockInputs:
    """The samples of a Gram block, a hash of their inputs, and which of them are not finite.

    Args:
        num_samples: Number of samples in the block.
    """

    def __init__(self, num_samples: int) -> None:
        self._draws: list[tuple[int, ...]] = []
        self._bad: tuple[int, ...] = ()
        self._hashes: tuple[int, ...] = ()
        self._fingerprint = BlockFingerprint(num_samples)

    def add(self, batch: ProbeBatch, data: Any, shown: Any, tokens: TokenChoice | None = None) -> None:
        """Add the inputs of one forward pass.

        Args:
            batch: The batch.
            data: Its data on the device.
            shown: The part of the data that the model gets.
            tokens: Which tokens are samples. None: the sequences are.
        """
        bad = BadInputs(shown, batch.num_samples)  # The accelerator computes it while the CPU goes on.
        hashes = InputHashes(shown, batch.num_samples)
        self._fingerprint.add(data, batch.num_samples, batch.start)
        draws = [batch.samples] if tokens is None else tokens.numbers(batch.samples)
        bad_samples = set(bad.among(batch.samples))
        for draw in draws:
            self._bad += tuple(n for n, s in zip(draw, batch.samples, strict=True) if s in bad_samples)
        self._draws = [a + b for a, b in zip(self._draws or [()] * len(draws), draws, strict=True)]
        self._hashes += hashes.values()

    def with_grams(self, index: int, grams: Sequence[PackedGrams]) -> list[BankBatch]:
        """Return the block as batches of a bank, one for each draw of tokens.

        Args:
            index: Index of the block in the probe set.
            grams: The Gram matrices of its layers, for each draw.
        """
        inputs, first, bad = self._fingerprint.hexdigest(), index * len(grams), set(self._bad)
        is_hashed = len(self._hashes) == len(self._draws[0])
        return [
            BankBatch(
                first + draw,
                packed,
                inputs,
                samples,
                tuple(n for n in samples if n in bad),
                # The other draws have the same sequences.
                self._hashes if is_hashed and draw == 0 else (),
            )
            for draw, (packed, samples) in enumerate(zip(grams, self._draws, strict=True))
        ]
