"""`trajectories`: the CKA of each layer with itself at other epochs, from banks."""

import pytest
import torch
from gram_banks import make_bank
from lightning_cka import compare_banks
from lightning_cka.compare.trajectory import trajectories

pytestmark = pytest.mark.filterwarnings("ignore:CKA.*:UserWarning")


@pytest.fixture
def run_folder(tmp_path):
    """Banks before training and of three epochs; the last epoch number has four digits."""
    banks = [
        make_bank(1, step=0),
        make_bank(2, epoch=0, step=9),
        make_bank(3, epoch=999, step=90),
        make_bank(4, epoch=1000, step=99),
    ]
    names = ("initial", "epoch=000-step=000009", "epoch=999-step=000090", "epoch=1000-step=000099")
    for bank, name in zip(banks, names, strict=True):
        bank.save(tmp_path / "run" / "banks" / f"{name}.safetensors")
    make_bank(7).save(tmp_path / "run" / "banks" / "restarted-step=000050.safetensors")  # Not a moment of the run.
    return tmp_path / "run", banks


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
@pytest.mark.parametrize("unbiased", [True, False])
def test_each_cell_is_the_comparison_of_two_banks(run_folder, kernel, unbiased):
    folder, banks = run_folder
    found = trajectories(folder, kernel=kernel, unbiased=unbiased)
    assert list(found) == ["a", "b.c"]
    for row, a in enumerate(banks):
        for column, b in enumerate(banks):
            result = compare_banks(a, b, kernel=kernel, unbiased=unbiased)
            for index, name in enumerate(found):
                assert float(found[name].matrix[row, column]) == pytest.approx(
                    float(result.matrix[index, index]), abs=1e-12
                )
                # Variances, since the standard error of CKA = 1 is the square root of a rounding error.
                variances = [
                    float(each) ** 2
                    for each in (found[name].standard_error[row, column], result.standard_error[index, index])
                ]
                assert variances[0] == pytest.approx(variances[1], abs=1e-14)
    result = found["b.c"]
    assert result.layers == result.reference_layers == ("init", "0", "999", "1000")
    assert (result.self_comparison, result.model_name, result.kernel, result.num_samples) == (True, "b.c", kernel, 41)
    assert result.diagnostics.layers["999"].effective_dimension > 1


def test_folders_files_and_banks_give_the_same(run_folder):
    folder, banks = run_folder
    whole = trajectories(folder, "b.*")
    assert list(whole) == ["b.c"]
    files = sorted((folder / "banks").glob("epoch*"), key=lambda path: path.stat().st_mtime)
    for other in (
        trajectories(folder / "banks", "b.*"),
        trajectories(banks, "b.*"),
        trajectories([banks[0], *files], "b.*"),
    ):
        assert torch.equal(whole["b.c"].matrix, other["b.c"].matrix)
        assert whole["b.c"].layers == other["b.c"].layers


def test_several_banks_of_one_epoch_are_named_by_step():
    banks = [make_bank(1, epoch=0, step=4), make_bank(2, epoch=0, step=9)]
    assert trajectories(banks)["a"].layers == ("step 4", "step 9")
    assert trajectories([make_bank(1), make_bank(2)])["a"].layers == ("0", "1")


def test_banks_that_are_not_of_one_run_raise(run_folder, tmp_path):
    folder, banks = run_folder
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        trajectories(tmp_path / "missing")
    with pytest.raises(ValueError, match=r"at least two epochs, but '.*' has 0; CKAMonitor\(save_banks=True\)"):
        trajectories(tmp_path)
    with pytest.raises(ValueError, match="needs at least two banks, but got 1"):
        trajectories(banks[:1])
    with pytest.raises(ValueError, match="banks of Net, initial and Net, epoch 0 have different layers"):
        trajectories([banks[0], make_bank(2, layers=("a", "x"), epoch=0)])
    with pytest.raises(ValueError, match=r"different probe sets: they differ in the seed \(0 and 1\)"):
        trajectories([banks[0], make_bank(2, epoch=0, seed=1)])
    with pytest.raises(ValueError, match=r"layers: 'nope' matches none of the bank's layers: a, b\.c"):
        trajectories(folder, "nope")
