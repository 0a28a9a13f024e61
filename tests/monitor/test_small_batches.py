"""Validation loaders with small batches: Gram matrices have more samples than a forward pass."""

import copy

import pytest
import torch
from conftest import Net, dataset, loaders, trainer
from lightning_cka import CKAMonitor, GramBank
from lightning_cka.probe import batching, first_samples, seeded_sampling
from observed import assert_same, matrix_on_batches
from torch.utils.data import DataLoader, IterableDataset

# Small models and probe sets are flagged, which these tests do not check; see tests/compare/test_flags.py.
pytestmark = [
    pytest.mark.usefixtures("_without_figures"),
    pytest.mark.filterwarnings("ignore:CKA( with '.*')?. layers (that|whose)"),
]


def fitted(model, loader_size, **kwargs):
    """Train a model with validation batches of this size, and return the monitor."""
    monitor = CKAMonitor("self", **kwargs)
    trainer(monitor, max_epochs=1).fit(model, loaders()[0], DataLoader(dataset(256), batch_size=loader_size))
    return monitor


@pytest.mark.parametrize(
    ("loader_size", "kwargs", "blocks"),
    [
        (1, {}, [32] * 8),
        (2, {}, [32] * 8),
        (3, {}, [30] * 8 + [16]),
        (16, {"batch_size": 5}, [30] * 8 + [16]),
        (2, {"gram_batch_size": 64}, [64] * 4),
        (64, {"gram_batch_size": 64, "batch_size": 48}, [64] * 4),
        (16, {"dataloader": DataLoader(dataset(256), batch_size=2), "gram_batch_size": 64}, [64] * 4),
        (16, {"dataloader": list(DataLoader(dataset(256), batch_size=6)), "gram_batch_size": 64}, [60] * 4 + [16]),
    ],
)
def test_cka_is_that_of_the_joined_features(loader_size, kwargs, blocks, tmp_path):
    model = Net()
    monitor = fitted(model, loader_size, dirpath=tmp_path, save_banks=True, **kwargs)
    (result,) = monitor.results["self"]
    bank = GramBank.load(tmp_path / "banks" / "initial.safetensors")
    assert [len(samples) for samples in bank.sample_batches] == blocks
    assert (result.num_samples, result.num_batches) == (sum(blocks), len(blocks))
    data = dataset(256)
    batches = [data[samples] for samples in bank.sample_batches]
    reads = dict.fromkeys(result.layers, lambda output, _batch: output.flatten(1))
    assert_same(result, matrix_on_batches(model, batches, reads, lambda module, batch: module(batch[0])))


def test_training_is_the_same_with_small_forward_passes():
    models = [Net()]
    models += [copy.deepcopy(models[0]) for _ in range(2)]
    seeded = torch.Generator().manual_seed(0)
    for model, monitors in zip(
        models, ([], [CKAMonitor()], [CKAMonitor(batch_size=3, gram_batch_size=9)]), strict=True
    ):
        torch.manual_seed(3)
        train = DataLoader(dataset(seed=1), batch_size=16, shuffle=True, generator=seeded.manual_seed(0))
        trainer(*monitors).fit(model, train, DataLoader(dataset(256), batch_size=2))
    first, *others = [model.state_dict() for model in models]
    for other in others:
        assert all(torch.equal(other[name], value) for name, value in first.items())


def test_forward_passes_have_the_loaders_batch_size():
    sizes = []

    class Watched(Net):
        def forward(self, x):
            if self.trainer.validating or self.trainer.sanity_checking:
                sizes.append(len(x))
            return super().forward(x)

        def validation_step(self, batch, batch_idx):
            pass

    fitted(Watched(), 4)
    assert sizes[3:] == [4] * 64
    assert set(sizes[:3]) == {3, 4}  # The dry run finds the batch dimension with one sample fewer.


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"gram_batch_size": 3}, ValueError, "gram_batch_size must be at least 4, but is 3"),
        ({"gram_batch_size": "64"}, TypeError, "gram_batch_size must be an integer, but is '64'"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1, but is 0"),
    ],
)
def test_bad_sizes(kwargs, error, message):
    with pytest.raises(error, match=message):
        CKAMonitor(**kwargs)


def test_a_batch_larger_than_a_block():
    batches = list(DataLoader(dataset(64), batch_size=16))
    with pytest.raises(
        ValueError,
        match="gram_batch_size is 8, but a batch of the dataloader has 16 samples and is not cut: pass smaller",
    ):
        fitted(Net(), 16, dataloader=batches, gram_batch_size=8)
    monitor = fitted(Net(), 16, dataloader=DataLoader(dataset(64), batch_size=16), gram_batch_size=8)
    assert monitor.results["self"][0].num_batches == 8
    with pytest.raises(
        ValueError, match=r"the first has 2: use larger batches, or pass gram_batch_size=64, which joins"
    ):
        fitted(Net(), 16, dataloader=list(DataLoader(dataset(64), batch_size=2)))


class Rows(IterableDataset):
    """A stream, whose first samples are the probe set."""

    def __iter__(self):
        return iter(dataset(256))


def old_sizes(num_samples, loader, batch_size=None, gram_batch_size=None):
    """Choose the sizes of runs before `gram_batch_size=`."""
    return batching.earlier_sizes(num_samples, loader, batch_size)


@pytest.mark.parametrize("data", [dataset(256), Rows()])
@pytest.mark.parametrize("reference", ["initial", "self"])
@pytest.mark.filterwarnings(
    "ignore:training goes on from step 8, but the bank of reference 'initial' has another probe"
)
@pytest.mark.filterwarnings("ignore:the probe set consists of the first samples", "ignore:.*does not have .*_len_")
def test_a_run_of_an_earlier_version_keeps_its_blocks(data, reference, tmp_path, monkeypatch):
    loader = DataLoader(data, batch_size=16)
    for new in (False, True):
        monkeypatch.chdir(tmp_path)
        with monkeypatch.context() as patch:
            if not new:
                for module in (seeded_sampling, first_samples):
                    patch.setattr(module, "choose_sizes", old_sizes)
            old = CKAMonitor(reference, dirpath=f"cka-{new}")
            used = trainer(old, max_epochs=1)
            used.fit(Net(), loaders()[0], loader)
            used.save_checkpoint(f"{new}.ckpt")
        resumed = CKAMonitor(reference, dirpath=f"cka-{new}")
        trainer(resumed, max_epochs=2).fit(Net(), loaders()[0], loader, ckpt_path=f"{new}.ckpt")
        history = resumed.results[reference]
        assert [(result.epoch, result.num_batches) for result in history] == [
            (0, 8 if new else 16),
            (1, 8 if new else 16),
        ]
    other = CKAMonitor(reference, dirpath="cka-False", gram_batch_size=64)
    with pytest.warns(UserWarning, match=f"history of '{reference}' restarts, .* other settings than now: probe"):
        trainer(other, max_epochs=2).fit(Net(), loaders()[0], loader, ckpt_path="False.ckpt")
    assert [(result.epoch, result.num_batches) for result in other.results[reference]] == [(1, 4)]
