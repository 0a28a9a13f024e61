"""Tokens as samples: `feature_fn="tokens"`."""

import naive
import numpy as np
import pytest
import torch
from conftest import trainer
from example_models import CPU
from lightning_cka import CKAMonitor, GramBank, Thresholds, compare_banks, compare_models
from lightning_cka.probe.dry_run import dry_run
from lightning_cka.probe.forward import ForwardSettings
from lightning_cka.probe.show_probe_set import show_probe_set
from lightning_cka.probe.stream_probe import StreamProbe
from lightning_cka.probe.tokens import MAX_TOKENS, choose_tokens, sequences_of, tokens_per_sequence
from observed import Wrapped
from torch import nn
from torch.utils.data import DataLoader

# Small probe sets and networks with few outputs are flagged, as they should be; test_find_flags.py tests flags.
pytestmark = pytest.mark.filterwarnings("ignore:CKA( with '.*)?. layers (that|whose)")

KIND = "loader position x 1000000 + token"


class Sequences(nn.Module):
    """Two layers of tokens (n, T, d) and one of vectors (n, d)."""

    def __init__(self, seed=0):
        super().__init__()
        self.first, self.second, self.pooled = nn.Linear(3, 6), nn.Linear(6, 4), nn.Linear(4, 4)
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.parameters():
            parameter.data.normal_(generator=generator)

    def forward(self, x, attention_mask=None):
        tokens = self.second(self.first(x).tanh())
        return self.pooled(tokens.mean(1))


def sequences(n, alike=0.5, tokens=10, seed=0, shortest=3):
    """Return inputs whose tokens have the correlation `alike` in a sequence, and the mask."""
    generator = torch.Generator().manual_seed(seed)
    common, own = (torch.randn(n, each, 3, generator=generator) for each in (1, tokens))
    lengths = torch.randint(shortest, tokens + 1, (n,), generator=generator)
    mask = torch.arange(tokens) < lengths[:, None]
    return {"x": alike**0.5 * common + (1 - alike) ** 0.5 * own, "attention_mask": mask.long()}


def batches(inputs, size):
    return [
        dict(zip(inputs, part, strict=True)) for part in zip(*(x.split(size) for x in inputs.values()), strict=True)
    ]


def bank_of(model, inputs, size, feature_fn="tokens:3", gram_batch_size=8, **kwargs):
    return GramBank.from_model(
        model,
        batches(inputs, size),
        feature_fn=feature_fn,
        gram_batch_size=gram_batch_size,
        progress_bar=False,
        **kwargs,
    )


def test_tokens_are_chosen_at_random_and_without_padding():
    mask = torch.tensor([[0, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]]).bool()
    places = choose_tokens(mask, (7, 8, 9), 4, seed=0).places
    assert sorted(places[0].tolist()) == [1, 2, 3, 4]
    assert places[1, :2].sort().values.tolist() == places[1, 2:].sort().values.tolist() == [0, 1]  # Each twice.
    assert places[2].tolist() == [-1] * 4
    # They depend on the seed and on the sequence, and not on the batch.
    alone = choose_tokens(mask[:1], (7,), 4, seed=0).places
    assert torch.equal(alone, places[:1])
    many = torch.stack(
        [choose_tokens(mask[:1], (sample,), 1, seed).places[0] for sample in range(40) for seed in (0, 1)]
    )
    assert np.bincount(many.flatten()).tolist()[0] == 0
    assert min(np.bincount(many.flatten())[1:]) > 8
    with pytest.raises(ValueError, match="up to 1000000 tokens, but these have 1000001"):
        choose_tokens(torch.ones(1, 10**6 + 1).bool(), (0,), 1, 0)


def test_the_number_of_tokens():
    assert [tokens_per_sequence(each) for each in ("tokens", "tokens:1", "tokens:16")] == [8, 1, 16]
    assert [tokens_per_sequence(each) for each in (None, "mean", len)] == [None] * 3
    for wrong in ("tokens:0", "tokens:", "tokens:-1", "tokens:two"):
        with pytest.raises(ValueError, match=f"unknown feature_fn '{wrong}'; expected one of .*'tokens', 'tokens:N'"):
            CKAMonitor(feature_fn=wrong)


@pytest.mark.parametrize("size", [1, 4, 8])
def test_gram_matrices_have_one_token_of_each_sequence(size):
    model, inputs = Sequences().double(), sequences(26, shortest=2)
    inputs["x"] = inputs["x"].double()
    layers = ["first", "second", "pooled"]
    bank = bank_of(model, inputs, size, layers=layers) if size > 1 else None
    if bank is None:
        with pytest.warns(UserWarning, match="the only sample of a batch is assumed to lie along the first dimension"):
            bank = bank_of(model, inputs, size, layers=layers)
    assert bank.sample_kind == KIND
    assert [batch.grams.num_samples for batch in bank] == [
        8
    ] * 9  # Three blocks of three draws; two sequences are left.
    first = model.first(inputs["x"])
    second = model.second(first.tanh())
    outputs = []
    for batch in bank:
        rows, places = zip(*(divmod(sample, MAX_TOKENS) for sample in batch.samples), strict=True)
        assert list(rows) == list(range(batch.index // 3 * 8, batch.index // 3 * 8 + 8))
        assert inputs["attention_mask"][rows, places].all()
        pooled = model.pooled(second.mean(1))[list(rows)]
        outputs.append([x.detach().numpy() for x in (first[rows, places], second[rows, places], pooled)])
    result = compare_banks(bank, bank)
    np.testing.assert_allclose(result.matrix, naive.minibatch_cka(outputs, outputs), rtol=0, atol=1e-9)
    assert (result.num_samples, result.num_batches, result.effective_batches) == (72, 9, pytest.approx(3))
    expected = bank_of(model, inputs, 8, layers=layers)
    assert bank.probe == expected.probe  # Tokens do not depend on the size of the forward passes.


def test_all_tokens_count_if_there_is_no_mask():
    inputs = {"x": sequences(16)["x"]}
    bank = bank_of(Sequences(), inputs, 4, "tokens:10")
    found = {sample for batch in bank for sample in batch.samples}
    assert found == {sequence * MAX_TOKENS + place for sequence in range(16) for place in range(10)}


def test_errors_are_clustered_by_sequence(tmp_path):
    """If all tokens of a sequence are equal, more of them tell nothing new: value and error stay the same."""
    model, other, inputs = Sequences(), Sequences(1), sequences(64, alike=1.0)
    one, four = (
        compare_models(
            *(model, other, batches(inputs, 4), ["first", "second"]),
            feature_fn=f"tokens:{number}", gram_batch_size=8, progress_bar=False,
        )
        for number in (1, 4)
    )  # fmt: skip
    assert (one.num_batches, four.num_batches) == (8, 32)
    for name in ("matrix", "standard_error"):
        torch.testing.assert_close(getattr(four, name), getattr(one, name), rtol=0, atol=1e-6)
    assert four.effective_batches == one.effective_batches == pytest.approx(8)
    assert four.mean_standard_error == pytest.approx(one.mean_standard_error, abs=1e-6)
    for bank_model, name in ((model, "model"), (other, "other")):  # Also after a file.
        bank_of(bank_model, inputs, 4, "tokens:4", layers=["first", "second"]).save(tmp_path / name)
    saved = compare_banks(tmp_path / "model", tmp_path / "other")
    torch.testing.assert_close(saved.standard_error, four.standard_error, rtol=0, atol=1e-6)


class Groups(nn.Module):
    """The same network on each of several groups of features. A comparison of many groups takes little more time."""

    def __init__(self, count, seed):
        super().__init__()
        self.groups = nn.ModuleList(Sequences(seed) for _ in range(count))

    def forward(self, x, attention_mask):
        return [group(part) for group, part in zip(self.groups, x.chunk(len(self.groups), -1), strict=True)]


def test_intervals_cover_with_correlated_tokens():
    """In 40 simulated probe sets, 10 at a time as groups of features, which have the same lengths."""
    layers, count = ["first", "second"], 10
    many = batches(sequences(20000, alike=0.7, seed=10**6), 500)
    truth = compare_models(Sequences(), Sequences(1), many, layers, feature_fn="tokens:1", progress_bar=False).matrix
    model, other = Groups(count, 0), Groups(count, 1)

    def of_each_group(matrix):
        return matrix.view(2, count, 2, count).diagonal(dim1=1, dim2=3).movedim(2, 0)

    covered, errors = [], {1: [], 6: []}
    for start in range(0, 40, count):
        simulated = [sequences(256, alike=0.7, seed=start + place) for place in range(count)]
        inputs = simulated[0] | {"x": torch.cat([each["x"] for each in simulated], -1)}
        for number, found in errors.items():
            result = compare_models(
                *(model, other, batches(inputs, 32), ["groups.*.first", "groups.*.second"]),
                feature_fn=f"tokens:{number}",
                seed=start,
                progress_bar=False,
            )
            found.append(of_each_group(result.matrix) - truth)
        lower, upper = map(of_each_group, result.confidence_interval())
        covered.append(((lower <= truth) & (truth <= upper)).float().mean())
    assert 0.88 < torch.stack(covered).mean() < 0.995
    one, six = (torch.cat(found) for found in errors.values())
    assert six.square().mean() < 0.8 * one.square().mean()  # More tokens of the same sequences do help.
    assert abs(six.mean(0)).max() < 0.02  # And there is no bias, although tokens of a sequence are alike.


def test_tokens_that_are_alike_are_no_sign_of_a_loader_that_does_not_shuffle():
    inputs = sequences(256, alike=0.95)
    bank_of(Sequences(), inputs, 8, "tokens:8")
    order = inputs["x"][:, 0, 0].argsort()
    with pytest.warns(UserWarning, match="the batches of the dataloader are not exchangeable"):
        bank_of(Sequences(), {name: x[order] for name, x in inputs.items()}, 8, "tokens:8")


def test_processes_get_all_draws_of_a_block():
    probe = StreamProbe(batches(sequences(40), 4), 0, gram_batch_size=8)
    settings = ForwardSettings(CPU, feature_fn="tokens:2")
    plan = dry_run(Sequences(), probe, None, settings)
    parts = [[], []]
    for rank, part in enumerate(parts):
        show_probe_set(Sequences(), probe, plan, settings, part.append, rank=rank, world_size=2)
    assert [[batch.index for batch in part] for part in parts] == [[0, 1, 4, 5, 8, 9], [2, 3, 6, 7]]


def test_flags_and_bad_samples_name_the_token():
    inputs = sequences(256)
    inputs["x"][37] *= 500
    with pytest.warns(UserWarning, match=r"loader position x 1000000 \+ token 37000\d\d\d"):
        compare_models(
            *(Sequences(), Sequences(1), batches(inputs, 8), "first"),
            feature_fn="tokens:2", gram_batch_size=64, progress_bar=False,
        )  # fmt: skip
    inputs["x"][37] = torch.nan
    bank = bank_of(Sequences(), inputs, 8, "tokens:2")
    assert [sequences_of(batch.bad_inputs, KIND) for batch in bank if batch.bad_inputs] == [(37,), (37,)]


def test_a_sequence_without_tokens_is_nan_with_a_warning():
    inputs = sequences(16)
    inputs["attention_mask"][5] = 0
    with pytest.warns(UserWarning, match=r"no token of samples \(loader position\) 5: their features are nan"):
        bank = bank_of(Sequences(), inputs, 8, layers=["first"])
    assert [bool(batch.grams.offsets.isnan().any()) for batch in bank] == [True] * 3 + [False] * 3


def test_models_without_tokens_are_refused():
    for inputs, message in (
        ({"x": torch.randn(16, 3)}, "needs layers whose outputs are \\(n, T, d\\), but there is none: choose"),
        ({"x": torch.randn(16, 3), "attention_mask": torch.ones(16, 5)}, "with the T = 5 of attention_mask"),
    ):
        with pytest.raises(ValueError, match=message):
            GramBank.from_model(
                Vectors(), batches(inputs, 4), feature_fn="tokens", gram_batch_size=8, progress_bar=False
            )


class Vectors(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x, attention_mask=None):
        self.layer(x)


class Trained(Wrapped):
    def __init__(self):
        super().__init__(Sequences())

    def forward(self, x, attention_mask):
        return self.net(x, attention_mask)


@pytest.mark.usefixtures("_without_figures")
@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_the_monitor_takes_tokens(tmp_path, kernel):
    inputs = sequences(128)
    data = [{name: x[row] for name, x in inputs.items()} for row in range(128)]
    loader = DataLoader(data, batch_size=2)
    monitor = CKAMonitor(
        ["initial", "self"], feature_fn="tokens:4", kernel=kernel, dirpath=tmp_path, layers=["net.first", "net.second"]
    )
    trainer(monitor, max_epochs=1).fit(Trained(), loader, loader)
    for name in ("initial", "self"):
        (result,) = monitor.results[name]
        assert (result.num_samples, result.num_batches) == (512, 32)
        assert result.effective_batches == pytest.approx(8)
        assert result.diagnostics.sample_kind == "dataset index x 1000000 + token"
        assert result.matrix.isfinite().all()


def test_exclude_and_groups_have_the_numbers_of_sequences():
    inputs, labels = sequences(48), [place % 2 for place in range(48)]
    one, other = (bank_of(Sequences(seed), inputs, 8, gram_batch_size=16) for seed in (0, 1))
    whole = [sequence for batch in one for sequence in {sample // MAX_TOKENS for sample in batch.samples}]
    assert 3 in whole
    result = compare_banks(one, other, exclude=[3], groups=labels)
    expected = [[], []]
    for bank, outputs in zip((one, other), expected, strict=True):
        model = Sequences(0 if bank is one else 1).double()
        first = model.first(inputs["x"].double())
        layers = {"first": first, "second": model.second(first.tanh())}
        layers["pooled"] = model.pooled(layers["second"].mean(1))[:, None].expand(-1, 10, -1)
        for batch in bank:
            pairs = [divmod(sample, MAX_TOKENS) for sample in batch.samples]
            for label in (0, 1):
                rows, places = zip(*(pair for pair in pairs if pair[0] != 3 and labels[pair[0]] == label), strict=True)
                outputs.append([layers[name][rows, places].detach().numpy() for name in bank.layers])
    np.testing.assert_allclose(result.matrix, naive.minibatch_cka(*expected), rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="exclude: loader position 77 is not in the probe set"):
        compare_banks(one, other, exclude=[77])


def test_copies_are_sequences_and_not_tokens_of_one_sequence():
    inputs = sequences(64)
    thresholds = Thresholds(copies=0.01)

    def copies():
        result = compare_banks(*(bank_of(Sequences(seed), inputs, 8) for seed in (0, 1)), thresholds=thresholds)
        return [(flag.value, flag.samples) for flag in result.flags if flag.reason == "copies"]

    assert copies() == []
    for each in inputs.values():
        each[20:24] = each[19]
    with pytest.warns(UserWarning, match="probe samples have identical inputs"):
        ((value, samples),) = copies()
    assert value == 4
    assert [sample // MAX_TOKENS for sample in samples] == [19, 20, 21, 22, 23]
