"""`compare_models`: two models or one, in any order of samples, and bad input."""

import naive
import numpy as np
import pytest
import torch
from conftest import Net, dataset
from lightning_cka import compare_models
from torch import nn
from torch.utils.data import DataLoader

# Small probe sets and networks with few outputs are flagged, as they should be; test_find_flags.py tests flags.
pytestmark = pytest.mark.filterwarnings("ignore:CKA( with '.*')?. layers (that|whose)")


def loader(**kwargs):
    return DataLoader(dataset(100), batch_size=16, **kwargs)


def mlp():
    return nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 5))


def test_two_architectures_match_naive():
    model, reference = Net(), mlp()
    result = compare_models(model, reference, loader(), "net.*", reference_layers=nn.Linear, progress_bar=False)
    model.eval()
    with torch.no_grad():
        xs = [[model.net[:i](x) for i in range(1, 7)] for x, _ in loader()]
        ys = [[reference[:1](x), reference(x)] for x, _ in loader()]
    assert abs(result.matrix.numpy() - naive.minibatch_cka(xs, ys)).max() < 1e-5
    assert result.layers == tuple(f"net.{i}" for i in range(6))
    assert result.reference_layers == ("0", "2")
    assert (result.model_name, result.reference_name) == ("Net", "Sequential")
    assert (result.num_samples, result.num_batches) == (100, 7)
    assert result.standard_error.shape == (6, 2)


def test_one_model_with_itself():
    model = mlp()
    result = compare_models(model, model, loader(shuffle=True), progress_bar=False)
    assert torch.equal(result.matrix.diagonal(), torch.ones(2, dtype=torch.float64))
    assert result.self_comparison
    other = compare_models(model, model, loader(), "0", reference_layers="2", progress_bar=False)
    assert other.matrix.shape == (1, 1)
    assert not other.self_comparison


def test_the_state_of_the_models_is_restored(capsys):
    model, reference = Net(), mlp().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    compare_models(model, reference, loader(shuffle=True), reference_layers="*", progress_bar=True)
    assert model.training
    assert not reference.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "CKA: Net: 100%" in captured.err
    assert "CKA: Sequential: 100%" in captured.err


def test_a_shuffling_loader_shows_both_models_the_same_samples():
    """Two copies of one model have CKA 1, since both see the samples in the same order."""
    model, duplicate = mlp(), mlp()
    duplicate.load_state_dict(model.state_dict())
    result = compare_models(model, duplicate, loader(shuffle=True), progress_bar=False)
    assert torch.allclose(result.matrix.diagonal(), torch.ones(2, dtype=torch.float64), atol=1e-12)


class Unseeded:
    """Random batches from a generator of its own, which no seed sets."""

    private = torch.Generator().manual_seed(0)

    def __iter__(self):
        return iter([torch.randn(8, 8, generator=self.private) for _ in range(3)])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: compare_models(Net(), mlp(), loader(), "head", progress_bar=False),
            ValueError,
            "reference: layer pattern 'head' matches no module.*reference_layers=",
        ),
        (
            lambda: compare_models(mlp(), mlp(), Unseeded(), progress_bar=False),
            ValueError,
            "gave the two models different samples in 3 batches",
        ),
        (
            lambda: compare_models(mlp(), mlp(), iter(loader()), progress_bar=False),
            TypeError,
            "iterable more than once",
        ),
        (
            lambda: compare_models(mlp(), mlp(), loader(), "9", progress_bar=False),
            ValueError,
            "pattern '9' matches no module",
        ),
        (
            lambda: compare_models(mlp(), mlp(), loader(), kernel="x", progress_bar=False),
            ValueError,
            "unknown kernel 'x'",
        ),
        (
            lambda: compare_models(mlp(), mlp(), loader(), feature_fn="x", progress_bar=False),
            ValueError,
            "unknown feature_fn",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_undefined_layers_are_named_in_a_warning():
    model = mlp()
    nn.init.zeros_(model[0].weight)
    with pytest.warns(UserWarning, match="no variance: 0, 2"):
        result = compare_models(model, model, loader(), progress_bar=False)
    assert result.matrix.isnan().all()


class NamedEntries:
    """Can be iterated over, as graphs of `torch_geometric`, but yields names and values."""

    def keys(self):
        return ["x"]

    def __iter__(self):
        return iter([("x", torch.randn(64, 8))])


@pytest.mark.parametrize(
    "data",
    [torch.randn(64, 8), np.ones((64, 8)), dataset(64), {"x": torch.randn(64, 8)}, NamedEntries(), object()],
)
def test_data_that_are_not_in_batches_raise(data):
    with pytest.raises(TypeError, match=f"is a {type(data).__name__}, not batches of samples; pass a DataLoader"):
        compare_models(Net(), Net(), data, progress_bar=False)


@pytest.mark.filterwarnings("ignore:CKA:UserWarning")
def test_names_seed_and_summary():
    loader = DataLoader(dataset(128), batch_size=16, shuffle=True)
    torch.manual_seed(0)
    one, other = Net(), Net()
    result = compare_models(one, other, loader, progress_bar=False)
    assert (result.model_name, result.reference_name) == ("Net", "Net (reference)")
    again, elsewhere = (compare_models(one, other, loader, progress_bar=False, seed=seed) for seed in (0, 1))
    assert torch.equal(result.matrix, again.matrix)
    assert not torch.equal(result.matrix, elsewhere.matrix)
    named = compare_models(one, other, loader, model_name="a", reference_name="b", progress_bar=False)
    assert repr(named).startswith("CKAResult(a and b: 4 x 4 layers, linear CKA, 128 samples, mean 0.")
    with pytest.raises(TypeError, match=r"but is \['linear', 'rbf'\] \(only CKAMonitor takes several\)"):
        compare_models(one, other, loader, kernel=["linear", "rbf"])


def test_small_batches_that_are_joined_have_a_smaller_error():
    """The same samples in forward passes of 4: Gram matrices of 64 samples instead of 4."""
    torch.manual_seed(0)
    models = [
        nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)) for _ in range(2)
    ]
    truth = compare_models(*models, torch.randn(20000, 16).split(1000), progress_bar=False).matrix
    errors = {None: [], 64: []}
    for _ in range(10):
        batches = torch.randn(512, 16).split(4)
        for size, found in errors.items():
            matrix = compare_models(*models, batches, gram_batch_size=size, progress_bar=False).matrix
            found.append(matrix - truth)
    before, after = (torch.stack(found).square().mean().sqrt() for found in errors.values())
    assert after < before / 3
