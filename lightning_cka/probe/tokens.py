"""Choose tokens of sequences as samples, for ``feature_fn="tokens"``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

TOKENS_PER_SEQUENCE = 8
"""Number of tokens of each sequence for "tokens"; "tokens:4" has 4."""

MAX_TOKENS = 10**6
"""Sample numbers are the sequence's number times this, plus the token's place, so that both can be read."""

_KIND = f" x {MAX_TOKENS} + token"


class TokenChoice(NamedTuple):
    """The tokens of a batch of n sequences that are samples, t of each."""

    shape: tuple[int, int]
    """The number of sequences n, and of tokens T with padding. Outputs ``(n, T, d)`` have these tokens."""
    places: Tensor
    """Places of the tokens in [0, T), ``(n, t)``; -1 where a sequence has no token."""

    def of(self, features: Tensor) -> Tensor:
        """Return the chosen tokens ``(n, t, d)`` of features ``(n, T, d)``; ``nan`` for sequences without tokens.

        Other features ``(n, ...)`` have no tokens: each row is returned t times, ``(n, t, ...)``.
        """
        n, t = self.places.shape
        if features.ndim != 3 or tuple(features.shape[:2]) != self.shape:
            return features[:, None].expand(n, t, *features.shape[1:])
        places = self.places.to(features.device)
        chosen = features[torch.arange(n, device=features.device)[:, None], places.clamp(min=0)]
        return chosen.masked_fill((places < 0)[..., None], torch.nan)

    def numbers(self, samples: Sequence[int]) -> list[tuple[int, ...]]:
        """Return the numbers of the tokens, draw by draw, given those of the sequences."""
        columns = self.places.clamp(min=0).T.tolist()
        return [tuple(s * MAX_TOKENS + p for s, p in zip(samples, places, strict=True)) for places in columns]


def tokens_per_sequence(feature_fn: Any) -> int | None:
    """Return how many tokens of each sequence are samples; None for other feature functions than "tokens"."""
    found = re.fullmatch(r"tokens(?::([1-9]\d{0,5}))?", feature_fn) if isinstance(feature_fn, str) else None
    return None if found is None else int(found[1] or TOKENS_PER_SEQUENCE)


def choose_tokens(mask: Tensor, samples: Sequence[int], per_sequence: int, seed: int) -> TokenChoice:
    """Choose tokens of each sequence at random. They depend on the seed and the sequence's number only.

    A draw is one token of each sequence, and becomes a Gram matrix of its own. A sequence with fewer tokens than draws
    gives each of them several times.

    Args:
        mask: ``(n, T)``: which tokens are not padding.
        samples: Numbers of the n sequences.
        per_sequence: Number of tokens t of each sequence.
        seed: Seed of the choice.

    Raises:
        ValueError: The sequences have over a million tokens.
    """
    n, length = mask.shape
    if length > MAX_TOKENS:
        raise ValueError(f"feature_fn='tokens' takes sequences of up to {MAX_TOKENS} tokens, but these have {length}")
    places = np.full((n, per_sequence), -1)
    for row, (sample, kept) in enumerate(zip(samples, mask.cpu().numpy(), strict=True)):
        tokens = np.flatnonzero(kept)
        if len(tokens):
            generator = np.random.default_rng(np.random.SeedSequence([seed, sample]))
            places[row] = np.resize(generator.permutation(tokens), per_sequence)
    return TokenChoice((n, length), torch.from_numpy(places))


def token_kind(sample_kind: str, feature_fn: Any) -> str:
    """Return what the numbers of samples are, given what those of the batches' samples are."""
    return sample_kind if tokens_per_sequence(feature_fn) is None else sample_kind + _KIND


def kind_of_sequences(sample_kind: str) -> str:
    """Return what the numbers of the sequences are, given what those of their tokens are; or of samples, unchanged."""
    return sample_kind.removesuffix(_KIND)


def sequences_of(samples: Sequence[int], sample_kind: str) -> tuple[int, ...] | None:
    """Return the numbers of the sequences that the samples are tokens of; None if they are no tokens."""
    return tuple(sample // MAX_TOKENS for sample in samples) if sample_kind.endswith(_KIND) else None
