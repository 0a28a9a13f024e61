"""`HSICSums`: the sums over batches, and the standard error that follows from them."""

import naive
import pytest
import torch
from lightning_cka import MinibatchCKA
from metric_batches import batches, filled


def test_states_have_fixed_shapes_and_are_not_updated_in_place():
    metric = MinibatchCKA(3, 2)
    with torch.inference_mode():
        metric.update(*batches(sizes=(32,))[0])
    before = {name: (state, state.clone()) for name, state in metric.metric_state.items()}
    metric.update(*batches(sizes=(32,))[0])
    for name, (state, value) in before.items():
        assert torch.equal(state, value)
        assert getattr(metric, name).shape == value.shape
        integer = name.startswith("num_") or name == "configuration"
        assert getattr(metric, name).dtype == (torch.int64 if integer else torch.float64)


def test_merge_state_adds_up():
    data = batches(sizes=(32, 17, 32, 8))
    first, second = filled(data[:2]), filled(data[2:])
    first.merge_state(second)
    assert torch.allclose(first.compute(), filled(data).compute(), atol=1e-14)


def test_many_small_batches_estimate_the_same_as_one_batch():
    """Unlike a mean of ratios, a ratio of sums has the same expectation for any number of batches."""
    x = torch.randn(4096, 5, dtype=torch.float64)
    y = x[:, :3] + torch.randn(4096, 3, dtype=torch.float64)
    whole, streamed = MinibatchCKA(1), MinibatchCKA(1)
    whole.update([x], [y])
    for a, b in zip(x.split(8), y.split(8), strict=True):
        streamed.update([a], [b])
    assert abs(whole.compute() - streamed.compute()).item() < 0.02


@pytest.mark.parametrize("scale", [1e-22, 1e18])
@pytest.mark.parametrize("unbiased", [True, False])
def test_the_scale_of_features_cancels_and_is_the_same_for_all_batches(scale, unbiased):
    """Each Gram matrix has its own scale, but the sums over batches have a common one."""
    data = batches(dtype=torch.float32)
    data = [([t * 10**i for t in x], y) for i, (x, y) in enumerate(data)]
    expected = filled(data, unbiased=unbiased).compute()
    scaled = filled([([t * scale for t in x], y) for x, y in data], unbiased=unbiased).compute()
    assert torch.allclose(scaled, expected, atol=1e-5)
    xs, ys = zip(*data, strict=True)
    hsic = naive.unbiased_hsic if unbiased else naive.biased_hsic
    weight = (lambda n: n * (n - 3)) if unbiased else (lambda n: (n - 1) ** 2)
    assert abs(expected.numpy() - naive.minibatch_cka(xs, ys, hsic, weight)).max() < 1e-5


def test_standard_error_is_the_delta_method():
    """The sums give the same as the textbook formula with one residual for each batch."""
    data = batches(sizes=(32, 17, 32, 20, 9))
    _matrix, error = filled(data, return_standard_error=True).compute()
    for i in range(3):
        for j in range(2):
            parts = []
            for x, y in data:
                k, ell = (naive.fast_gram((z - z.mean(0)).flatten(1)) for z in (x[i], y[j]))
                n = len(k)
                parts.append([n * (n - 3) * naive.unbiased_hsic(a, b) for a, b in ((k, ell), (k, k), (ell, ell))])
            c, a, b = torch.tensor(parts, dtype=torch.float64).T
            w = torch.tensor([len(x[0]) * (len(x[0]) - 3) for x, _ in data], dtype=torch.float64)
            ratio = c.sum() / (a.sum() * b.sum()).sqrt()
            residual = c / (a.sum() * b.sum()).sqrt() - ratio * (a / a.sum() + b / b.sum()) / 2
            effective = w.sum() ** 2 / w.square().sum()
            expected = (effective / (effective - 1) * residual.square().sum()).sqrt()
            assert error[i, j].item() == pytest.approx(expected.item(), rel=1e-8)
    assert filled(data[:1], return_standard_error=True).compute()[1].isnan().all()


def test_standard_error_covers_the_truth():
    """95 % t intervals of 400 simulated probe sets, each of 10 batches of 32 samples."""
    generator = torch.Generator().manual_seed(0)

    def sample(count, n):
        z = torch.randn(count, n, 4, generator=generator, dtype=torch.float64)
        x = z[..., :3] + 0.5 * torch.randn(count, n, 3, generator=generator, dtype=torch.float64)
        y = z[..., 1:] + 0.5 * torch.randn(count, n, 3, generator=generator, dtype=torch.float64)
        return x, y

    truth = MinibatchCKA(1)
    for x, y in zip(*sample(20, 1000), strict=True):
        truth.update([x], [y])
    target, hits = truth.compute().item(), 0
    for _ in range(400):
        metric = MinibatchCKA(1)
        for x, y in zip(*sample(10, 32), strict=True):
            metric.update([x], [y])
        low, high = metric.result().confidence_interval(0.95)
        hits += low.item() < target < high.item()
    assert 0.92 <= hits / 400 <= 0.97
