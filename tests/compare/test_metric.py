"""`MinibatchCKA` against the naive reference, and as a citizen of torchmetrics."""

import copy
import pickle
import warnings

import naive
import pytest
import torch
from lightning_cka import MinibatchCKA
from lightning_cka.compare.metric import _agreed_medians
from lightning_cka.hsic.packed import pack_stack
from torchmetrics import MetricCollection


def batches(sizes=(32, 17, 32), dtype=torch.float64, ratio=0.0):
    """Per batch, features of 3 layers of one model and 2 of another, that share a signal."""
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
    metric = MinibatchCKA(3, 2, **kwargs)
    for x, y in data:
        metric.update(x, y)
    return metric


@pytest.mark.parametrize("unbiased", [True, False])
def test_two_models_match_naive(unbiased):
    data = batches(sizes=(32, 32) if not unbiased else (32, 17, 4))
    xs, ys = zip(*data, strict=True)
    hsic = naive.unbiased_hsic if unbiased else naive.biased_hsic
    matrix = filled(data, unbiased=unbiased).compute()
    assert matrix.shape == (3, 2)
    assert matrix.dtype == torch.float64
    assert abs(matrix.numpy() - naive.minibatch_cka(xs, ys, hsic)).max() < 1e-10


@pytest.mark.parametrize("ratio", [1, 10, 100, 1000])
def test_float32_matches_naive(ratio):
    data = batches(dtype=torch.float32, ratio=ratio)
    xs, ys = zip(*data, strict=True)
    assert abs(filled(data).compute().numpy() - naive.minibatch_cka(xs, ys)).max() < 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_features(dtype):
    data = batches(dtype=dtype)
    xs, ys = zip(*[([t.double() for t in x], [t.double() for t in y]) for x, y in data], strict=True)
    assert abs(filled(data).compute().numpy() - naive.minibatch_cka(xs, ys)).max() < 1e-5


def test_mixed_precision_between_layers():
    x, y = batches(sizes=(32,))[0]
    metric = filled([([x[0].float(), x[1], x[2].float()], y)])
    assert abs(metric.compute() - filled([(x, y)]).compute()).max() < 1e-6


def test_within_one_model_is_symmetric_with_a_diagonal_of_exactly_one():
    metric = MinibatchCKA(["a", "b", "c"])
    for x, _ in batches(dtype=torch.float32, ratio=30):
        metric.update(x)
    matrix = metric.compute()
    assert torch.equal(matrix.diagonal(), torch.ones(3, dtype=torch.float64))
    assert torch.allclose(matrix, matrix.T, atol=1e-15)


def test_mappings_in_any_order_are_sequences():
    metric = MinibatchCKA(["a", "b", "c"], ["d", "e"])
    for x, y in (data := batches()):
        keyed = dict(zip("abc", x, strict=True))
        metric.update(dict(reversed(keyed.items())), dict(zip("de", y, strict=True)))
    assert torch.equal(metric.compute(), filled(data).compute())


def test_precomputed_gram_matrices_centered_or_not():
    metric = MinibatchCKA(3, 2, kernel="precomputed")
    for x, y in (data := batches()):
        metric.update(*[[z.flatten(1) @ z.flatten(1).T for z in side] for side in (x, y)])
    assert torch.allclose(metric.compute(), filled(data).compute(), atol=1e-10)


def test_packed_grams_are_features():
    metric = MinibatchCKA(3, 2)
    for x, y in (data := batches()):
        metric.update(*[pack_stack(torch.stack([z.flatten(1) @ z.flatten(1).T for z in side])) for side in (x, y)])
    assert torch.allclose(metric.compute(), filled(data).compute(), atol=1e-10)


def test_one_batch_or_many_of_the_whole_do_not_change_the_expectation():
    """Streaming estimates the same quantity as the whole data, where a mean of ratios would not."""
    x = torch.randn(4096, 5, dtype=torch.float64)
    y = x[:, :3] + torch.randn(4096, 3, dtype=torch.float64)
    whole, streamed = MinibatchCKA(1), MinibatchCKA(1)
    whole.update([x], [y])
    for a, b in zip(x.split(8), y.split(8), strict=True):
        streamed.update([a], [b])
    assert abs(whole.compute() - streamed.compute()).item() < 0.02


def test_batches_of_fewer_than_four_samples_are_skipped_and_counted():
    data = batches(sizes=(32, 3, 16, 2))
    metric = filled(data)
    assert torch.equal(metric.compute(), filled([data[0], data[2]]).compute())
    assert (metric.num_skipped, metric.num_batches, metric.num_samples) == (2, 2, 48)


def test_only_small_batches_are_said():
    with pytest.warns(UserWarning, match="all 1 batches had fewer than 4 samples"):
        assert filled(batches(sizes=(3,))).compute().isnan().all()


def test_undefined_layers_are_nan_and_named():
    metric = MinibatchCKA(["dead", "alive", "broken"])
    for _ in range(2):
        broken = torch.randn(16, 3)
        broken[3, 1] = torch.inf
        metric.update([torch.full((16, 4), 0.1), torch.randn(16, 5), broken])
    with pytest.warns(UserWarning) as caught:
        matrix = metric.compute()
    messages = [str(w.message) for w in caught]
    assert messages == [
        "CKA is nan for layers whose activations have no variance: dead",
        "CKA is nan for layers with NaN or infinite activations, or samples too far out for their precision: broken",
    ]
    assert matrix.isnan().tolist() == [[True] * 3, [True, False, True], [True] * 3]


def test_states_have_fixed_shapes_and_are_not_written_in_place():
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


def test_forward_gives_the_batch_and_accumulates():
    data = batches()
    metric = MinibatchCKA(3, 2)
    values = [metric(x, y) for x, y in data]
    for value, batch in zip(values, data, strict=True):
        assert torch.equal(value, filled([batch]).compute())
    assert torch.allclose(metric.compute(), filled(data).compute(), atol=1e-15)


def test_life_cycle():
    data = batches()
    metric = filled(data, return_standard_error=True)
    expected = metric.compute()
    for other in (metric.clone(), copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))):
        assert all(torch.equal(a, b) for a, b in zip(other.compute(), expected, strict=True))
    metric.persistent(True)
    restored = MinibatchCKA(3, 2, return_standard_error=True)
    restored.load_state_dict(metric.state_dict())
    restored._update_count = 1
    assert torch.equal(restored.compute()[0], expected[0])
    metric.reset()
    assert metric.pair_sum.abs().sum() == 0
    metric.update(*data[0])
    assert torch.equal(metric.compute()[0], filled(data[:1]).compute())


def test_in_a_metric_collection():
    collection = MetricCollection({"unbiased": MinibatchCKA(3, 2), "biased": MinibatchCKA(3, 2, unbiased=False)})
    for x, y in (data := batches(sizes=(32, 32))):
        collection.update(x, y)
    values = collection.compute()
    assert torch.equal(values["unbiased"], filled(data).compute())
    assert (values["biased"] > values["unbiased"]).all()


def test_a_metric_collection_does_not_merge_estimators_that_begin_with_a_skipped_batch():
    collection = MetricCollection({"unbiased": MinibatchCKA(3, 2), "biased": MinibatchCKA(3, 2, unbiased=False)})
    for x, y in (data := batches(sizes=(3, 32))):
        collection.update(x, y)
    assert torch.equal(collection.compute()["biased"], filled(data, unbiased=False).compute())
    assert torch.equal(collection.compute()["unbiased"], filled(data).compute())


@pytest.mark.parametrize("scale", [1e-22, 1e18])
@pytest.mark.parametrize("unbiased", [True, False])
def test_scale_does_not_matter_and_is_kept_between_batches(scale, unbiased):
    """One scale for all batches, although each Gram matrix is made with its own."""
    data = batches(dtype=torch.float32)
    data = [([t * 10**i for t in x], y) for i, (x, y) in enumerate(data)]
    expected = filled(data, unbiased=unbiased).compute()
    scaled = filled([([t * scale for t in x], y) for x, y in data], unbiased=unbiased).compute()
    assert torch.allclose(scaled, expected, atol=1e-5)
    xs, ys = zip(*data, strict=True)
    hsic = naive.unbiased_hsic if unbiased else naive.biased_hsic
    weight = (lambda n: n * (n - 3)) if unbiased else (lambda n: (n - 1) ** 2)
    assert abs(expected.numpy() - naive.minibatch_cka(xs, ys, hsic, weight)).max() < 1e-5


def test_merge_state_adds_up():
    data = batches(sizes=(32, 17, 32, 8))
    first, second = filled(data[:2]), filled(data[2:])
    first.merge_state(second)
    assert torch.allclose(first.compute(), filled(data).compute(), atol=1e-14)


def test_standard_error_is_the_delta_method():
    """Against the textbook form, a residual per batch, which the streaming sums must reproduce."""
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
    """Coverage of the 95 % t interval over 400 simulated probe sets of 10 batches of 32."""
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


def test_result_is_what_compute_gives_and_more():
    data = batches()
    metric = filled(data, return_standard_error=True)
    result = metric.result(model_name="live", epoch=3)
    matrix, error = metric.compute()
    assert torch.equal(result.matrix, matrix)
    assert torch.equal(result.standard_error, error)
    assert (result.model_name, result.epoch, result.kernel, result.unbiased) == ("live", 3, "linear", True)
    assert (result.num_batches, result.num_samples) == (len(data), sum(len(x[0]) for x, _ in data))
    assert 1 < result.effective_batches <= len(data)
    empty = MinibatchCKA(2)
    assert empty.result().effective_batches is None
    empty.update([torch.zeros(8, 2), torch.randn(8, 2)])
    with pytest.warns(UserWarning, match="no variance: 0"):
        empty.result()


def test_processes_that_fixed_other_bandwidths_are_told():
    medians = torch.tensor([[2.0, 4.0], [2.0, 5.0], [-1.0, -1.0]])
    with pytest.warns(UserWarning, match="of 2 processes fixed RBF bandwidths whose squares differ by up to 22%"):
        assert _agreed_medians(medians).tolist() == [2.0, 4.0]
    assert _agreed_medians(medians[[2, 1]]).tolist() == [2.0, 5.0]  # Only one of them saw a batch.
    assert _agreed_medians(medians[[2]]).tolist() == [-1.0, -1.0]


def test_plot_gives_a_figure_and_axes():
    metric = filled(batches(), return_standard_error=True)
    figure, ax = metric.plot()
    assert ax.get_images()[0].get_array().shape == (3, 2)
    other, same = metric.plot(metric.compute(), ax=figure.add_subplot())
    assert other is figure
    assert same is not ax


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MinibatchCKA(0), "layers must be a positive number or a sequence of names, but is 0"),
        (lambda: MinibatchCKA("conv1"), "sequence of names, but is 'conv1'"),
        (lambda: MinibatchCKA(["a", "a"]), "distinct names"),
        (lambda: MinibatchCKA(2, kernel="linaer"), "unknown kernel 'linaer'; expected one of"),
        (lambda: MinibatchCKA(2).update([torch.ones(5, 2)]), "expected features of 2 layers, but got 1"),
        (lambda: MinibatchCKA(2).update([torch.ones(5, 2), torch.ones(6, 2)]), r"same batch size .* n = \[5, 6\]"),
        (lambda: MinibatchCKA(1).update([torch.ones(5, 2)], [torch.ones(6, 2)]), r"one batch, but have n = \[5, 6\]"),
        (lambda: MinibatchCKA(1, 2).update([torch.ones(5, 2)]), "reference_features are needed"),
        (lambda: MinibatchCKA(["a"]).update({"b": torch.ones(5, 2)}), r"missing: \['a'\], unexpected: \['b'\]"),
        (lambda: MinibatchCKA(1, kernel="precomputed").update([torch.ones(5, 2)]), r"takes \(n, n\) Gram matrices"),
        (
            lambda: MinibatchCKA(1, kernel="precomputed").update([torch.arange(25.0).view(5, 5)]),
            "symmetric Gram matrices, but got one that is not",
        ),
        (lambda: MinibatchCKA(1).update([torch.tensor(1.0)]), r"tensors of shape \(n, ...\), but one is tensor\(1.\)"),
        (lambda: MinibatchCKA(1, foo=1), "Unexpected keyword arguments: `foo`"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_mapping_with_other_keys_later():
    metric = MinibatchCKA(["a"])
    metric.update({"a": torch.randn(5, 2)})
    with pytest.raises(ValueError, match="keys at each update"):
        metric.update({"a": torch.randn(5, 2), "c": torch.randn(5, 2)})


def test_no_warning_on_healthy_data():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not filled(batches()).compute().isnan().any()
