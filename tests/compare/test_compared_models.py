"""`compare_models` with the paths of checkpoints."""

import gc
import inspect
import re

import pytest
import torch
from conftest import Net, dataset
from lightning_cka import GramBank, compare_banks, compare_models
from torch import nn
from torch.utils.data import DataLoader

pytestmark = pytest.mark.filterwarnings("ignore:CKA( with '.*')?. layers (that|whose)")

LAYERS = ["net.0", "net.4", "head"]


def loader():
    return DataLoader(dataset(96), batch_size=32, shuffle=True)


def compared(model, reference, layers=LAYERS, **kwargs):
    return compare_models(model, reference, loader(), layers, progress_bar=False, **kwargs)


@pytest.fixture
def saved(tmp_path):
    """Two models, and the paths of their weights."""
    torch.manual_seed(0)
    models = {"first": Net(), "tuned": Net()}
    for name, model in models.items():
        torch.save({"state_dict": model.state_dict()}, tmp_path / f"{name}.ckpt")
    return models["first"], models["tuned"], tmp_path / "first.ckpt", tmp_path / "tuned.ckpt"


def test_paths_give_the_values_of_the_modules(saved):
    """On either side, and on both. The names are those of the files."""
    first, tuned, first_path, tuned_path = saved
    truth = compared(tuned, first)
    assert (truth.model_name, truth.reference_name) == ("Net", "Net (reference)")
    names = {}
    for model, reference, architecture in (
        (tuned_path, first, None),
        (tuned, str(first_path), None),
        (tuned_path, first_path, Net()),
        (tuned_path, first_path, Net),
    ):
        result = compared(model, reference, architecture=architecture)
        assert torch.equal(result.matrix, truth.matrix)
        names[result.model_name, result.reference_name] = result.self_comparison
    assert names == {("tuned", "Net"): False, ("Net", "first"): False, ("tuned", "first"): False}
    named = compared(tuned_path, first, model_name="a", reference_name="b")
    assert (named.model_name, named.reference_name) == ("a", "b")


def test_the_modules_and_files_are_left_as_they_were(saved):
    _, tuned, first_path, tuned_path = saved
    tuned.eval()
    tuned.net[3].train()
    modes = {name: module.training for name, module in tuned.named_modules()}
    weights = {key: value.clone() for key, value in tuned.state_dict().items()}
    contents = [path.read_bytes() for path in (first_path, tuned_path)]
    state = torch.get_rng_state()
    compared(tuned, first_path)
    compared(tuned_path, first_path, architecture=tuned)
    assert {name: module.training for name, module in tuned.named_modules()} == modes
    assert all(torch.equal(value, weights[key]) for key, value in tuned.state_dict().items())
    assert [path.read_bytes() for path in (first_path, tuned_path)] == contents
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in tuned.parameters())


def test_the_copies_are_freed(saved):
    class Counted(Net):
        pass

    architecture = Counted()
    result = compared(*saved[2:], architecture=architecture)
    gc.collect()
    assert [each for each in gc.get_objects() if type(each) is Counted] == [architecture]
    assert result.num_samples == 96


def test_one_file_on_both_sides_is_compared_with_itself(saved, tmp_path):
    path = saved[2]
    (tmp_path / "folder").mkdir()
    same = tmp_path / "folder" / ".." / "first.ckpt"
    result = compared(path, str(same), architecture=Net)
    assert result.self_comparison
    assert torch.equal(result.matrix.diagonal(), torch.ones(3, dtype=torch.float64))
    assert (result.model_name, result.reference_name) == ("first", "first")
    others = compared(path, path, "net.*", reference_layers="head", architecture=Net)
    assert not others.self_comparison
    module = compared(path, saved[0])
    assert not module.self_comparison
    assert torch.allclose(module.matrix.diagonal(), torch.ones(3, dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (
            ["version_0/checkpoints/last.ckpt", "version_1/checkpoints/last.ckpt"],
            ("last, version_0", "last, version_1"),
        ),
        (["a/last.ckpt", "b/c/last.ckpt"], ("last, a", "last, c")),
        (["a/x=0.1-y=0.2.ckpt", "a/x=0.1-y=0.3.ckpt"], ("x=0.1-y=0.2", "x=0.1-y=0.3")),
        (["Net.ckpt"], ("Net", "Net (reference)")),
    ],
)
def test_two_files_have_two_names(saved, tmp_path, paths, names):
    files = [tmp_path / path for path in paths]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(saved[3].read_bytes())
    reference = [saved[0]] if len(files) == 1 else []
    result = compared(*files, *reference, "head", **({} if reference else {"architecture": Net}))
    assert (result.model_name, result.reference_name) == names


def test_an_architecture_beside_a_module_of_another_class(saved, tmp_path):
    other = nn.Sequential(nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 3))
    torch.save(other.state_dict(), tmp_path / "other.pt")
    result = compared(saved[0], tmp_path / "other.pt", architecture=other, reference_layers=nn.Linear)
    assert result.reference_layers == ("0", "2")
    with pytest.raises(
        ValueError,
        match=r"^reference: checkpoint 'other.pt' has another architecture than Net: missing: .*; unexpected: .*. Pass "
        r"a module of its class as architecture=, or load the checkpoint yourself and pass the module",
    ):
        compared(saved[0], tmp_path / "other.pt")


def test_paths_that_cannot_be_used(saved, tmp_path):
    first, _, first_path, tuned_path = saved
    with pytest.raises(ValueError, match=r"^model is a path: pass architecture=, a module of the checkpoint's class"):
        compared(tuned_path, first_path)
    with pytest.raises(FileNotFoundError, match=r"^reference: there is no checkpoint 'initial'"):
        compared(first, "initial")
    with pytest.raises(ValueError, match="model and reference are modules"):
        compared(first, first, architecture=Net)
    (tmp_path / "sharded").mkdir()
    with pytest.raises(ValueError, match=r"^reference: checkpoint 'sharded' must be one file, but is a folder"):
        compared(first, tmp_path / "sharded")


def test_a_copy_is_on_the_device_of_its_architecture(saved):
    """On another device if ``device=`` says so. Float64 models give copies in float64."""
    result = compared(saved[3], saved[0].double(), device="cpu", forward_fn=lambda net, batch: net(batch[0].double()))
    assert result.matrix.isfinite().all()


def test_a_bank_of_a_path(saved):
    first, tuned, first_path, tuned_path = saved
    banks = [
        GramBank.from_model(path, loader(), LAYERS, architecture=net, progress_bar=False)
        for path, net in ((tuned_path, Net), (first_path, Net()))
    ]
    assert [bank.model_name for bank in banks] == ["tuned", "first"]
    result = compare_banks(*banks)
    assert (result.model_name, result.reference_name) == ("tuned", "first")
    assert torch.allclose(result.matrix, compared(tuned, first).matrix, atol=1e-12)
    with pytest.raises(ValueError, match=r"^model is a path: pass architecture="):
        GramBank.from_model(first_path, loader(), progress_bar=False)
    with pytest.raises(ValueError, match="but model is a module"):
        GramBank.from_model(first, loader(), architecture=Net, progress_bar=False)


def test_the_signatures_for_type_checkers_have_all_arguments():
    source = inspect.getsource(inspect.getmodule(inspect.unwrap(compare_models)))
    for name, parameter in inspect.signature(compare_models).parameters.items():
        if name != "measures":
            written = re.findall(rf"^    {name}: {re.escape(parameter.annotation)}(?: = .*)?,$", source, re.MULTILINE)
            assert len(written) == 3, name
