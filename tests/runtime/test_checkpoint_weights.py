"""Copies of models, and weights of checkpoints."""

import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from conftest import Forwards, Net
from damage import with_flipped_bits
from gram_banks import make_bank
from lightning_cka.runtime.checkpoint_weights import detached_copy, read_weights
from safetensors.torch import save_file, save_model
from torch import nn


def test_a_copy_shares_nothing_with_the_model_and_is_in_evaluation_mode():
    model = nn.Sequential(nn.Linear(3, 2))
    copied = detached_copy(model)
    with torch.no_grad():
        model[0].weight += 1
    assert torch.allclose(model[0].weight, copied[0].weight + 1)
    assert model.training
    assert not copied.training


def test_the_copy_of_a_compiled_module_runs_its_own_weights():
    model = Net()
    model.forward = torch.compile(model.forward, backend="eager")
    copied = detached_copy(model)
    x = torch.randn(4, 8)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.zero_()
        assert copied.eval()(x).abs().max() == 0
        assert model.eval()(x).abs().max() > 0


def test_the_copy_of_what_torch_compile_returns_runs_its_own_weights():
    model = torch.compile(Net(), backend="eager")
    copied = detached_copy(model)
    x = torch.randn(4, 8)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.zero_()
        assert copied(x).abs().max() == 0
        assert model.eval()(x).abs().max() > 0


def test_a_model_that_cannot_be_copied_is_named():
    model = nn.Linear(3, 2)
    model.generator = (number for number in range(3))
    with pytest.raises(ValueError, match=r"Linear cannot be copied \(TypeError: cannot pickle 'generator' object\)"):
        detached_copy(model)


@pytest.mark.parametrize("nest", [lambda state: state, lambda state: {"state_dict": state, "epoch": 3}])
def test_weights_of_wrapped_and_plain_models_are_interchangeable(tmp_path, nest):
    model = nn.Sequential(nn.Linear(3, 2))
    path = tmp_path / "a.ckpt"
    own = nn.Sequential(Forwards(model[0]))
    pairs = [(model, torch.compile(model)), (torch.compile(model), model), (model, model), (own, model), (model, own)]
    for saved, target in pairs:
        torch.save(nest(saved.state_dict()), path)
        weights = read_weights(path, target)
        assert weights.keys() == target.state_dict().keys()
        assert all(torch.equal(weights[key], value) for key, value in target.state_dict().items())


class Local:
    pass


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            lambda: {"weight": torch.ones(2, 2), "extra": torch.ones(1)},
            r"another architecture than Linear: missing: bias; unexpected: extra; mismatched: weight \(2, 2\) instead",
        ),
        (
            lambda: {"state_dict": nn.Linear(3, 2).state_dict(), "other": Local()},
            r"'a.ckpt' holds Python objects besides tensors, which torch.load\(weights_only=True\) rejects. If you",
        ),
        (lambda: [1, 2], "'a.ckpt' is no checkpoint: expected a dictionary of tensors, or one under the key"),
        (lambda: {"state_dict": {"a": 1}}, "'a.ckpt' is no checkpoint"),
    ],
)
def test_checkpoints_that_do_not_fit(tmp_path, content, message):
    torch.save(content(), tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=message):
        read_weights(tmp_path / "a.ckpt", nn.Linear(3, 2))


def test_files_that_are_no_checkpoints(tmp_path):
    (tmp_path / "folder.ckpt").mkdir()
    with pytest.raises(ValueError, match=r"'folder.ckpt' must be one file, but is a folder. Convert .* folder.ckpt"):
        read_weights(tmp_path / "folder.ckpt", nn.Linear(3, 2))
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    for name in ("text.ckpt", "missing.ckpt"):
        with pytest.raises(ValueError, match=f"checkpoint '{name}' cannot be read: "):
            read_weights(tmp_path / name, nn.Linear(3, 2))


def test_safetensors_and_their_content_under_another_name(tmp_path):
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    for name in ("a.safetensors", "a.SAFETENSORS", "a.ckpt", "a"):
        save_file(model.state_dict(), tmp_path / name)
        weights = read_weights(tmp_path / name, model)
        assert weights.keys() == model.state_dict().keys()
        assert all(torch.equal(weights[key], value) for key, value in model.state_dict().items())


class Wrapped(nn.Module):
    """As a LightningModule, it has its network in an attribute."""

    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))


def test_weights_of_the_only_child_need_no_prefix(tmp_path):
    wrapped = Wrapped()
    save_file(wrapped.model.state_dict(), tmp_path / "a.safetensors")
    weights = read_weights(tmp_path / "a.safetensors", wrapped)
    assert all(torch.equal(weights[key], value) for key, value in wrapped.state_dict().items())
    save_file({f"net.{key}": value for key, value in wrapped.model.state_dict().items()}, tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match="another architecture than Wrapped"):
        read_weights(tmp_path / "b.safetensors", wrapped)


def test_tied_weights_that_safetensors_stores_once(tmp_path):
    model = Wrapped().model
    model[1].weight = model[0].weight
    save_model(model, str(tmp_path / "a.safetensors"))
    weights = read_weights(tmp_path / "a.safetensors", model)
    assert torch.equal(weights["1.weight"], weights["0.weight"])
    with pytest.raises(ValueError, match=r"missing: (0|1)\.weight"):
        read_weights(tmp_path / "a.safetensors", Wrapped().model)


@pytest.mark.parametrize(
    "convert",
    [
        torch.Tensor.to_sparse,
        torch.Tensor.to_sparse_csr,
        torch.Tensor.double,
        torch.Tensor.bfloat16,
        lambda weight: nn.Parameter(weight),
    ],
)
@pytest.mark.filterwarnings("ignore:Sparse (CSR|invariant)")
def test_weights_in_other_forms_become_those_of_the_model(tmp_path, convert):
    model = nn.Linear(3, 2)
    state = {"weight": convert(model.weight.detach()), "bias": model.bias}
    torch.save(state, tmp_path / "a.ckpt")
    weights = read_weights(tmp_path / "a.ckpt", model)
    copied = nn.Linear(3, 2)
    copied.load_state_dict(weights)
    torch.testing.assert_close(copied.weight, model.weight, rtol=1e-2, atol=0)


def assert_one_line(error, name):
    message = str(error)
    assert name in message
    assert "\n" not in message
    assert len(message) <= 320


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"weight": torch.ones(2, 3).char(), "bias": torch.ones(2)}, "mismatched: weight int8 instead of float32"),
        ({"weight": torch.ones(2, 3).bool(), "bias": torch.ones(2)}, "mismatched: weight bool instead of float32"),
        ({"weight": torch.ones(2, 3) + 0j, "bias": torch.ones(2)}, "mismatched: weight complex64 instead of float32"),
        ({"weight": [1.0] * 6, "bias": torch.ones(2)}, "mismatched: weight list instead of a tensor"),
        ({"weight": torch.ones(3, 2).to_sparse(), "bias": torch.ones(2)}, r"mismatched: weight \(3, 2\) instead"),
        ({0: torch.ones(2, 3), 1: torch.ones(2)}, r"is no checkpoint: the keys .* must be strings, but one is 0 \(int"),
        ({("a", 1): torch.ones(2, 3)}, r"must be strings, but one is \('a', 1\) \(tuple\)"),
        ({"state_dict": {None: torch.ones(2)}}, r"must be strings, but one is None"),
        ({"state_dict": [torch.ones(2)]}, "'a.ckpt' is no checkpoint: .* but got list"),
        (torch.ones(2), "'a.ckpt' is no checkpoint: .* but got Tensor"),
        ({}, "'a.ckpt' is no checkpoint: .* but got a dictionary of 0 other values"),
        ({"x" * 10_000: torch.ones(2)}, "unexpected: xxx"),
    ],
    ids=range(12),
)
def test_contents_that_are_no_weights_of_the_model(tmp_path, content, message):
    torch.save(content, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=message) as caught:
        read_weights(tmp_path / "a.ckpt", nn.Linear(3, 2))
    assert_one_line(caught.value, "'a.ckpt'")


@pytest.mark.filterwarnings("ignore:.*quantiz:DeprecationWarning", "ignore:.*quantiz:UserWarning")
def test_quantised_weights_are_dequantised(tmp_path):
    model = nn.Linear(3, 2)
    weight = torch.quantize_per_tensor(model.weight.detach(), 0.01, 0, torch.qint8)
    torch.save({"weight": weight, "bias": model.bias}, tmp_path / "a.ckpt")
    try:
        weights = read_weights(tmp_path / "a.ckpt", model)
    except ValueError as error:  # Some versions of torch do not read them.
        assert_one_line(error, "'a.ckpt'")
    else:
        assert torch.equal(weights["weight"], weight.dequantize())


def test_truncated_files_and_other_files(tmp_path):
    model = nn.Linear(3, 2)
    torch.save(model.state_dict(), tmp_path / "new")
    torch.save(model.state_dict(), tmp_path / "legacy", _use_new_zipfile_serialization=False)
    save_file(model.state_dict(), tmp_path / "safe")
    with zipfile.ZipFile(tmp_path / "zip", "w") as archive:
        archive.writestr("a.txt", "text")
    contents = {name: (tmp_path / name).read_bytes() for name in ("new", "legacy", "safe")}
    cut = [content[: i * len(content) // 25] for content in contents.values() for i in range(25)]
    flipped = [changed for content in contents.values() for changed in with_flipped_bits(content, 60)]
    whole = [
        (tmp_path / "zip").read_bytes(),
        *(pickle.dumps(value) for value in (Path("x"), {"weight": 1}, print, b"x", {1, 2})),
        *(pickle.dumps(value, protocol=5)[:-2] for value in ({"a": [1, 2]}, "text")),
        *(b"\x80", b"\x00" * 100, b"PK\x03\x04", b"\x80\x02.", b"\x80\x02]q\x00.", b"\x89HDF\r\n\x1a\n", b"<html>"),
    ]
    for suffix in ("ckpt", "safetensors"):
        path = tmp_path / f"a.{suffix}"
        for content in cut + flipped + whole:
            path.write_bytes(content)
            try:
                read_weights(path, model)
            except ValueError as error:
                assert_one_line(error, path.name)
            else:
                assert content in flipped  # A bit of a weight.


def test_a_gram_bank_is_no_checkpoint(tmp_path):
    make_bank().save(tmp_path / "bank.safetensors")
    with pytest.raises(
        ValueError, match=r"checkpoint 'bank.safetensors' cannot be read: it is a Gram bank, which has no weights"
    ):
        read_weights(tmp_path / "bank.safetensors", nn.Linear(2, 2))


def test_a_file_of_a_part_of_the_model_says_which(tmp_path):
    part = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model = nn.ModuleDict({"backbone": part, "head": nn.Linear(3, 2)})
    save_file(part.state_dict() | {"extra": torch.zeros(1)}, tmp_path / "part.safetensors")
    with pytest.raises(ValueError, match=r"another architecture.* It seems to have the weights of 'backbone' alone"):
        read_weights(tmp_path / "part.safetensors", model)
    save_file({"other": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"unexpected: other. Pass the reference as a module$"):
        read_weights(tmp_path / "other.safetensors", model)


def test_a_result_is_no_checkpoint(tmp_path):
    (tmp_path / "result.json").write_text("{}")
    with pytest.raises(ValueError, match=r"'result.json' cannot be read: it is a JSON file, such as a result"):
        read_weights(tmp_path / "result.json", nn.Linear(2, 2))
