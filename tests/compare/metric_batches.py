"""Batches of features for `MinibatchCKA`."""

import torch
from lightning_cka import MinibatchCKA


def batches(sizes=(32, 17, 32), dtype=torch.float64, ratio=0.0):
    """For each batch, features of 3 layers of one model and of 2 layers of another, with a common signal."""
    result = []
    for n in sizes:
        signal = torch.randn(n, 6)
        x = [
            torch.randn(n, 3, 4, 5) + signal.mean(1)[:, None, None, None],
            signal @ torch.randn(6, 10),
            torch.randn(n, 1),
        ]
        y = [signal + torch.randn(n, 6), torch.randn(n, 7, 2)]
        result.append(tuple([(z + ratio * z.std()).to(dtype) for z in side] for side in (x, y)))
    return result


def filled(data, **kwargs):
    """A metric that was updated with these batches."""
    metric = MinibatchCKA(3, 2, **kwargs)
    for x, y in data:
        metric.update(x, y)
    return metric
