"""`log_ranks`: effective ranks as scalars, the largest ones so far, the flag, and what is written at the end."""

from pathlib import Path

import pytest
import torch
from conftest import trainer
from lightning.pytorch import Callback, LightningModule, seed_everything
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning_cka import CKAMonitor, CKAResult, Thresholds, rank_history
from lightning_cka.monitor.logged_ranks import rank_names, rank_scalars
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from training import same_results, same_weights

pytestmark = [
    pytest.mark.usefixtures("_blank_figures"),
    pytest.mark.filterwarnings("ignore:CKA( with '.*')?. layers (that|whose)"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
]

PREFIX = "cka_rank/"


class Collapses(LightningModule):
    """The second layer has 8 directions until epoch 2 begins, and 2 from then on."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(16, 16)
        self.second = nn.Linear(16, 8)

    def forward(self, x):
        return self.second(self.first(x))

    def training_step(self, batch, batch_idx):
        return self(batch[0]).square().mean()

    def validation_step(self, batch, batch_idx):
        pass

    def on_train_epoch_start(self):
        if self.current_epoch == 2:
            with torch.no_grad():
                self.second.weight[2:] = 0

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


class Values(Callback):
    """Keeps the logged effective ranks of each epoch."""

    def __init__(self):
        self.epochs = []

    def on_train_epoch_end(self, trainer, pl_module):
        found = {key: value.item() for key, value in trainer.callback_metrics.items() if key.startswith(PREFIX)}
        self.epochs.append(found)


def monitor(reference="initial", **options):
    return CKAMonitor(reference, ["first", "second"], dirpath="cka", gram_batch_size=32, **options)


def fit(*callbacks, epochs=4, network=None, ckpt_path=None, **options):
    seed_everything(0, verbose=False)
    network = network or Collapses()
    x = torch.randn(256, 16, generator=torch.Generator().manual_seed(0))
    loader = DataLoader(TensorDataset(x), batch_size=32)
    fitted = trainer(*callbacks, max_epochs=epochs, limit_train_batches=1, **options)
    fitted.fit(network, loader, loader, ckpt_path=ckpt_path)
    return fitted


def flags(used, key="initial"):
    return [[flag.layer for flag in each.flags if flag.reason == "rank_loss"] for each in used.results[key]]


def test_scalars_are_those_of_the_banks_and_the_loss_is_flagged_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    used, seen = monitor(log_ranks=True, save_banks=True), Values()
    with pytest.warns(
        UserWarning, match="lost more than 50 % of their largest effective rank so far: second"
    ) as caught:
        fit(used, seen)
    (message,) = {str(each.message) for each in caught if "effective rank" in str(each.message)}
    history = rank_history("cka")
    row = history.rank[1].tolist()[1:]  # The first bank is that of the initial weights.
    assert f"second ({row[2]:.1f} in epoch 2, but {row[0]:.1f} in epoch 0)" in message
    assert row[0] > 6
    assert row[2] < 2.1
    assert flags(used) == [[], [], ["second"], ["second"]]
    assert [each[f"{PREFIX}second"] for each in seen.epochs] == pytest.approx(row)
    assert [each[f"{PREFIX}first"] for each in seen.epochs] == pytest.approx(history.rank[0, 1:].tolist())
    assert [each[f"{PREFIX}smallest_share"] for each in seen.epochs] == pytest.approx(
        [1, 1, row[2] / row[0], row[3] / row[0]]
    )
    live = rank_history(used.results["initial"])
    assert torch.allclose(live.rank, history.rank[:, 1:], rtol=1e-12)
    assert torch.allclose(live.standard_error, history.standard_error[:, 1:], rtol=1e-9)
    assert Path("cka/effective-rank.png").exists()
    assert CKAResult.load("cka/initial/epoch=002-step=000002.json").ranks == used.results["initial"][2].ranks


def test_without_log_ranks_nothing_of_it_is_done(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    used, seen = monitor(), Values()
    fit(used, seen)
    assert seen.epochs == [{}] * 4
    assert flags(used) == [[]] * 4
    assert not Path("cka/effective-rank.png").exists()
    assert all(result.ranks is None for result in used.results["initial"])


def test_the_largest_rank_survives_a_resume(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = monitor(log_ranks=True)
    reference = fit(whole)
    before = monitor(log_ranks=True)
    fit(before, ModelCheckpoint("checkpoints", save_last=True), epochs=2, enable_checkpointing=True)
    used, seen = monitor(log_ranks=True), Values()
    with pytest.warns(UserWarning, match="in epoch 2, but .* in epoch 0"):
        resumed = fit(used, seen, ckpt_path="checkpoints/last.ckpt")
    assert flags(used) == [[], [], ["second"], ["second"]]
    assert [result.ranks for result in used.results["initial"]] == [r.ranks for r in whole.results["initial"]]
    assert same_results(used, whole)
    assert same_weights(resumed.lightning_module, reference.lightning_module)


def test_training_is_the_same_and_each_reference_and_measure_has_the_same_ranks():
    used = monitor(["initial", "self"], log_ranks=True, kernel=["linear", "rbf"])
    seen = Values()
    with_ranks, without = fit(used, seen), fit()
    assert same_weights(with_ranks.lightning_module, without.lightning_module)
    ranks = [[result.ranks for result in history] for history in used.results.values()]
    assert len(ranks) == 4
    assert all(each == ranks[0] for each in ranks)
    assert all(flags(used, key) == [[], [], ["second"], ["second"]] for key in used.results)
    assert set(seen.epochs[0]) == {PREFIX + name for name in ("first", "second", "smallest_share")}


def test_early_stopping_stops_at_the_collapse():
    used = monitor(log_ranks=True)
    stopping = EarlyStopping(f"{PREFIX}smallest_share", mode="max", patience=100, divergence_threshold=0.5)
    assert fit(used, stopping).current_epoch == 3
    with pytest.raises(ValueError, match="'cka_rank/second', which CKAMonitor logs with log_ranks=True only"):
        fit(monitor(), EarlyStopping(f"{PREFIX}second"))
    with pytest.raises(ValueError, match=r"'cka_rank/secnod', which CKAMonitor does not log; it logs cka_rank/second"):
        fit(monitor(log_ranks=True), EarlyStopping(f"{PREFIX}secnod"))
    with pytest.raises(ValueError, match="CKAMonitor logs it from the end of epoch 1 on"):
        fit(monitor(1, log_ranks=True), stopping)


def test_thresholds_and_exclude_count():
    used = monitor(log_ranks=True, thresholds=Thresholds(rank_loss=None))
    fit(used, epochs=3)
    assert flags(used) == [[], [], []]
    assert used.results["initial"][-1].ranks.loss("second").value > 0.5
    used = monitor(log_ranks=True, exclude=range(16), groups=[place % 2 for place in range(256)])
    fit(used, epochs=1)
    ranks = used.results["initial"][0].ranks
    assert ranks.layers["second"].num_batches >= 4
    assert 16 < ranks.num_samples <= 32  # Groups do not split the batches.


def test_a_failed_comparison_has_nan_and_the_largest_rank_stays():
    class FailsOnce(Collapses):
        def forward(self, x):
            if self.current_epoch == 1 and not self.training and not torch.is_grad_enabled():
                raise RuntimeError("not now")
            return super().forward(x)

        def validation_step(self, batch, batch_idx):
            pass

    used, seen = monitor(log_ranks=True, on_error="warn"), Values()
    with pytest.warns(UserWarning, match="not now"):
        fit(used, seen, network=FailsOnce())
    assert [torch.tensor(each[f"{PREFIX}smallest_share"]).isnan().item() for each in seen.epochs] == [0, 1, 0, 0]
    assert used.results["initial"][2].ranks.peaks["second"].epoch == 0
    assert flags(used) == [[], [], ["second"], ["second"]]


def test_layers_that_are_called_like_other_values_have_other_keys():
    result = CKAResult(torch.ones(1, 1), ("smallest_share",), ("a",))
    assert rank_names(["smallest_share", "a"]) == {"smallest_share": "smallest_share-2", "a": "a"}
    assert set(rank_scalars(result)) == {"smallest_share-2", "smallest_share"}
