"""Banks, results and checkpoints of version 0.1.0, which had other module paths and names, still load."""

import shutil
from pathlib import Path

import pytest
import torch
from conftest import Net, dataset, trainer
from lightning_cka import CKAMonitor, CKAResult, GramBank, Thresholds, compare_banks, compare_many, seed_ceiling
from lightning_cka.diagnostics import Flag, LayerDiagnostics, SampleRatio
from torch.utils.data import DataLoader

DATA = Path(__file__).parent / "data" / "v0.1.0"
LAST = "epoch=001-step=000005.safetensors"


def old_data():
    """Return the data that these files were made from. Sample 5 is an outlier."""
    data = dataset(48)
    data.tensors[0][5] *= 40
    return data


def test_a_result_has_the_new_names():
    result = CKAResult.load(DATA / "result.json")
    assert result.layers == ("net.0", "net.1", "net.4", "head")
    assert not result.self_comparison
    assert {flag.reason for flag in result.flags} >= {"trace_ratio"}
    assert result.diagnostics.layers["net.0"].trace_ratios[0].sample == 5
    assert CKAResult.load(DATA / "result-self.json").self_comparison


def test_a_result_is_unchanged_after_saving_it_again(tmp_path):
    result = CKAResult.load(DATA / "result.json")
    result.save(tmp_path / "again.json")
    again = CKAResult.load(tmp_path / "again.json")
    assert again.state().keys() == result.state().keys()
    assert torch.equal(again.matrix, result.matrix)
    assert again.diagnostics == result.diagnostics


@pytest.mark.filterwarnings("ignore:CKA:UserWarning")
def test_banks_are_compared_as_many_models_and_as_seeds():
    paths = [DATA / "banks" / LAST, DATA / "banks" / "initial.safetensors"]
    found = compare_many(paths, progress_bar=False)
    assert float(found.matrix[0, 1]) == pytest.approx(CKAResult.load(DATA / "result.json").mean(), abs=1e-6)
    assert seed_ceiling(paths, progress_bar=False).values.tolist() == pytest.approx(
        list(CKAResult.load(DATA / "result.json").same_named().values()), abs=1e-6
    )


@pytest.mark.filterwarnings("ignore:CKA:UserWarning")
def test_a_comparison_of_banks_gives_the_saved_result():
    result = compare_banks(GramBank.load(DATA / "banks" / LAST), GramBank.load(DATA / "banks" / "initial.safetensors"))
    torch.testing.assert_close(result.matrix, CKAResult.load(DATA / "result.json").matrix, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("_without_figures")
@pytest.mark.filterwarnings("ignore:CKA with:UserWarning", "ignore:Be aware that when using:UserWarning")
def test_training_resumes_from_a_checkpoint(tmp_path):
    shutil.copytree(DATA, tmp_path / "cka")
    monitor = CKAMonitor(
        ["initial", "previous", "self", 1], kernel=["linear", "rbf"], batch_size=8, dirpath="cka", save_banks=True
    )
    loader = DataLoader(old_data(), batch_size=16)
    trainer(monitor, max_epochs=3).fit(Net(), loader, loader, ckpt_path=DATA / "epoch=1.ckpt")
    for key in ("initial/linear", "initial/rbf", "previous/linear", "self/rbf"):
        assert [result.epoch for result in monitor.results[key]] == [0, 1, 2], key
    # A reference whose bank is lost would be called "initial, restarted at step N".
    assert {result.reference_name for result in monitor.results["initial/linear"]} == {"initial"}
    assert {result.reference_name for result in monitor.results["epoch-1/linear"]} == {"epoch-1"}


def test_old_names_of_attributes_and_arguments_work_with_a_warning():
    result = CKAResult(torch.eye(1), ("a",), ("a",), self_comparison=True)
    layer = LayerDiagnostics(1.0, (SampleRatio(3, 7.0),), (SampleRatio(3, 9.0),))
    flag = Flag("a", "trace_ratio", 7.0, 5.0, (3,), of_reference=True)
    for owner, old, value in (
        (result, "within", True),
        (layer, "trace_share", 7.0),
        (layer, "hsic_share", 9.0),
        (layer, "trace_shares", layer.trace_ratios),
        (layer, "hsic_shares", layer.hsic_ratios),
        (layer.trace_ratios[0], "share", 7.0),
        (flag, "who", "a of the reference"),
    ):
        with pytest.warns(DeprecationWarning, match=f"'{old}' is deprecated: use '"):
            assert getattr(owner, old) == value
    with pytest.warns(DeprecationWarning, match="'trace_share' is deprecated: use 'trace_ratio'"):
        assert Thresholds(trace_share=5.0) == Thresholds(trace_ratio=5.0)
    with pytest.warns(DeprecationWarning, match="'within' is deprecated: use 'self_comparison'"):
        assert CKAResult(torch.eye(1), ("a",), ("a",), within=True).self_comparison
