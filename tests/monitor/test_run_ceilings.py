"""The seed ceiling of a monitor: what other seeds reach, in its figures, and the checks before the first step."""

import logging

import pytest
import torch
from conftest import Net, dataset, loaders, quietly, trainer
from lightning.pytorch import seed_everything
from lightning.pytorch.callbacks import EarlyStopping
from lightning_cka import CKAMonitor, GramBank, seed_ceiling
from lightning_cka.monitor import run_output
from torch.utils.data import DataLoader
from training import MARKS, run

pytestmark = [*MARKS, pytest.mark.filterwarnings("ignore:CKA with 'initial', kernel rbf")]


def fit(monitor, seed=0, model=None, validation=None, **kwargs):
    seed_everything(seed, verbose=False)
    model, (train, default) = model or Net(), loaders()
    fitted = trainer(monitor, max_epochs=1, **kwargs)
    fitted.fit(model, train, validation or default)
    return fitted


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    """The folders of three runs that differ in their seed. They are only read."""
    top = tmp_path_factory.mktemp("seeds")
    folders = [top / f"seed{seed}" for seed in range(3)]
    with quietly():
        for seed, folder in enumerate(folders):
            fit(CKAMonitor("initial", dirpath=folder, save_banks=True), 1 + seed)
    return folders


def test_figures_get_the_ceiling_of_their_measure(seeds, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        run_output, "log_figures", lambda _queue, key, _folder, _results, _step, ceiling: drawn.append((key, ceiling))
    )
    monitor = CKAMonitor("initial", kernel=["linear", "rbf"], dirpath=tmp_path / "cka", ceiling=seeds)
    fit(monitor)
    assert [key for key, _ in drawn] == ["cka/initial/linear/", "cka/initial/rbf/"]
    for key, ceiling in drawn:
        kernel = key.split("/")[2]
        assert monitor.ceilings[kernel] is ceiling
        expected = seed_ceiling(seeds, kernel=kernel, progress_bar=False)
        assert torch.equal(ceiling.values, expected.values)
        assert torch.equal(ceiling.seed_error, expected.seed_error)
        rows = ceiling.below(monitor.results[f"initial/{kernel}"][-1])
        assert [row["layer"] for row in rows] == list(monitor.results["initial/linear"][-1].layers)


def test_the_number_of_layers_below_the_ceiling_is_logged_and_can_be_monitored(seeds, tmp_path, caplog):
    references = ["initial", "self", "previous"]
    monitor = CKAMonitor(references, kernel=["linear", "rbf"], dirpath=tmp_path / "cka", ceiling=seeds)
    key = "cka/initial/rbf/layers_below_ceiling"
    with caplog.at_level(logging.INFO):
        found = fit(monitor, callbacks=[monitor, EarlyStopping(key)]).callback_metrics
    rows = monitor.ceilings["rbf"].below(monitor.results["initial/rbf"][-1])
    assert found[key].item() == sum(row["low"] > 0 for row in rows)
    assert {name.split("/")[1] for name in found if name.endswith("below_ceiling")} == {"initial"}
    assert "seed ceiling (linear CKA)" in caplog.text
    with pytest.raises(ValueError, match="'cka/initial/layers_below_ceiling', which CKAMonitor does not log"):
        run(CKAMonitor(dirpath=tmp_path / "a"), EarlyStopping("cka/initial/layers_below_ceiling"))
    two = CKAMonitor("initial", dirpath=tmp_path / "b", ceiling=seeds[:2])  # Without an interval.
    assert fit(two).callback_metrics["cka/initial/layers_below_ceiling"].isnan()


def test_a_drift_map_with_a_ceiling_is_drawn(seeds, tmp_path, monkeypatch):
    monkeypatch.undo()  # Figures are drawn.
    fit(CKAMonitor(Net(), dirpath=tmp_path / "cka", ceiling=[GramBank.load(next(s.glob("banks/e*"))) for s in seeds]))
    assert (tmp_path / "cka" / "reference" / "drift.png").exists()
    assert '"label":"seed ceiling (3 seeds, chance: 0)"' in (tmp_path / "cka" / "report.html").read_text()


def test_excluded_samples_are_not_part_of_the_ceiling(seeds, tmp_path):
    monitor = CKAMonitor("initial", exclude=[3, 9], dirpath=tmp_path / "cka", ceiling=seeds)
    fit(monitor)
    expected = seed_ceiling(seeds, exclude=[3, 9], progress_bar=False)
    assert torch.equal(monitor.ceilings["linear"].values, expected.values)
    monitor.ceilings["linear"].check_fits(monitor.results["initial"][-1])


def test_training_is_the_same(seeds, tmp_path):
    alone, _ = run()
    observed, _ = run(CKAMonitor("initial", dirpath=tmp_path / "cka", ceiling=seeds))
    assert all(map(torch.equal, alone.state_dict().values(), observed.state_dict().values()))


@pytest.mark.parametrize("reference", ["initial", 3, "module"])
def test_banks_of_other_data_raise_before_the_first_step(seeds, tmp_path, reference):
    class NoStep(Net):
        def training_step(self, batch, batch_idx):
            raise AssertionError("the check comes before training")

    monitor = CKAMonitor(Net() if reference == "module" else reference, dirpath=tmp_path / "cka", ceiling=seeds)
    other = DataLoader(dataset(seed=7), batch_size=16)
    epochs = {} if reference != 3 else {"max_epochs": 5}
    with pytest.raises(ValueError, match=r"ceiling: the bank of seed0 is not of this run's probe set: .* the inputs"):
        trainer(monitor, **epochs).fit(NoStep(), loaders()[0], other)
    assert not (tmp_path / "cka").exists() or not list((tmp_path / "cka").rglob("*.png"))


def test_banks_of_another_seed_of_the_probe_set_or_with_other_layers_raise(seeds, tmp_path):
    with pytest.raises(ValueError, match=r"they differ in the seed \(0 and 5\)"):
        fit(CKAMonitor("initial", seed=5, dirpath=tmp_path / "cka", ceiling=seeds))
    head = seeds[0].with_name("head")
    fit(CKAMonitor("initial", "head", dirpath=head, save_banks=True), 9)
    with pytest.raises(ValueError, match=r"the bank of head lacks layers of this model: net\.0, .*; it has head"):
        fit(CKAMonitor("initial", dirpath=tmp_path / "cka", ceiling=[*seeds, head]))
    monitor = CKAMonitor("initial", "head", dirpath=tmp_path / "cka", ceiling=seeds)  # Banks may have more layers.
    fit(monitor)
    assert monitor.ceilings["linear"].layers == ("head",)


def test_arguments_are_checked_at_once(seeds, tmp_path):
    with pytest.raises(TypeError, match="ceiling must be a sequence of banks of other seeds"):
        CKAMonitor(ceiling=seeds[0])
    with pytest.raises(ValueError, match="needs banks of at least two seeds, and of three for an interval, not 1"):
        CKAMonitor(ceiling=seeds[:1])
    with pytest.raises(FileNotFoundError, match="ceiling: there is no bank or folder"):
        CKAMonitor(ceiling=[*seeds, tmp_path / "missing"])
    with pytest.raises(ValueError, match="reference 'self' compares different layers"):
        CKAMonitor("self", ceiling=seeds)


def test_a_resumed_run_has_the_ceiling(seeds, tmp_path):
    options = {"dirpath": tmp_path / "cka", "ceiling": seeds}
    first = fit(CKAMonitor("initial", **options))
    first.save_checkpoint(tmp_path / "last.ckpt")
    again = CKAMonitor("initial", **options)
    trainer(again).fit(Net(), *loaders(), ckpt_path=tmp_path / "last.ckpt")
    assert again.ceilings["linear"].num_seeds == 3
    assert len(again.results["initial"]) == 2
