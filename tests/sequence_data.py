"""Small data of sequences and vectors, for tests of many kinds of layers."""

import torch
from observed import Wrapped
from torch.nn.utils.rnn import pad_sequence


def sequences(n=64, tokens=8):
    """Return n pairs of a sequence (tokens, 6) and a label.

    By default, a sequence has as many tokens as a batch has samples: these must not be confused.
    """
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(tokens, 6, generator=generator), 0) for _ in range(n)]


def vectors(n=64):
    """Return n pairs of a vector (6,) and a label."""
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(6, generator=generator), 0) for _ in range(n)]


class TakesLengths(Wrapped):
    """A network whose batches are dictionaries with "x" and "lengths"."""

    def forward(self, x, lengths):
        return self.net(x, lengths)


def collate_ragged(samples):
    """Cut each sequence to a length of its own, from 2 to 7, and pad the batch with zeros."""
    lengths = [2 + int(10 * abs(x[0, 0])) % 6 for x, _ in samples]
    x = pad_sequence([x[:length] for (x, _), length in zip(samples, lengths, strict=True)], batch_first=True)
    return {"x": x, "lengths": torch.tensor(lengths)}


def token_means(output, batch):
    """Return the mean over the tokens of each sample, without its padding."""
    return torch.stack([x[:length].mean(0) for x, length in zip(output, batch["lengths"], strict=True)])
