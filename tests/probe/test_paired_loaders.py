"""`compare_models` with two loaders: sample i of the one belongs to sample i of the other."""

import pytest
import torch
from lightning_cka import GramBank, compare_banks, compare_models
from lightning_cka.compare.flags import INPUT
from lightning_cka.probe.given_batches import probe_set_of_loader
from lightning_cka.probe.paired_loaders import paired_probe_set
from torch import nn
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SubsetRandomSampler,
    TensorDataset,
)

pytestmark = pytest.mark.filterwarnings("ignore:CKA")

N = 96


def clean(n=N):
    return TensorDataset(torch.randn(n, 8, generator=torch.Generator().manual_seed(0)))


def corrupted(n=N, noise=0.5):
    (x,) = clean(n).tensors
    return TensorDataset(x + noise * torch.randn(n, 8, generator=torch.Generator().manual_seed(1)))


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 6), nn.ReLU())


LAYERS = ["0", "2"]


def compared(model, loader, reference_loader, reference=None, layers=LAYERS, **kwargs):
    return compare_models(
        model,
        model if reference is None else reference,
        loader,
        layers,
        reference_dataloader=reference_loader,
        progress_bar=False,
        **kwargs,
    )


def test_one_model_on_two_datasets():
    model = net()
    result = compared(model, DataLoader(clean(), batch_size=32), DataLoader(corrupted(), batch_size=32))
    assert not result.self_comparison
    assert (result.model_name, result.reference_name) == ("Sequential", "Sequential (reference_dataloader)")
    assert result.num_samples == N
    pairs = [
        compared(model, [x], [y]).matrix
        for x, y in zip(clean().tensors[0].split(32), corrupted().tensors[0].split(32), strict=True)
    ]
    assert (result.matrix - sum(pairs) / 3).abs().max() < 0.05
    assert result.same_named()["0"] > 0.5
    images = torch.cat([clean().tensors[0], corrupted().tensors[0]], 1)  # One loader of pairs, two ways to show them.
    shown = [lambda module, batch: module(batch[0][:, :8]), lambda module, batch: module(batch[0][:, 8:])]
    same = compare_models(
        model,
        model,
        DataLoader(TensorDataset(images), batch_size=32),
        LAYERS,
        forward_fn=shown[0],
        reference_forward_fn=shown[1],
        progress_bar=False,
    )
    assert torch.allclose(result.matrix, same.matrix, atol=1e-12)


def own_generator():
    return torch.Generator().manual_seed(7)


def kinds(data):
    return {
        "shuffle": lambda: DataLoader(data, batch_size=24, shuffle=True),
        "generator": lambda: DataLoader(data, batch_size=24, shuffle=True, generator=own_generator()),
        "sampler": lambda: DataLoader(data, batch_size=24, sampler=SubsetRandomSampler(range(N))),
        "in order": lambda: DataLoader(data, batch_size=24),
        "random sampler": lambda: DataLoader(
            data, batch_size=24, sampler=RandomSampler(data, generator=own_generator())
        ),
    }


@pytest.mark.parametrize("kind", ["shuffle", "generator", "sampler", "in order"])
@pytest.mark.parametrize("other", ["shuffle", "generator", "in order", "random sampler"])
def test_samples_of_one_index_belong_together_however_each_loader_shuffles(kind, other):
    """The same data on both sides, so that a wrong pair would lower CKA from 1."""
    loader, reference_loader = kinds(clean())[kind](), kinds(clean())[other]()
    model = net()
    owners = [torch.default_generator, *(g for each in (loader, reference_loader) if (g := each.generator))]
    states = [owner.get_state() for owner in owners]
    result = compared(model, loader, reference_loader)
    assert torch.allclose(result.matrix.diagonal(), torch.ones(2, dtype=torch.float64), atol=1e-9)
    assert not result.self_comparison
    assert all(torch.equal(owner.get_state(), state) for owner, state in zip(owners, states, strict=True))


def test_the_order_is_that_of_the_first_loader():
    """So its values with one loader and with two are of the same batches."""
    loader = DataLoader(clean(), batch_size=32, shuffle=True)
    other = net()
    nn.init.normal_(other[0].weight)
    one, two = (compared(net(), loader, each, other) for each in (None, DataLoader(clean(), batch_size=32)))
    assert torch.allclose(one.matrix, two.matrix, atol=1e-12)
    assert (one.reference_name, two.reference_name) == ("Sequential (reference)", "Sequential (reference_dataloader)")
    assert compared(net(), loader, None).self_comparison
    model = net()
    assert compared(model, loader, loader).self_comparison


def test_two_models_on_two_modalities():
    text = TensorDataset(torch.randint(0, 20, (N, 5), generator=torch.Generator().manual_seed(3)))
    reader = nn.Sequential(nn.Embedding(20, 4), nn.Flatten(), nn.Linear(20, 6))
    result = compared(
        net(),
        DataLoader(clean(), batch_size=32, shuffle=True),
        DataLoader(text, batch_size=32),
        reader,
        reference_layers="2",
        forward_fn=lambda module, batch: module(batch[0]),
        reference_name="reader",
    )
    assert (result.reference_layers, result.reference_name) == (("2",), "reader")
    with pytest.raises(ValueError, match=r"^reference: Sequential .* with forward_fn=, .* pass reference_forward_fn="):
        compared(
            net(),
            DataLoader(clean(), batch_size=32),
            DataLoader(text, batch_size=32),
            reader,
            reference_layers="2",
            forward_fn=lambda module, batch: module(batch[0].float()),
        )


class Stream(IterableDataset):
    def __init__(self, data):
        self.data = data

    def __iter__(self):
        return (self.data[i] for i in range(len(self.data)))


class Graphs(DataLoader):
    """A loader whose batches its sampler need not describe."""


@pytest.mark.parametrize(
    "make",
    [
        lambda data: list(data.tensors[0].split(32)),
        lambda data: DataLoader(Stream(data), batch_size=32),
        lambda data: DataLoader(data, batch_size=32),
        lambda data: Graphs(data, batch_size=32),
    ],
)
@pytest.mark.parametrize(
    "make_other", [lambda data: list(data.tensors[0].split(32)), lambda data: Graphs(data, batch_size=32)]
)
def test_loaders_that_do_not_shuffle_are_matched_by_position(make, make_other):
    model = net()
    expected = compared(model, DataLoader(clean(), batch_size=32), DataLoader(corrupted(), batch_size=32)).matrix
    assert torch.allclose(compared(model, make(clean()), make_other(corrupted())).matrix, expected, atol=1e-12)


def test_gram_batch_size_joins_batches_of_different_sizes():
    model = net()
    loaders = DataLoader(clean(), batch_size=8), DataLoader(corrupted(), batch_size=16)
    joined = compared(model, *loaders, gram_batch_size=32)
    expected = compared(model, DataLoader(clean(), batch_size=32), DataLoader(corrupted(), batch_size=32))
    assert torch.allclose(joined.matrix, expected.matrix, atol=1e-9)


class Never(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x):
        raise AssertionError("The model must not run.")


def batches(*sizes):
    return [torch.randn(size, 8) for size in sizes]


@pytest.mark.parametrize(
    ("loader", "reference_loader", "message"),
    [
        (
            DataLoader(clean(), batch_size=32),
            DataLoader(corrupted(64), batch_size=32),
            "dataloader has 96 samples, and reference_dataloader has 64",
        ),
        (
            DataLoader(clean(), batch_size=32),
            DataLoader(corrupted(), batch_size=16),
            "batches have 32 samples in dataloader and 16 in reference_dataloader. Use one batch size, or gram_batch",
        ),
        (
            DataLoader(clean(), batch_size=8, sampler=range(0, 96, 2)),
            DataLoader(corrupted(), batch_size=8, sampler=range(48)),
            "samples of other indices in their datasets, such as 1. .*torch.utils.data.Subset",
        ),
        (
            DataLoader(clean(), batch_size=36, shuffle=True, drop_last=True),
            DataLoader(corrupted(), batch_size=36, drop_last=True),
            "samples of other indices .* without drop_last=True",
        ),
        (
            DataLoader(clean(), batch_size=32, shuffle=True),
            batches(32, 32, 32),
            "^dataloader may shuffle, but only DataLoaders over two map-style datasets can be shuffled alike",
        ),
        (
            batches(32, 32, 32),
            Graphs(corrupted(), batch_size=32, shuffle=True),
            "^reference_dataloader may shuffle",
        ),
        (batches(32, 32), batches(32, 32, 32), "dataloader has 2 batches, and reference_dataloader has 3"),
    ],
)
def test_loaders_that_do_not_fit_are_refused_before_a_model_runs(loader, reference_loader, message):
    with pytest.raises(ValueError, match=message):
        compared(Never(), loader, reference_loader, layers=None)


class Unsized:
    """Batches whose number is not known before."""

    def __init__(self, *sizes):
        self.sizes = sizes

    def __iter__(self):
        return iter(batches(*self.sizes))


@pytest.mark.parametrize(
    ("loader", "reference_loader", "message"),
    [
        (
            Unsized(32, 32),
            Unsized(16, 32),
            "the first batch has 32 samples in dataloader and 16 in reference_dataloader",
        ),
        (Unsized(32, 32), Unsized(32, 16), "batch 1 has 32 samples in dataloader and 16 in reference_dataloader"),
        (Unsized(32, 32), Unsized(32), "batch 1 has 32 samples in dataloader and 0 in reference_dataloader"),
        (Unsized(32), Unsized(32, 32), "dataloader has 1 batches, and reference_dataloader has 2"),
    ],
)
def test_what_is_known_later_raises_then_and_the_models_are_restored(loader, reference_loader, message):
    model = net()
    with pytest.raises(ValueError, match=message):
        compared(model, loader, reference_loader)
    assert model.training
    assert not model[0]._forward_hooks


def test_bad_samples_of_each_dataset_are_named():
    """Also if both have some, since the inputs are not the same."""
    one, other = clean(), corrupted()
    one.tensors[0][3], other.tensors[0][5] = torch.nan, torch.nan
    with pytest.warns(UserWarning):
        result = compared(net(), DataLoader(one, batch_size=32), DataLoader(other, batch_size=32))
    bad = {
        (flag.of_reference, flag.samples)
        for flag in result.flags
        if flag.reason == "bad_sample" and flag.layer == INPUT
    }
    assert bad == {(False, (3,)), (True, (5,))}


def test_samples_can_be_left_out_and_grouped():
    loaders = DataLoader(clean(), batch_size=48), DataLoader(corrupted(), batch_size=48)
    labels = [i % 2 for i in range(N)]
    result = compared(net(), *loaders, exclude=[0, 1], groups=labels)
    assert result.num_samples == N - 2


@pytest.mark.parametrize("measure", ["mutual_knn", "rsa"])
@pytest.mark.filterwarnings("ignore:(mutual kNN|RSA)")
def test_other_measures_and_kernels(measure):
    loaders = DataLoader(clean(), batch_size=48, shuffle=True), DataLoader(corrupted(), batch_size=48)
    results = compared(net(), *loaders, measures=["cka", measure], kernel="rbf")
    assert all(result.matrix.isfinite().all() for result in results.values())


def test_a_difference_of_two_corruptions_is_paired():
    """With the clean data as the reference, both results have its batches."""
    model, reference = net(), DataLoader(clean(), batch_size=16, shuffle=True)
    weak, strong = (
        compared(model, DataLoader(corrupted(noise=noise), batch_size=16, shuffle=True), reference)
        for noise in (0.2, 1.0)
    )
    assert strong.difference(weak).matrix.diagonal().max() < 0


def test_banks_of_two_loaders():
    """`like=` shows the same indices, and `strict=False` says that the samples belong together."""
    model = net()
    a = GramBank.from_model(model, DataLoader(clean(), batch_size=32, shuffle=True), LAYERS, progress_bar=False)
    with pytest.warns(UserWarning, match=r"the inputs in 3 of 3 batches. Check .* with compare_banks\(strict=False\)"):
        b = GramBank.from_model(model, DataLoader(corrupted(), batch_size=32), LAYERS, like=a, progress_bar=False)
    with pytest.raises(
        ValueError,
        match=r"they differ in the inputs in 3 of 3 batches. strict=False .*belongs to sample i of the other",
    ):
        compare_banks(a, b)
    with pytest.warns(UserWarning, match="96 samples are compared"):
        result = compare_banks(a, b, strict=False)
    expected = compared(model, DataLoader(clean(), batch_size=32, shuffle=True), DataLoader(corrupted(), batch_size=32))
    assert torch.allclose(result.matrix, expected.matrix, atol=1e-12)


class Tokens(Dataset):
    def __init__(self, lengths):
        self.lengths = lengths

    def __len__(self):
        return len(self.lengths)

    def __getitem__(self, i):
        x = torch.randn(6, 8, generator=torch.Generator().manual_seed(i))
        return {"input": x, "attention_mask": (torch.arange(6) < self.lengths[i]).long()}


class Reads(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 5)

    def forward(self, input):  # noqa: A002
        return self.layer(input)


def test_tokens_need_the_same_masks():
    model, loader = Reads(), DataLoader(Tokens([6] * 32), batch_size=16)
    same = compared(model, loader, DataLoader(Tokens([6] * 32), batch_size=16), layers="layer", feature_fn="tokens:2")
    assert same.matrix.item() == pytest.approx(1)
    with pytest.raises(ValueError, match="'tokens' takes other tokens from batch 0 of reference_dataloader, since its"):
        compared(model, loader, DataLoader(Tokens([2] * 32), batch_size=16), layers="layer", feature_fn="tokens:2")
    shorter = DataLoader(Tokens([2] * 32), batch_size=16)
    assert compared(model, loader, shorter, layers="layer", feature_fn="mean").num_samples == 32


def test_forward_passes_of_the_second_loader_have_its_own_size():
    probe = probe_set_of_loader(first := DataLoader(clean(), batch_size=8), gram_batch_size=32)
    other = paired_probe_set(probe, first, DataLoader(corrupted(), batch_size=16), gram_batch_size=32)
    assert [batch.num_samples for batch in other.batches()] == [16] * 6
    assert paired_probe_set(probe, first, None, gram_batch_size=32) is probe
