"""Which samples a dry run shows to a model."""

import logging

import pytest
import torch
from conftest import Net
from example_models import plan_of
from notes import Notes
from torch import nn


class SizesSeen(nn.Module):
    """Keeps the number of samples of each forward pass outside the module, where nothing restores it."""

    def __init__(self, change=lambda x: x, sizes=None):
        super().__init__()
        self.layer, self.out = nn.Linear(3, 4), nn.Identity()
        self.change = change
        sizes = [] if sizes is None else sizes
        self.note = sizes.append

    def forward(self, x):
        self.note(len(x))
        return self.out(self.change(self.layer(x)))


@pytest.mark.parametrize(("n", "expected"), [(4, [4, 3, 3]), (12, [12, 11, 6]), (13, [12, 6]), (64, [12, 6])])
def test_few_samples_of_a_large_batch_are_shown(n, expected):
    sizes = []
    plan = plan_of(SizesSeen(sizes=sizes), [torch.randn(n, 3)])
    assert sizes == expected
    assert plan.num_samples == n
    assert plan.batch_dims == {"layer": 0}


def test_a_model_with_a_fixed_batch_size_is_shown_the_whole_batch(caplog):
    sizes = []
    model = SizesSeen(lambda x: x.view(64, 4), sizes)
    with (
        pytest.warns(UserWarning, match="the 64 samples of a batch are assumed to lie along the first dimension"),
        caplog.at_level(logging.INFO),
    ):
        assert plan_of(model, [torch.randn(64, 3)], ["layer", "out"]).names == ("layer", "out")
    assert sizes[:2] == [12, 64]
    assert "The dry run of CKA shows SizesSeen all samples of the first batch, because it fails on 12" in caplog.text


@pytest.mark.parametrize("change", [lambda x: x[x[:, 0].argsort()], lambda x: x.flip(0)])
def test_permuted_rows_of_a_large_batch_are_found(change):
    with pytest.raises(ValueError, match=r"'out' \(Tensor\(64, 4\) float32\) has its rows in another order"):
        plan_of(SizesSeen(change), [torch.randn(64, 3)], "out")


def test_an_output_that_does_not_depend_on_the_number_of_samples_is_shown_the_whole_batch(caplog):
    sizes = []
    model = SizesSeen(lambda x: x[:8], sizes)
    with caplog.at_level(logging.INFO), pytest.raises(ValueError, match=r"on a batch of 64 samples: .*Tensor\(8, 4\)"):
        plan_of(model, [torch.randn(64, 3)], "out")
    assert sizes == [12, 6, 64, 63, 8]
    assert "because 12 of them do not show where each layer's output has the samples" in caplog.text


def test_a_layer_that_does_not_run_costs_no_whole_batch():
    sizes = []
    model = SizesSeen(sizes=sizes)
    model.unused = nn.Linear(3, 3)
    assert plan_of(model, [torch.randn(64, 3)]).names == ("layer",)
    assert sizes == [12, 6]


def test_padding_of_a_sample_that_is_not_shown_is_warned_of():
    mask = torch.ones(20, 5, dtype=torch.bool)
    mask[19, 3:] = False

    class Transposed(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 4)

        def forward(self, batch):
            return self.layer(batch["x"].transpose(1, 2))

    batch = {"x": torch.randn(20, 5, 2, 3), "attention_mask": mask}
    with pytest.warns(UserWarning, match=r"whose output is not \(n, T, d\) with the \(n, T\) = \(20, 5\) .*: layer"):
        plan_of(Transposed(), [batch], feature_fn="mean", forward_fn=lambda model, batch: model(batch))


def test_the_model_sees_the_first_samples():
    inputs = Notes()
    model = Net()
    model.register_forward_pre_hook(lambda module, args: inputs.put(args[0]))
    batch = torch.randn(40, 8)
    plan_of(model, [batch])
    assert all(map(torch.equal, inputs.all(), (batch[:12], batch[1:7])))
    assert inputs.qsize() == 2


class Recurrent(nn.Module):
    """Has a layer of samples (n, d), and a layer with the sequence first (T, n, d)."""

    def __init__(self):
        super().__init__()
        self.pooled, self.steps = nn.Linear(3, 4), nn.GRU(3, 4)

    def forward(self, x):
        self.steps(x.transpose(0, 1))
        return self.pooled(x.mean(1))


def test_batches_of_one_sample_have_it_first():
    message = "the only sample of a batch is assumed to lie along the first dimension of each output"
    with pytest.warns(UserWarning, match=f"{message}: batches of two or more samples would show where it lies"):
        plan = plan_of(Recurrent(), list(torch.randn(8, 5, 3).split(1)), "pooled", gram_batch_size=4)
    assert plan.batch_dims == {"pooled": 0}
    with (
        pytest.warns(UserWarning, match=message),
        pytest.raises(
            ValueError,
            match=r"\(5, 1, 4\).* has no dimension with one entry per sample: of a batch of one sample, only the first "
            "dimension can be that. Pass batches of two or more samples",
        ),
    ):
        plan_of(Recurrent(), list(torch.randn(8, 5, 3).split(1)), "steps", gram_batch_size=4)
    pairs = list(torch.randn(8, 5, 3).split(2))
    assert plan_of(Recurrent(), pairs, ["pooled", "steps"], gram_batch_size=4).batch_dims == {"pooled": 0, "steps": 1}
