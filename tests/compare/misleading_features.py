"""Features that are known to mislead CKA, and how to compare them."""

import torch
from gram_banks import bank_of_features
from lightning_cka import compare_banks
from lightning_cka.compare.flags import Thresholds

OFF = Thresholds.off()


def compare_features(x, y, batch_size=None, **kwargs):
    """CKA of one layer with another, in batches; without flags by default."""
    banks = [bank_of_features([[batch] for batch in z.split(batch_size or len(z))]) for z in (x, y)]
    return compare_banks(*banks, **{"thresholds": OFF} | kwargs)


def feature_pairs():
    """Pairs of features of one layer each, by what is special about them."""
    torch.manual_seed(0)
    n, d = 256, 64
    x = torch.randn(n, d)
    y = x @ torch.randn(d, d) / 8 + 0.5 * torch.randn(n, d)
    one, three, half = x.clone(), x.clone(), x.clone()
    one[5] *= 100
    three[[5, 77, 200]] *= 100
    direction = torch.randn(d)
    half[: n // 2] += 100 * direction / direction.norm()
    shared = torch.randn(n, 1)
    return {
        "healthy": (x, y),
        "one row": (one, y),
        "three rows": (three, y),
        "half of the rows translated": (half, y),
        "a shared component": tuple(torch.randn(n, d) + 100 * shared * torch.randn(1, d) for _ in range(2)),
        "more features than samples": (torch.randn(n, 20000), torch.randn(n, 20000)),
    }
