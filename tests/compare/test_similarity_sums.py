"""`SimilaritySums`: the sums over batches, and the standard error that follows from them."""

import copy
import pickle

import lightning as L
import naive
import pytest
import torch
from lightning_cka import MinibatchCKA, functional
from metric_batches import batches, filled
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


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
    """95 % t intervals of 400 simulated probe sets, each of 10 batches of 32 samples: 20 at a time, as 20 layers."""
    generator = torch.Generator().manual_seed(0)

    def sample(n, count):
        z = torch.randn(count, n, 4, generator=generator, dtype=torch.float64)
        x = z[..., :3] + 0.5 * torch.randn(count, n, 3, generator=generator, dtype=torch.float64)
        y = z[..., 1:] + 0.5 * torch.randn(count, n, 3, generator=generator, dtype=torch.float64)
        return [*x], [*y]

    truth, hits = MinibatchCKA(1), 0
    for _ in range(20):
        truth.update(*sample(1000, 1))
    target = truth.compute().item()
    for _ in range(20):
        metric = MinibatchCKA(20)
        for _ in range(10):
            metric.update(*sample(32, 20))
        low, high = metric.result().confidence_interval(0.95)
        hits += ((low < target) & (target < high)).diagonal().sum().item()
    assert 0.92 <= hits / 400 <= 0.97


def convert(metric, how):
    """Return the metric after what converts modules."""
    if how == "state_dict":
        metric.persistent(True)
        state = {
            name: value.bfloat16() if value.is_floating_point() else value
            for name, value in metric.state_dict().items()
        }
        metric.load_state_dict(state)
        return metric
    if how == "pickle":
        return pickle.loads(pickle.dumps(nn.ModuleList([metric]).half()))[0]
    if how == "set_dtype":
        return metric.set_dtype(torch.bfloat16)
    module = nn.ModuleDict({"a": nn.ModuleList([metric, nn.Linear(2, 2)])})
    converted = {
        "to": lambda: module.to(torch.bfloat16),
        "to device and dtype": lambda: module.to("cpu", torch.float16),
        "half": module.half,
        "double": module.double,
        "bfloat16": module.bfloat16,
        "copies": lambda: copy.deepcopy(module.half()),
    }[how]()
    return converted["a"][0]


@pytest.mark.parametrize(
    "how",
    ["state_dict", "pickle", "set_dtype", "to", "to device and dtype", "half", "double", "bfloat16", "copies"],
)
@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_sums_stay_float64_whatever_converts_the_module(how, kernel):
    data = batches(sizes=(32, 17, 32))
    first, expected = filled(data[:1], kernel=kernel), filled(data, kernel=kernel).compute()
    metric = convert(first, how)
    for name, state in metric.metric_state.items():
        integer = name.startswith("num_") or name == "configuration"
        assert state.dtype == (torch.int64 if integer else torch.float64)
    if how == "state_dict":  # The file has rounded the first batch.
        metric.reset()
        metric.update(*data[0])
    for x, y in data[1:]:
        metric.update(x, y)
    assert torch.equal(metric.compute(), expected)
    metric.reset()
    assert metric.pair_sum.dtype == torch.float64


def test_a_metric_moves_between_devices():
    metric = nn.ModuleList([filled(batches())]).to("meta", torch.bfloat16)[0]
    assert metric.pair_sum.device == torch.device("meta")
    assert (metric.pair_sum.dtype, metric.weight_sum.dtype, metric.num_batches.dtype) == (
        torch.float64,
        torch.float64,
        torch.int64,
    )


def test_a_trainer_in_bfloat16_leaves_the_sums_alone():
    class Model(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer, self.metric, self.seen = nn.Linear(4, 4), MinibatchCKA(1, 1), []

        def training_step(self, batch, _):
            hidden = self.layer(batch[0])
            self.metric.update([batch[0]], [hidden.detach()])
            self.seen.append((batch[0], hidden.detach()))
            return hidden.square().mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    model = Model()
    options = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = L.Trainer(max_epochs=1, accelerator="cpu", precision="bf16-true", **options)
    trainer.fit(model, DataLoader(TensorDataset(torch.randn(160, 4)), 16))
    expected = MinibatchCKA(1, 1)
    for x, y in model.seen:
        assert y.dtype == torch.bfloat16
        expected.update([x], [y])
    assert model.metric.pair_sum.dtype == torch.float64
    assert torch.equal(model.metric.compute(), expected.compute())


@pytest.mark.parametrize(("unbiased", "weight"), [(True, lambda n: n * (n - 3)), (False, lambda n: (n - 1) ** 2)])
def test_weights_of_ragged_batches(unbiased, weight):
    """Sums of <K, L> weigh HSIC by what it divides by. Gretton et al. 2005 divide the biased one by (n - 1)^2."""
    data = batches(sizes=(40, 12, 5))
    metric = filled(data, unbiased=unbiased)
    weights = torch.tensor([weight(n) for n in (40, 12, 5)], dtype=torch.float64)
    assert metric.effective_batches() == weights.sum() ** 2 / weights.square().sum()
    hsic = functional.unbiased_hsic if unbiased else functional.biased_hsic
    grams = [[functional.centered_gram(side[0]) for side in batch] for batch in data]
    c, a, b = (
        sum(w * hsic(pair[i], pair[j]) for w, pair in zip(weights, grams, strict=True))
        for i, j in ((0, 1), (0, 0), (1, 1))
    )
    assert metric.compute()[0, 0].item() == pytest.approx((c / (a * b).sqrt()).item(), rel=1e-12)
