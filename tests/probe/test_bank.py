"""Banks in files: exact, whole or not there, readable for ever."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import Net, dataset
from gram_banks import SIZES, make_bank
from lightning_cka import GramBank, compare_banks, compare_models
from lightning_cka.hsic.stack import pack_features
from lightning_cka.probe.bank_batch import BankBatch
from lightning_cka.probe.bank_format import FORMAT_VERSION
from lightning_cka.runtime.files import write_atomically
from lightning_cka.version import __version__
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import DataLoader

pytestmark = pytest.mark.filterwarnings(
    "ignore:CKA.*layers whose CKA (has a standard error|with the layer of the same name):UserWarning"
)
DATA = Path(__file__).parents[1] / "data"


def assert_same(a, b):
    assert a.probe_differences(b) == []
    for one, other in zip(a, b, strict=True):
        assert all(map(torch.equal, one.grams, other.grams))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_bank_comes_back_as_it_was(tmp_path, dtype):
    bank = make_bank(dtype=dtype, seed=3, epoch=4, step=17)
    bank.save(tmp_path / "new" / "folder" / "a.safetensors")
    loaded = GramBank.load(tmp_path / "new" / "folder" / "a.safetensors")
    assert_same(bank, loaded)
    for name in ("layers", "model_name", "sample_kind", "seed", "epoch", "step", "title", "num_samples"):
        assert getattr(loaded, name) == getattr(bank, name)
    assert loaded.title == "Net, epoch 4"
    assert torch.equal(
        compare_banks(bank, make_bank(2, seed=3)).matrix, compare_banks(loaded, make_bank(2, seed=3)).matrix
    )


def test_the_header_says_what_it_is(tmp_path):
    make_bank(epoch=4, step=17).save(tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        header = json.loads(file.metadata()["lightning_cka"])
    probe = header.pop("probe")
    assert header == {
        "format_version": FORMAT_VERSION,
        "package_version": __version__,
        "model_name": "Net",
        "layers": ["a", "b.c"],
        "epoch": 4,
        "step": 17,
        "batch_sizes": list(SIZES),
    }
    assert (probe["seed"], probe["sample_kind"]) == (0, "dataset index")
    assert [batch["inputs"] for batch in probe["batches"]] == ["hash0", "hash1", "hash2"]
    assert probe["batches"][1]["samples"] == list(range(100, 116))


@pytest.mark.parametrize("float16", [False, True])
@pytest.mark.parametrize("n", [4, 9, 90])
def test_a_bank_that_is_loaded_and_saved_again_is_the_same_file(tmp_path, n, float16):
    bank = GramBank(("far", "random", "constant"), "Net")
    far = torch.full((n, 50), 0.1)
    far[2] = 1e6  # Leaves zeros of both signs.
    features = [far, torch.randn(n, 3), torch.ones(n, 2)]
    bank.add(BankBatch(0, pack_features(features), "", tuple(range(n))))
    content = bank.save(tmp_path / "a.safetensors", float16=float16)
    assert GramBank.load(tmp_path / "a.safetensors").save(tmp_path / "b.safetensors", float16=float16) == content


def test_symmetric_halves_only(tmp_path):
    bank = make_bank()
    content = bank.save(tmp_path / "a.safetensors")
    assert load_file(tmp_path / "a.safetensors")["0.halves"].shape == (2, 16 * 15 // 2)
    documented = sum(4 * 2 * (n * ((n + 1) // 2 + 2) + 1) for n in SIZES)
    held = sum(part.numel() * part.element_size() for batch in bank for part in batch.grams)
    assert held == documented
    assert len(content) < sum(4 * 2 * (n * (n + 3) // 2 + 1) for n in SIZES) + 4000


def test_some_batches_can_be_read_alone(tmp_path):
    bank = make_bank()
    bank.save(tmp_path / "a.safetensors")
    part = GramBank.load(tmp_path / "a.safetensors", batches=[1])
    assert list(part.batches) == [1]
    assert part.probe == bank.probe
    assert torch.equal(part.batches[1].grams.halves, bank.batches[1].grams.halves)


@pytest.mark.parametrize("kernel", ["linear", "rbf", "distance"])
def test_float16_takes_half_the_space_and_changes_little(tmp_path, kernel):
    torch.manual_seed(0)
    banks, stored, sizes = [], [], []
    for model in range(2):
        bank = GramBank(("small", "wide", "relu"), "Net")
        for index in range(4):
            x = torch.randn(64, 512)
            features = [1e-4 * x[:, :8] + 1e-2 * model, x + model, (x @ torch.randn(512, 300)).relu() * 1e5]
            bank.add(BankBatch(index, pack_features(features), str(index), tuple(range(64))))
        sizes.append([len(bank.save(tmp_path / "a.safetensors", float16=half)) for half in (True, False)])
        banks.append(bank)
        bank.save(tmp_path / "a.safetensors", float16=True)
        stored.append(GramBank.load(tmp_path / "a.safetensors"))
    full, half = (compare_banks(*pair, kernel=kernel).matrix for pair in (banks, stored))
    assert 0 < (full - half).abs().max() < 1e-4
    assert all(small < 0.6 * large for small, large in sizes)


def test_float16_keeps_layers_that_are_undefined(tmp_path):
    bank = GramBank(("dead", "lost", "fine"), "Net")
    x = torch.randn(16, 4)
    bank.add(BankBatch(0, pack_features([torch.ones(16, 4), x * torch.nan, x]), "", tuple(range(16))))
    bank.save(tmp_path / "a.safetensors", float16=True)
    with pytest.warns(UserWarning, match="CKA is nan"):
        matrix = compare_banks(GramBank.load(tmp_path / "a.safetensors"), bank).matrix
    assert matrix[:2].isnan().all()
    assert matrix[2, 2] == pytest.approx(1, abs=1e-6)


def test_a_file_of_the_first_version_loads_for_ever():
    a, b = (GramBank.load(DATA / f"bank-v1-{name}.safetensors") for name in ("a", "b"))
    expected = json.loads((DATA / "bank-v1.json").read_text())
    assert (a.layers, a.epoch, a.step, a.seed, a.model_name) == (("a", "b.c"), 4, 17, 0, "Net")
    assert a.probe[2].samples == tuple(range(200, 209))
    for kernel, matrix in expected.items():
        result = compare_banks(a, b, kernel=kernel)
        torch.testing.assert_close(result.matrix, torch.tensor(matrix, dtype=torch.float64), rtol=0, atol=1e-12)


def test_a_newer_format_is_refused(tmp_path):
    make_bank().save(tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        header = json.loads(file.metadata()["lightning_cka"])
    header |= {"format_version": FORMAT_VERSION + 1, "package_version": "9.9"}
    save_file(load_file(tmp_path / "a.safetensors"), tmp_path / "b.safetensors", {"lightning_cka": json.dumps(header)})
    with pytest.raises(ValueError, match=r"format version 2, of lightning_cka 9\.9.*up to 1: install a newer"):
        GramBank.load(tmp_path / "b.safetensors")


def test_files_that_are_no_banks(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no bank"):
        GramBank.load(tmp_path / "missing.safetensors")
    save_file({"x": torch.ones(2)}, tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match=r"'weights.safetensors' is no bank of lightning_cka"):
        GramBank.load(tmp_path / "weights.safetensors")
    (tmp_path / "text.safetensors").write_text("hello, this is not it")
    with pytest.raises(ValueError, match=r"'text.safetensors' cannot be read as a bank"):
        GramBank.load(tmp_path / "text.safetensors")
    content = make_bank().save(tmp_path / "whole.safetensors")
    (tmp_path / "half.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"'half.safetensors' cannot be read as a bank"):
        GramBank.load(tmp_path / "half.safetensors")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_atomically(path, b"old")
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda _file: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space left"):
            write_atomically(path, b"new and longer")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_killed_process_leaves_no_half_file(tmp_path):
    """SIGKILL at the moment when the content is in the temporary file."""
    script = (
        "import os, signal\nfrom pathlib import Path\nfrom lightning_cka.files import write_atomically\n"
        "os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_atomically(Path('a.safetensors'), bytes(10**6))\n"
    )
    process = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, timeout=60)
    assert process.returncode == -9
    assert not (tmp_path / "a.safetensors").exists()


def test_banks_of_different_probe_sets_are_refused_unless_told():
    a = make_bank()
    assert a.probe_differences(make_bank(2)) == []
    other = make_bank(2, seed=5)
    with pytest.raises(
        ValueError, match=r"they differ in the seed \(0 and 5\). strict=False \(--loose\) compares batches"
    ):
        compare_banks(a, other)
    shown = other.batches[1]
    other.add(replace(shown, samples=(7, *shown.samples[1:]), fingerprint="changed"))
    other.add(BankBatch(2, pack_features([torch.randn(12, 3), torch.randn(12, 4)]), "hash2", tuple(range(12))))
    told = (
        r"the seed \(0 and 5\); the samples of 2 of 3 batches \(dataset index and dataset index\); "
        "the inputs in 1 of 3 batches"
    )
    with pytest.raises(ValueError, match=told):
        compare_banks(a, other)
    with pytest.warns(
        UserWarning, match=f"{told}. 32 samples are compared as if they were the same in both banks; otherwise"
    ):
        loose = compare_banks(a, other, strict=False)
    assert loose.num_samples == 32
    same = make_bank(2)
    del same.batches[2], same.probe[2]
    with pytest.warns(UserWarning, match=r"the number of batches \(3 and 2, 1 of them not in both\)"):
        torch.testing.assert_close(loose.matrix, compare_banks(a, same, strict=False).matrix, rtol=0, atol=0)
    del same.batches[0], same.probe[0], same.batches[1], same.probe[1]
    with pytest.raises(ValueError, match="No batch has the same number of samples in both"):
        compare_banks(a, same, strict=False)


def test_some_layers_of_a_bank():
    a, b = make_bank(), make_bank(2)
    whole = compare_banks(a, b)
    part = compare_banks(a, b, layers="b.*", reference_layers=["a", "b.c"])
    assert (part.layers, part.reference_layers) == (("b.c",), ("a", "b.c"))
    torch.testing.assert_close(part.matrix, whole.matrix[1:], rtol=0, atol=1e-12)
    assert compare_banks(a, a, layers="a").layers == ("a",)
    with pytest.raises(ValueError, match=r"reference_layers: 'c' matches none of the bank's layers: a, b\.c"):
        compare_banks(a, b, reference_layers="c")


@pytest.fixture
def models():
    torch.manual_seed(1)
    return Net().eval(), nn.Sequential(nn.Linear(8, 20), nn.Tanh(), nn.Linear(20, 12)).eval()


@pytest.mark.filterwarnings("ignore:CKA:UserWarning")
def test_banks_of_models_give_what_the_models_give(models, tmp_path):
    loader = DataLoader(dataset(128), batch_size=16, shuffle=True)
    for i, model in enumerate(models):
        GramBank.from_model(model, loader, progress_bar=False).save(tmp_path / f"{i}.safetensors")
    live = compare_models(*models, loader, progress_bar=False)
    offline = compare_banks(*(GramBank.load(tmp_path / f"{i}.safetensors") for i in range(2)))
    torch.testing.assert_close(live.matrix, offline.matrix, rtol=0, atol=1e-14)
    torch.testing.assert_close(live.standard_error, offline.standard_error, rtol=0, atol=1e-14)
    assert live.diagnostics == offline.diagnostics
    assert (offline.model_name, offline.reference_name) == ("Net", "Sequential")


def test_a_model_on_the_samples_of_another_bank(models):
    loader = DataLoader(dataset(128), batch_size=16, shuffle=True)
    bank = GramBank.from_model(models[0], loader, "net.0", seed=4, progress_bar=False)
    other = GramBank.from_model(models[1], DataLoader(dataset(128)), "0", like=bank, progress_bar=False)
    assert bank.probe_differences(other) == []
    with pytest.raises(ValueError, match=r"like= has sample 12\d, but the dataset has 64"):
        GramBank.from_model(models[1], DataLoader(dataset(64)), "0", like=bank, progress_bar=False)
    with pytest.raises(ValueError, match="like= needs a DataLoader over a map-style dataset, but got a list"):
        GramBank.from_model(models[1], [torch.ones(4, 8)], "0", like=bank, progress_bar=False)
    stream = GramBank.from_model(models[0], [torch.randn(8, 8)] * 3, "net.0", progress_bar=False)
    with pytest.raises(ValueError, match="with dataset indices, but this one's are loader positions"):
        GramBank.from_model(models[1], loader, "0", like=stream, progress_bar=False)


def test_a_bandwidth_without_the_first_batch():
    """Of banks whose first batches cannot be compared, the first pair that can fixes it."""
    a, b = make_bank(1), make_bank(2)
    b.add(BankBatch(0, pack_features([torch.randn(7, 3), torch.randn(7, 4)]), "other", tuple(range(7))))
    with pytest.warns(UserWarning, match="25 samples are compared"):
        loose = compare_banks(a, b, kernel="rbf", strict=False)
    for bank in (a, b):
        bank.batches = {place - 1: replace(batch, index=place - 1) for place, batch in bank.batches.items() if place}
        bank.probe = {place - 1: inputs for place, inputs in bank.probe.items() if place}
    torch.testing.assert_close(loose.matrix, compare_banks(a, b, kernel="rbf").matrix, rtol=0, atol=1e-14)


def test_files_stand_for_banks_and_a_wrong_dataset_is_told(tmp_path, models):
    a, b = make_bank(), make_bank(2)
    for name, bank in (("a", a), ("b", b)):
        bank.save(tmp_path / f"{name}.safetensors")
    assert torch.equal(compare_banks(tmp_path / "a.safetensors", b).matrix, compare_banks(a, b).matrix)
    assert repr(a) == "GramBank(Net: 2 layers, 41 samples in 3 batches)"
    with pytest.raises(FileNotFoundError, match="it is a folder"):
        compare_banks(tmp_path, b)
    loader = DataLoader(dataset(128), batch_size=16, shuffle=True)
    GramBank.from_model(models[0], loader, "net.0", progress_bar=False).save(tmp_path / "like.safetensors")
    other = DataLoader(dataset(128, seed=3))
    with pytest.warns(
        UserWarning, match="not that of like=: it differs in the inputs in 8 of 8 batches. Is it another"
    ):
        GramBank.from_model(models[1], other, "0", like=tmp_path / "like.safetensors", progress_bar=False)
