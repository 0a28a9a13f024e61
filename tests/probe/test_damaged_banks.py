"""A damaged bank gives one line of `ValueError`, or exactly the same numbers."""

import json
import re
import struct
import sys
import tracemalloc
from pathlib import Path

import pytest
import torch
from damage import assert_refused, truncated, with_flipped_bits, with_random_changes
from gram_banks import make_bank
from lightning_cka import GramBank
from lightning_cka.hsic.stack import pack_features
from lightning_cka.probe.bank_batch import BankBatch
from lightning_cka.runtime import unchecked_files
from safetensors.torch import load_file, save_file

NAME = "a.safetensors"
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="Linux tells the peak memory of a process")


@pytest.fixture
def path(tmp_path):
    return tmp_path / NAME


def content_of(path, **options):
    make_bank(epoch=4, step=17).save(path, **options)
    return path.read_bytes()


def read_header(content):
    """Return the JSON of a bank."""
    (size,) = struct.unpack("<Q", content[:8])
    return json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["lightning_cka"])


def write_header(path, tensors, header):
    save_file(tensors, path, {"lightning_cka": header if isinstance(header, str) else json.dumps(header)})


def state_of(bank):
    return (
        (bank.layers, bank.model_name, bank.sample_kind, bank.seed, bank.epoch, bank.step, bank.probe),
        {batch.index: [part.numpy().tobytes() for part in batch.grams] for batch in bank},
    )


def assert_refused_or_same(path, expected):
    """Return whether the bank is refused."""
    try:
        bank = GramBank.load(path)
    except ValueError as error:
        assert_refused(error, NAME)
        return True
    assert state_of(bank) == expected
    return False


@pytest.mark.filterwarnings("ignore:.*unknown fields are ignored")
@pytest.mark.parametrize("float16", [False, True])
def test_flipped_bits_and_truncations(path, float16):
    content = content_of(path, float16=float16)
    expected = state_of(GramBank.load(path))
    refused = 0
    for changed in with_flipped_bits(content, 300):
        path.write_bytes(changed)
        refused += assert_refused_or_same(path, expected)
    assert refused > 290
    for changed in truncated(content, 50):
        path.write_bytes(changed)
        assert assert_refused_or_same(path, expected)


@pytest.mark.filterwarnings("ignore:.*unknown fields are ignored")
def test_flipped_bits_in_the_header(path):
    content = content_of(path)
    expected = state_of(GramBank.load(path))
    (size,) = struct.unpack("<Q", content[:8])
    for changed in with_flipped_bits(content[: 8 + size], 300, seed=1):
        path.write_bytes(changed + content[8 + size :])
        assert_refused_or_same(path, expected)


@pytest.mark.filterwarnings("ignore:.*unknown fields are ignored")
@pytest.mark.parametrize("has_checksum", [True, False])
def test_changes_of_the_header(path, has_checksum):
    header = read_header(content_of(path))
    expected, tensors = state_of(GramBank.load(path)), load_file(path)
    if not has_checksum:
        del header["checksum"]
    refused = 0
    for changed in with_random_changes(header, 300):
        write_header(path, tensors, changed)
        if has_checksum:
            refused += assert_refused_or_same(path, expected)
            continue
        try:  # Without a checksum, a number can change, but no other error is raised.
            GramBank.load(path)
        except ValueError as error:
            assert_refused(error, NAME)
            refused += 1
    assert refused > (250 if has_checksum else 100)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda t: t | {"1.scales": t["1.scales"][:1].clone()}, r"scales has shape \(1,\); expected \(2,\)"),
        (lambda t: t | {"1.offsets": t["1.offsets"].int()}, "offsets has dtype torch.int32"),
        (lambda t: t | {"1.halves": t["1.halves"].bfloat16()}, "halves has dtype torch.bfloat16"),
        (lambda t: t | {"1.halves": t["1.halves"][:, :-1].clone()}, "halves has shape"),
        (lambda t: t | {"1.halves": t["1.halves"].half()}, "halves_unit"),
        (lambda t: t | {"1.scales": t["1.scales"] * torch.inf}, "scale is not a power of 2"),
        (lambda t: t | {"1.scales": t["1.scales"] * torch.nan}, "a scale is nan, but its layer is not"),
        (lambda t: t | {"1.scales": -t["1.scales"]}, "scale is not a power of 2"),
        (lambda t: t | {"1.scales": t["1.scales"] * 3}, "scale is not a power of 2"),
        (lambda t: t | {"1.row_squares": -t["1.row_squares"]}, "a squared norm is negative"),
        (lambda t: {name: part for name, part in t.items() if name != "2.offsets"}, "2.offsets"),
    ],
)
def test_tensors_that_cannot_be_right_are_refused_without_a_checksum(path, change, problem):
    header = read_header(content_of(path))
    del header["checksum"]
    for batch in header["probe"]["batches"]:
        del batch["tensors"]
    write_header(path, change(load_file(path)), header)
    with pytest.raises(ValueError, match=problem) as caught:
        GramBank.load(path)
    assert_refused(caught.value, NAME)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda h: h["layers"].reverse(), "the checksum of its header differs"),
        (lambda h: h.update(layers=["a", "a"], checksum=None), "layers must be a list of distinct strings"),
        (lambda h: h.update(batch_sizes=[3, 16, 9], checksum=None), "batch_sizes.0 must be an integer of at least 4"),
        (lambda h: h["batch_sizes"].reverse() or h.pop("checksum"), "differ from batch_sizes"),
        (lambda h: h["probe"]["batches"][0].update(index=1) or h.pop("checksum"), "two batches have the same index"),
        (lambda h: h.update(seed=1, epoch=2**70, checksum=None), "epoch must be an integer"),
        (lambda h: h.update(format_version=0), "format_version must be an integer of at least 1"),
        (lambda h: h.update(layers=[], checksum=None), "it has batches, but no layers"),
    ],
)
def test_headers_that_cannot_be_right(path, change, problem):
    header, tensors = read_header(content_of(path)), None
    tensors = load_file(path)
    change(header)
    write_header(path, tensors, header)
    with pytest.raises(ValueError, match=problem) as caught:
        GramBank.load(path)
    assert_refused(caught.value, NAME)


def test_one_batch_is_checked_if_one_batch_is_read(path):
    content = bytearray(content_of(path))
    tensors = load_file(path)
    tensors["2.halves"][0, 0] += 1
    write_header(path, tensors, read_header(content))
    assert list(GramBank.load(path, batches=[0, 1]).batches) == [0, 1]
    with pytest.raises(ValueError, match="is damaged: batch 2: the checksum of its tensors differs"):
        GramBank.load(path, batches=[2])


@pytest.mark.parametrize(
    "header",
    [
        "[" * 200_000 + "]" * 200_000,
        "[" + "[]," * 400_000 + "[]]",
        '{"format_version":1,"layers":["a"],"x":' + "9" * 5000 + "}",
        '{"format_version":1,"layers":1e999}',
        '{"format_version":1,"layers":NaN}',
        "null",
        "[]",
        "{",
        '{"format_version":"2"}',
    ],
)
def test_headers_of_other_json(path, header):
    content_of(path)
    write_header(path, load_file(path), header)
    size = path.stat().st_size
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="cannot be read as a bank") as caught:
            GramBank.load(path)
        assert tracemalloc.get_traced_memory()[1] < 10 * size + 2**20
    finally:
        tracemalloc.stop()
    assert_refused(caught.value, NAME)


@linux_only
@pytest.mark.parametrize(
    ("shape", "samples"), [([10**9, 16], 16), ([0, 10**9], 16), ([0, 45_000], 45_000), ([2, 16], 10**5)]
)
def test_a_header_that_claims_more_than_the_file_has_allocates_nothing(path, shape, samples):
    header = read_header(content_of(path))
    header |= {"layers": [], "batch_sizes": [samples], "checksum": None}
    header["probe"]["batches"] = [{"index": 0, "samples": list(range(samples)), "inputs": ""}]
    names = ("offsets", "row_squares", "scales", "halves")
    tensors = {f"0.{name}": {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]} for name in names}
    text = json.dumps(tensors | {"__metadata__": {"lightning_cka": json.dumps(header)}}).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    reset_peak_memory()
    before = peak_memory()
    with pytest.raises(ValueError, match=NAME) as caught:
        GramBank.load(path)
    assert peak_memory() - before < 10 * len(text) + 2**24
    assert_refused(caught.value, NAME)


def reset_peak_memory():
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pytest.skip("this system does not reset the peak memory of a process")


def peak_memory():
    """Return the largest resident memory of this process since the last reset, in bytes."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\s*(\d+)", status)[1])


@linux_only
@pytest.mark.parametrize("float16", [False, True])
def test_one_large_batch_takes_at_most_ten_times_the_files_size(path, float16):
    bank = GramBank(("a",), "Net")
    bank.add(BankBatch(0, pack_features([torch.randn(3000, 8)]), "", tuple(range(3000))))
    bank.save(path, float16=float16)
    size = path.stat().st_size
    reset_peak_memory()
    before = peak_memory()
    loaded = GramBank.load(path)
    assert peak_memory() - before < 10 * size
    if not float16:
        assert torch.equal(loaded.batches[0].grams.halves, bank.batches[0].grams.halves)


@linux_only
@pytest.mark.parametrize("float16", [False, True])
def test_saving_takes_little_memory_and_loading_little_more_than_the_bank(path, float16):
    bank = GramBank(tuple(map(str, range(50))), "Net")
    for index in range(8):
        bank.add(BankBatch(index, pack_features([torch.randn(300, 8)] * 50), "", tuple(range(300))))
    held = sum(part.nbytes for batch in bank for part in batch.grams)
    bank.save(path, float16=float16)  # Loads what is loaded late.
    reset_peak_memory()
    before = peak_memory()
    bank.save(path, float16=float16)
    assert peak_memory() - before < 0.3 * held
    reset_peak_memory()
    before = peak_memory()
    GramBank.load(path)
    assert peak_memory() - before < 1.3 * held + path.stat().st_size  # The file is mapped.


def test_an_undefined_layer_stays_undefined(path):
    bank = make_bank()
    for batch in bank:
        for part in batch.grams:
            part[0] = torch.nan
    for float16 in (False, True):
        bank.save(path, float16=float16)
        for batch in GramBank.load(path):
            assert torch.isnan(batch.grams.offsets).all(1).tolist() == [True, False]
            assert torch.isnan(batch.grams.halves).any(1).tolist() == [True, False]


def test_unknown_fields_are_ignored_with_a_warning(path):
    header = read_header(content_of(path))
    expected = state_of(GramBank.load(path))
    header["precision"] = {"bits": 8}
    header["probe"]["batches"][1]["weights"] = [1, 2]
    header["package_version"] = "9.9"
    write_header(path, load_file(path), header)
    with pytest.warns(UserWarning, match=r"'a.safetensors' was .* are ignored: precision, probe.*weights"):
        assert state_of(GramBank.load(path)) == expected


def test_a_folder_of_files_without_checksums_is_noted_once(path, caplog):
    header = read_header(content_of(path))
    del header["checksum"]
    write_header(path, load_file(path), header)
    unchecked_files._note_folder.cache_clear()
    with caplog.at_level("INFO", logger="lightning.pytorch"):
        GramBank.load(path)
        GramBank.load(path)
    assert [record.message for record in caplog.records if "no checksum" in record.message] == [
        f"CKA: banks in {path.parent} are of an older version, which wrote no checksum: damage is not noticed"
    ]


def test_other_files(path):
    for content in (b"", b"\x00", b"{}", b"\xff" * 100, struct.pack("<Q", 2**62) + b"{}"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=NAME) as caught:
            GramBank.load(path)
        assert_refused(caught.value, NAME)
