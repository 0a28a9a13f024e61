"""Banks in files."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from gram_banks import SIZES, assert_same, ignore_few_samples, make_bank
from lightning_cka import RBF, GramBank, compare_banks
from lightning_cka.hsic.kernel_grams import median_squared_distances
from lightning_cka.hsic.stack import pack_features
from lightning_cka.probe import bank_tensors
from lightning_cka.probe.bank_batch import BankBatch
from lightning_cka.probe.bank_header import FORMAT_VERSION
from lightning_cka.probe.bank_medians import Bandwidths
from lightning_cka.version import __version__
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from safetensors.torch import save as to_safetensors

pytestmark = ignore_few_samples
DATA = Path(__file__).parents[1] / "data"


def saved(bank, path, **options):
    """Return the content of a bank's file."""
    bank.save(path, **options)
    return path.read_bytes()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_loaded_bank_equals_the_saved_one(tmp_path, dtype):
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


def test_the_header_describes_the_bank(tmp_path):
    make_bank(epoch=4, step=17).save(tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        header = json.loads(file.metadata()["lightning_cka"])
    probe, checksum = header.pop("probe"), header.pop("checksum")
    assert len(checksum) == len(probe["batches"][0]["tensors"]) == 32
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
def test_saving_a_loaded_bank_gives_the_same_file(tmp_path, n, float16):
    bank = GramBank(("far", "random", "constant"), "Net")
    far = torch.full((n, 50), 0.1)
    far[2] = 1e6  # Gives zeros of both signs.
    features = [far, torch.randn(n, 3), torch.ones(n, 2)]
    bank.add(BankBatch(0, pack_features(features), "", tuple(range(n))))
    content = saved(bank, tmp_path / "a.safetensors", float16=float16)
    assert saved(GramBank.load(tmp_path / "a.safetensors"), tmp_path / "b.safetensors", float16=float16) == content


def many_batches(dtype):
    """A bank of more than ten batches, whose names have another order than their indices; one batch is ragged."""
    bank = GramBank(("a", 'ä "quoted" \\ \n'), "Net")
    for index in range(12):
        n = 5 if index == 11 else 8
        features = [torch.randn(n, 3, dtype=dtype), torch.randn(n, 4, dtype=dtype)]
        bank.add(BankBatch(index, pack_features(features), f"hash{index}", tuple(range(8 * index, 8 * index + n))))
    return bank


@pytest.mark.parametrize("float16", [False, True])
@pytest.mark.parametrize(
    "bank",
    [many_batches(torch.float32), many_batches(torch.float64), GramBank(("a",), "Net"), GramBank((), "Net")],
    ids=["float32", "float64", "without batches", "without layers"],
)
def test_files_have_the_bytes_that_the_library_writes(tmp_path, bank, float16):
    content = saved(bank, tmp_path / "a.safetensors", float16=float16)
    tensors = load_file(tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        metadata = file.metadata()
    assert len(tensors) == len(bank.batches) * (5 if float16 else 4)
    assert content == to_safetensors(tensors, metadata)


@pytest.mark.parametrize("float16", [False, True])
@pytest.mark.parametrize("entries", [1, 100, 10**6])
def test_the_number_of_layers_that_are_written_at_a_time_changes_nothing(tmp_path, monkeypatch, entries, float16):
    bank = make_bank(epoch=1)
    expected = saved(bank, tmp_path / "a.safetensors", float16=float16)
    half = [bank_tensors.rounded_to_half(batch.grams).halves for batch in bank]
    monkeypatch.setattr(bank_tensors, "_ENTRIES_AT_A_TIME", entries)
    assert saved(bank, tmp_path / "a.safetensors", float16=float16) == expected
    for batch, values in zip(bank, half, strict=True):
        assert torch.equal(bank_tensors.rounded_to_half(batch.grams).halves, values)


@pytest.mark.parametrize("float16", [False, True])
def test_saving_changes_neither_the_bank_nor_what_is_read(tmp_path, float16):
    bank, same = make_bank(), make_bank()
    bank.save(tmp_path / "a.safetensors", float16=float16)
    assert_same(bank, same)
    if float16:
        for batch in bank:
            bank.add(replace(batch, grams=bank_tensors.rounded_to_half(batch.grams)))
    assert_same(bank, GramBank.load(tmp_path / "a.safetensors"))


def test_each_entry_of_a_gram_matrix_is_stored_once(tmp_path):
    bank = make_bank()
    content = saved(bank, tmp_path / "a.safetensors")
    assert load_file(tmp_path / "a.safetensors")["0.halves"].shape == (2, 16 * 15 // 2)
    documented = sum(4 * 2 * (n * ((n + 1) // 2 + 2) + 1) for n in SIZES)
    held = sum(part.numel() * part.element_size() for batch in bank for part in batch.grams)
    assert held == documented
    assert len(content) < sum(4 * 2 * (n * (n + 3) // 2 + 1) for n in SIZES) + 4000


def test_single_batches_can_be_read(tmp_path):
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
        sizes.append([len(saved(bank, tmp_path / "a.safetensors", float16=half)) for half in (True, False)])
        banks.append(bank)
        bank.save(tmp_path / "a.safetensors", float16=True)
        stored.append(GramBank.load(tmp_path / "a.safetensors"))
    full, half = (compare_banks(*pair, kernel=kernel).matrix for pair in (banks, stored))
    assert 0 < (full - half).abs().max() < 1e-4
    assert all(small < 0.6 * large for small, large in sizes)


def one_layer_bank(features, n):
    bank = GramBank(("a",), "Net")
    for index, part in enumerate(features.split(n)):
        bank.add(BankBatch(index, pack_features([part]), str(index), tuple(range(n))))
    return bank


def float16_changes(x, y, n, path, kernel):
    """How much storing both sides in half precision changes CKA, unbiased and biased; nan where it is undefined."""
    banks = [one_layer_bank(z, n) for z in (x, y)]
    stored = []
    for bank in banks:
        bank.save(path, float16=True)
        stored.append(GramBank.load(path))
    values = [
        [compare_banks(*pair, kernel=kernel, unbiased=unbiased).matrix.item() for unbiased in (True, False)]
        for pair in (banks, stored)
    ]
    return [abs(one - other) for one, other in zip(*values, strict=True)]


@pytest.mark.filterwarnings("ignore:CKA", "ignore:.*layers (that|whose)")
@pytest.mark.parametrize(("kernel", "limit"), [("linear", 1e-4), ("rbf", 1e-3), (RBF(0.2), 2e-3), ("distance", 1e-3)])
@pytest.mark.parametrize("d", [1, 4, 300])
def test_float16_in_small_probes(tmp_path, d, kernel, limit):
    """What the documents promise for one batch of at least 16 samples."""
    generator = torch.Generator().manual_seed(d)
    for n, count in ((16, 1), (16, 3), (64, 1)):
        x = torch.randn(n * count, d, generator=generator)
        noise = torch.randn(n * count, d, generator=generator)
        for features in (x, x.exp(), (x + 0.5).relu() + 0.01 * x, x + 4 * (torch.arange(n * count) % 3)[:, None]):
            for change in float16_changes(features, features + noise, n, tmp_path / "a.safetensors", kernel):
                assert change < limit or (kernel == RBF(0.2) and math.isnan(change))


@pytest.mark.filterwarnings("ignore:CKA", "ignore:.*layers (that|whose)", "ignore:single samples")
@pytest.mark.parametrize("kernel", ["rbf", RBF(0.2), "distance", lambda d: 1 / (1 + d)])
def test_float16_with_far_samples_is_close_or_nan(tmp_path, kernel):
    x = torch.randn(64, 8)
    y = x + torch.randn(64, 8)
    changes = []
    for far in (3.0, 30.0, 300.0, 3e3, 3e4):
        x[5] = far
        changes += float16_changes(x, y, 64, tmp_path / "a.safetensors", kernel)
    assert all(change < 2e-3 or math.isnan(change) for change in changes)
    assert not math.isnan(changes[0])
    assert math.isnan(changes[-2])


def test_float16_keeps_undefined_layers(tmp_path):
    bank = GramBank(("dead", "lost", "fine"), "Net")
    x = torch.randn(16, 4)
    bank.add(BankBatch(0, pack_features([torch.ones(16, 4), x * torch.nan, x]), "", tuple(range(16))))
    bank.save(tmp_path / "a.safetensors", float16=True)
    with pytest.warns(UserWarning, match="CKA is nan"):
        matrix = compare_banks(GramBank.load(tmp_path / "a.safetensors"), bank).matrix
    assert matrix[:2].isnan().all()
    assert matrix[2, 2] == pytest.approx(1, abs=1e-6)


def test_a_file_of_the_first_version_loads(monkeypatch):
    def first_medians(bank, *args, **kwargs):
        medians = median_squared_distances(bank.batches[0].grams)
        return Bandwidths(medians, {index: torch.zeros(len(medians)) for index in bank.batches})

    # That version took the bandwidths from the first batch.
    monkeypatch.setattr(GramBank, "bandwidths", first_medians)
    a, b = (GramBank.load(DATA / f"bank-v1-{name}.safetensors") for name in ("a", "b"))
    expected = json.loads((DATA / "bank-v1.json").read_text())
    assert (a.layers, a.epoch, a.step, a.seed, a.model_name) == (("a", "b.c"), 4, 17, 0, "Net")
    assert a.probe[2].samples == tuple(range(200, 209))
    for kernel, matrix in expected.items():
        result = compare_banks(a, b, kernel=kernel)
        torch.testing.assert_close(result.matrix, torch.tensor(matrix, dtype=torch.float64), rtol=0, atol=1e-12)


def test_a_newer_format_raises(tmp_path):
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
    with pytest.raises(
        ValueError, match=r"'weights.safetensors' is a safetensors file, but not a bank of lightning_cka"
    ):
        GramBank.load(tmp_path / "weights.safetensors")
    (tmp_path / "text.safetensors").write_text("not a safetensors file")
    with pytest.raises(ValueError, match=r"'text.safetensors' cannot be read as a bank"):
        GramBank.load(tmp_path / "text.safetensors")
    content = saved(make_bank(), tmp_path / "whole.safetensors")
    (tmp_path / "half.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"'half.safetensors' cannot be read as a bank"):
        GramBank.load(tmp_path / "half.safetensors")


@pytest.mark.parametrize("name", ["a.ckpt", "a.json"])
def test_a_checkpoint_or_a_result_is_no_bank(name, tmp_path):
    (tmp_path / name).write_bytes(b"something")
    with pytest.raises(ValueError, match=rf"'{name}' is no Gram bank, but a checkpoint or a result. GramBank"):
        GramBank.load(tmp_path / name)
