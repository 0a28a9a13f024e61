"""All measures in training: keys, files, two processes, failures, resuming and configuration files."""

import csv
import json
import math
import warnings

import numpy as np
import pytest
import torch
from conftest import Net, cli_config, dataset, loaders, run_script, trainer
from gram_banks import SIZES, make_bank
from lightning.pytorch.callbacks import EarlyStopping
from lightning_cka import RSA, CKAMonitor, CKAResult, MutualKNN, Ridge, Thresholds, compare_banks
from measure_cases import MEASURES
from torch.utils.data import DataLoader

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*layers (that|whose)"),
    pytest.mark.filterwarnings("ignore:.*is nan for layers"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
]


def fit(monitor, epochs=2, checkpoint=None, *callbacks, **options):
    fitted = trainer(monitor, *callbacks, max_epochs=epochs, **options)
    fitted.fit(Net(), *loaders(), ckpt_path=checkpoint)
    return fitted


def same(one, other, message):
    """Whether values of two runs agree, also where they are ``nan``."""
    if isinstance(one, str) or one is None:
        assert one == other, message
    else:
        np.testing.assert_allclose(np.array(one, float), np.array(other, float), 1e-7, 1e-10, err_msg=message)


def assert_same_left_out(alone, shared, key):
    assert alone.keys() == shared.keys(), key
    for layer, (sample, *values) in alone.items():
        assert shared[layer][0] == sample
        same(values, shared[layer][1:], f"{key}: {layer}")


def assert_same_scalars(one, two):
    assert one["metrics"].keys() == two["metrics"].keys()
    for name, value in one["metrics"].items():
        np.testing.assert_allclose(value, two["metrics"][name], 1e-12, err_msg=name)  # Of equal Gram matrices.
    for key in (f"cka/initial/{measure}/{name}" for measure in MEASURES for name in ("mean", "mean_se", "head")):
        assert one["logged"][key] == pytest.approx(two["logged"][key], abs=1e-6, nan_ok=True), key


def test_two_processes_give_the_results_of_one(tmp_path):
    """Values, errors, leave-one-out and metrics; the files of both runs have the same names."""
    one, two = {}, {}
    for devices, found in ((1, one), (2, two)):
        folder = tmp_path / str(devices)
        folder.mkdir()
        run_script("measures_script.py", folder, devices)
        found |= json.loads((folder / f"measures-{devices}.json").read_text())
    assert list(one["results"]) == [f"initial/{measure}" for measure in MEASURES]
    named = 0
    for key, results in one["results"].items():
        for alone, shared in zip(results, two["results"][key], strict=True):
            assert alone["flags"] == shared["flags"], key
            assert_same_left_out(alone["leave one out"], shared["leave one out"], key)
            named += sum(sample == 48 and "cka" not in key for sample, *_ in alone["leave one out"].values())
            for part in ("epoch", "measure", "matrix", "error", "mean error", "batches", "left out"):
                same(alone[part], shared[part], f"{key}: {part}")
    assert named > 5  # The outlier is left out of all measures, in the process that has it.
    assert_same_scalars(one, two)
    check_files(tmp_path)


def check_files(tmp_path):
    """Both runs have the same files, and each measure has its own."""
    files = [sorted(p.relative_to(tmp_path / n) for p in (tmp_path / n / "cka").rglob("*")) for n in ("1", "2")]
    assert files[0] == files[1]
    for measure in MEASURES:
        folder = tmp_path / "1" / "cka" / "initial"
        rows = list(csv.DictReader((folder / f"{measure}.csv").read_text().splitlines()))
        assert measure in rows[0]
        assert (folder / f"{measure}-evolution.gif").exists()
        assert {p.suffix for p in (folder / measure).iterdir()} == {".png", ".json"}
        assert CKAResult.load(next((folder / measure).glob("*.json"))).measure == measure
        assert (tmp_path / "1" / "cka" / "trajectory" / measure / "overview.png").exists()


@pytest.mark.usefixtures("_without_figures")
def test_results_are_those_of_the_banks_by_the_same_measures(tmp_path):
    monitor = CKAMonitor("initial", measures=["cka", "rsa", MutualKNN(0.2)], dirpath="cka", save_banks=True)
    stopping = EarlyStopping("cka/initial/mutual_knn/mean", mode="min", patience=9)
    fitted = fit(monitor, 2, None, stopping)
    assert list(monitor.results) == ["initial/cka", "initial/rsa", "initial/mutual_knn"]
    assert stopping.best_score.isfinite()
    assert {"cka/initial/rsa/mean", "cka/initial/mutual_knn/head"} <= fitted.callback_metrics.keys()
    banks = [tmp_path / "cka" / "banks" / f"{name}.safetensors" for name in ("epoch=001-step=000015", "initial")]
    expected = compare_banks(*banks, measures=MutualKNN(0.2))
    last = monitor.results["initial/mutual_knn"][-1]
    assert last.measure == "mutual_knn(0.2)"
    torch.testing.assert_close(last.matrix, expected.matrix, rtol=0, atol=1e-9, equal_nan=True)


@pytest.mark.usefixtures("_without_figures")
def test_one_measure_has_no_part_in_keys():
    monitor = CKAMonitor("initial", measures="mutual_knn")
    fitted = fit(monitor, 1)
    assert list(monitor.results) == ["initial"]
    assert {"cka/initial/mean", "cka/initial/head"} <= fitted.callback_metrics.keys()


@pytest.mark.usefixtures("_without_figures")
def test_early_stopping_on_a_measure_that_is_not_logged_raises():
    with pytest.raises(ValueError, match="looks for 'cka/initial/rsa/mean', which CKAMonitor does not log"):
        fit(CKAMonitor("initial", measures=["cka", "ridge"]), 1, None, EarlyStopping("cka/initial/rsa/mean"))


@pytest.mark.usefixtures("_without_figures")
def test_a_failed_comparison_is_nan_by_every_measure():
    def fails(module, batch):
        if module.trainer.validating and module.current_epoch == 1:
            raise MemoryError("full")
        return module(batch[0])

    monitor = CKAMonitor("initial", measures=list(MEASURES), forward_fn=fails, on_error="warn")
    with pytest.warns(UserWarning, match="of epoch 1 failed: MemoryError"):
        fit(monitor, 3)
    for measure in MEASURES:
        results = monitor.results[f"initial/{measure}"]
        assert [each.measure for each in results] == [measure] * 3
        assert [math.isnan(each.mean()) for each in results] == [False, True, False]
        assert results[1].measure_label == results[0].measure_label


def fit_with_checkpoints(measures, folder, epochs, checkpoint=None, reference="initial"):
    from lightning.pytorch.callbacks import ModelCheckpoint

    monitor = CKAMonitor(reference, measures=measures, dirpath=folder / "cka", save_banks=True)
    saving = ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)
    loader = DataLoader(dataset(64), batch_size=16)
    trainer(monitor, saving, max_epochs=epochs, enable_checkpointing=True).fit(
        Net(), loader, loader, ckpt_path=checkpoint
    )
    return monitor


@pytest.mark.usefixtures("_without_figures")
def test_a_resumed_run_continues_the_history_of_every_measure(tmp_path):
    torch.manual_seed(3)
    whole = fit_with_checkpoints(list(MEASURES), tmp_path / "whole", 3)
    resumed = fit_with_checkpoints(list(MEASURES), tmp_path / "whole", 3, tmp_path / "whole" / "epoch=1.ckpt")
    assert list(resumed.results) == list(whole.results)
    for key, results in whole.results.items():
        again = resumed.results[key]
        assert [(each.epoch, each.measure) for each in again] == [(each.epoch, each.measure) for each in results]
        for one, other in zip(results[:2], again[:2], strict=True):
            torch.testing.assert_close(one.matrix, other.matrix, rtol=0, atol=0, equal_nan=True)
        difference = again[2].difference(again[1])  # From a restored result.
        assert difference.standard_error.diagonal().isfinite().any(), key


@pytest.mark.usefixtures("_without_figures")
@pytest.mark.parametrize(
    ("before", "after"), [("mutual_knn", "rsa"), ("mutual_knn", MutualKNN(0.3)), ("cka", "ridge"), ("ridge", "cka")]
)
def test_a_run_by_another_measure_does_not_continue_the_history(tmp_path, before, after):
    fit_with_checkpoints(before, tmp_path / "run", 2)
    with pytest.warns(UserWarning, match="the history of 'initial' restarts, .* than now: kernel or measure"):
        monitor = fit_with_checkpoints(after, tmp_path / "run", 3, tmp_path / "run" / "epoch=1.ckpt")
    name = after if isinstance(after, str) else after.name
    assert [(each.epoch, each.measure) for each in monitor.results["initial"]] == [(2, name)]


@pytest.mark.parametrize(
    ("measures", "keys"),
    [
        (["cka", {"class_path": "lightning_cka.MutualKNN", "init_args": {"neighbors": 0.2}}], {"cka", "mutual_knn"}),
        ("rsa", {""}),
    ],
)
def test_a_configuration_file_chooses_measures(tmp_path, measures, keys):
    (tmp_path / "c.yaml").write_text(cli_config(reference="initial", num_samples=64, measures=measures, dirpath="cka"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run_script("cli_script.py", tmp_path, "lightning.pytorch", "fit", "--config", "c.yaml")
    content = json.loads((tmp_path / "lightning.pytorch.json").read_text())
    assert content.keys() == {f"initial/{key}".rstrip("/") for key in keys}
    assert (tmp_path / "config.yaml").read_text().count("neighbors: 0.2") == ("mutual_knn" in keys)


@pytest.mark.usefixtures("_without_figures")
@pytest.mark.parametrize("measure", [MutualKNN(), RSA(), Ridge()], ids=lambda each: each.key)
def test_kept_and_frozen_references_are_computed_once(measure, monkeypatch):
    """Three epochs with two probe batches: twice for each epoch, for the initial weights, and for the frozen model."""
    calls = []
    vectors = type(measure).vectors
    monkeypatch.setattr(type(measure), "vectors", lambda *args: calls.append(1) or vectors(*args))
    references = ["initial", "previous", Net()]
    options = {"num_samples": 32, "thresholds": Thresholds.off()}  # Flags would leave out samples.
    monitor = CKAMonitor(references, measures=measure, **options)
    fit(monitor, 3, num_sanity_val_steps=0)
    batches = monitor.results["initial"][0].num_batches
    assert len(calls) == batches * (3 + 2)
    plain = {key: [each.matrix for each in results] for key, results in monitor.results.items()}
    assert len(plain) == 3
    del calls[:]
    banks = [make_bank(seed) for seed in (0, 1)]
    for _ in range(2):  # Comparing once keeps nothing.
        compare_banks(*banks, measures=measure, thresholds=Thresholds.off())
    assert len(calls) == 2 * 2 * len(SIZES)
