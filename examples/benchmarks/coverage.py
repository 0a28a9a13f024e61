"""Measure how often intervals of nominal 95 % contain the CKA of the population that the samples are drawn from.

Many probe sets are drawn from each population of `populations.py`. Each probe set has k batches of 64 samples. The
table has the share of probe sets whose interval contains the true value, for single values, for `mean`, and for the
paired difference of two results. Beside it are the delta method and `MinibatchCKA`, which has only sums.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from lightning_cka import GramBank, MinibatchCKA, Thresholds, compare_banks
from lightning_cka.compare.result import CKAResult
from lightning_cka.hsic.kernel_grams import apply_kernel
from lightning_cka.hsic.products import hsic_products
from lightning_cka.hsic.stack import pack_features
from lightning_cka.hsic.standard_error import student_interval
from lightning_cka.probe.bank_batch import BankBatch
from markdown import table
from populations import BATCH_SIZE, POPULATIONS, Draw, true_values
from torch import Tensor

LEVEL = 0.95
AT_A_TIME = 50
"""Number of probe sets that are compared at a time, as if they were the layers of one model."""

Batches = list[list[Tensor]]
"""The features of each batch: one tensor ``(n, features)`` for each layer, or for each probe set."""

OFF = Thresholds(None, None, None, None)
CPU = torch.device("cpu")


def bank_of(batches: Batches) -> GramBank:
    """Return a bank of layers with the given features on each batch."""
    bank = GramBank(tuple(map(str, range(len(batches[0])))), "model")
    for index, features in enumerate(batches):
        bank.add(BankBatch(index, pack_features(features), str(index), tuple(range(len(features[0])))))
    return bank


def probe_sets(draw: Draw, count: int, num_batches: int, seed: int) -> Iterator[tuple[Batches, ...]]:
    """Yield x, y and z of `AT_A_TIME` probe sets at a time; each is a list of batches of one tensor per probe set."""
    generator = torch.Generator().manual_seed(seed)
    for start in range(0, count, AT_A_TIME):
        size = min(AT_A_TIME, count - start)
        drawn = [draw(generator, size, BATCH_SIZE) for _ in range(num_batches)]
        yield tuple([list(batch[which]) for batch in drawn] for which in range(3))


def delta_method(x: GramBank, y: GramBank, kernel: str) -> tuple[Tensor, Tensor, float]:
    """Return CKA, its standard error by the delta method, and k_eff, with the bandwidths of the banks."""
    metric = MinibatchCKA(x.layers, y.layers, kernel="precomputed")
    medians = [bank.medians(CPU, distributed=False) for bank in (x, y)]
    for one, other in zip(x, y, strict=True):
        grams = [apply_kernel(kernel, each.grams, m) for each, m in zip((one, other), medians, strict=True)]
        metric.add_products(*hsic_products(*grams, unbiased=True), BATCH_SIZE)
    return metric.matrix(), metric.standard_error(), float(metric.effective_batches())


def streamed(x: GramBank, y: GramBank, kernel: str) -> CKAResult:
    """Return the result of `MinibatchCKA`, whose bandwidths are those of the first batch."""
    metric = MinibatchCKA(x.layers, y.layers, kernel=kernel)
    for one, other in zip(x, y, strict=True):
        metric.update(one.grams, other.grams)
    return metric.result()


def hits(interval: tuple[Tensor, Tensor], truth: float) -> Tensor:
    """Return which intervals of the diagonal contain the truth."""
    low, high = (bound.diagonal() for bound in interval)
    return (low <= truth) & (truth <= high)


def cover_mean(features: tuple[Batches, ...], kernel: str, truth: float) -> Tensor:
    """Return which intervals of the mean of two layers contain the truth; the layers have the features x and z."""
    x, y, z = features
    found = []
    for which in range(len(x[0])):
        model = bank_of([[one[which], other[which]] for one, other in zip(x, z, strict=True)])
        reference = bank_of([[one[which], one[which]] for one in y])
        result = compare_banks(model, reference, kernel=kernel, thresholds=OFF)
        bounds = [torch.tensor([[each]]) for each in (result.mean(), result.mean_standard_error)]
        found.append(hits(student_interval(*bounds, result.effective_batches, LEVEL), truth))
    return torch.cat(found)


def measure(name: str, kernel: str, num_batches: int, repeats: int, *, mean_repeats: int) -> dict[str, float]:
    """Return the coverage of each kind of interval, and where the estimate and its error lie.

    Args:
        name: Name of the population.
        kernel: "linear" or "rbf".
        num_batches: Number of batches k of each probe set.
        repeats: Number of probe sets.
        mean_repeats: Number of probe sets for the coverage of the mean, which needs most of the time.
    """
    truth, other_truth = true_values(name, kernel)
    found: dict[str, list[Tensor]] = {}
    for features in probe_sets(POPULATIONS[name], repeats, num_batches, seed=num_batches):
        x, y, z = map(bank_of, features)
        earlier, later = (compare_banks(each, y, kernel=kernel, thresholds=OFF) for each in (x, z))
        value, error, effective_batches = delta_method(x, y, kernel)
        intervals = {
            "value": hits(earlier.confidence_interval(LEVEL), truth),
            "difference": hits(later.difference(earlier).confidence_interval(LEVEL), other_truth - truth),
            "delta method": hits(student_interval(value, error, effective_batches, LEVEL), truth),
            "MinibatchCKA": hits(streamed(x, y, kernel).confidence_interval(LEVEL), truth),
            "estimate": earlier.matrix.diagonal(),
            "error": earlier.standard_error.diagonal(),
        }
        if len(found.get("mean", ())) * AT_A_TIME < mean_repeats:
            intervals["mean"] = cover_mean(features, kernel, (truth + other_truth) / 2)
        for key, values in intervals.items():
            found.setdefault(key, []).append(values.double())
    joined = {key: torch.cat(values) for key, values in found.items()}
    estimates, errors = joined.pop("estimate"), joined.pop("error")
    return {
        "truth": truth,
        "bias": ((estimates.mean() - truth) / estimates.std()).item(),
        "error ratio": (errors.square().mean().sqrt() / estimates.std()).item(),
        **{key: values.mean().item() for key, values in joined.items()},
    }


def row(name: str, kernel: str, num_batches: int, found: dict[str, float]) -> dict[str, str]:
    """Return a row of the table."""
    shares = ("value", "mean", "difference", "delta method", "MinibatchCKA")
    return {
        "population": name,
        "kernel": kernel,
        "k": str(num_batches),
        "CKA": f"{found['truth']:.3f}",
        "bias / sd": f"{found['bias']:+.2f}",
        "error / sd": f"{found['error ratio']:.2f}",
        **{key: f"{found[key]:.3f}" if key in found else "" for key in shares},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--populations", nargs="*", choices=list(POPULATIONS), default=list(POPULATIONS))
    parser.add_argument("--kernels", nargs="*", choices=["linear", "rbf"], default=["linear", "rbf"])
    parser.add_argument("--batches", nargs="*", type=int, default=[8, 32], help="batches in a probe set")
    parser.add_argument("--repeats", type=int, default=1000, help="probe sets for each row")
    parser.add_argument("--mean-repeats", type=int, default=1000, help="probe sets for the column of the mean")
    parser.add_argument("--output", type=Path, default=Path("coverage.json"))
    args = parser.parse_args()
    error = (LEVEL * (1 - LEVEL) / args.repeats) ** 0.5
    print(f"{args.repeats} probe sets of k batches of {BATCH_SIZE}. Binomial standard error: {error:.3f}\n")
    warnings.filterwarnings("ignore", message="CKA.*layers that|.*fixed RBF bandwidths")
    found = []
    for name in args.populations:
        for kernel in args.kernels:
            for num_batches in args.batches:
                each = measure(name, kernel, num_batches, args.repeats, mean_repeats=args.mean_repeats)
                found.append({"population": name, "kernel": kernel, "batches": num_batches, **each})
                lines = table([row(name, kernel, num_batches, each)]).splitlines()
                print("\n".join(lines if len(found) == 1 else lines[-1:]), flush=True)
                args.output.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
