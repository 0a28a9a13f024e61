"""``lightning-cka compare`` with checkpoints, whose network and samples are imported from the current folder."""

import sys
from importlib import import_module

import lightning as L
import pytest
import torch
from cli_runs import fails
from lightning_cka import CKAResult, GramBank, compare_banks, compare_models
from lightning_cka.cli import main
from lightning_cka.cli.imported_objects import modules_of_current_folder
from torch import nn
from torch.utils.data import DataLoader

pytestmark = pytest.mark.filterwarnings("ignore:CKA:UserWarning")
MODULE = """
import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Net(L.LightningModule):
    def __init__(self, width):
        super().__init__()
        self.save_hyperparameters()
        self.one, self.two = nn.Linear(6, width), nn.Linear(width, 3)

    def forward(self, x):
        return self.two(self.one(x).relu())


class Plain(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))


def make_net():
    return Net(4)


def plain():
    return Plain()


def samples():
    generator = torch.Generator().manual_seed(0)
    return DataLoader(TensorDataset(torch.randn(96, 6, generator=generator)), batch_size=32, shuffle=True)


def returns_a_class():
    return DataLoader


def fail():
    raise ValueError("no data here")


number = 3
"""


@pytest.fixture
def user(tmp_path):
    """The user's module, in the current folder, from where only the command line imports it."""
    (tmp_path / "nets_of_user.py").write_text(MODULE)
    with modules_of_current_folder():
        yield import_module("nets_of_user")
    del sys.modules["nets_of_user"]


def save_plain(net, path):
    path.parent.mkdir(exist_ok=True)
    torch.save(net.state_dict(), path)


def compared(*arguments):
    assert main(["compare", *arguments, "--dataloader", "nets_of_user:samples", "--output", "out.json"]) == 0
    return CKAResult.load("out.json")


@pytest.mark.parametrize("name", ["Plain", "plain"])
def test_weights_of_a_class_or_a_function(user, tmp_path, name):
    nets = user.Plain(), user.Plain()
    for net, run in zip(nets, ("seed0", "seed1"), strict=True):
        save_plain(net, tmp_path / run / "epoch=3-step=40.pt")
    paths = [f"seed{seed}/epoch=3-step=40.pt" for seed in (0, 1)]
    result = compared(*paths, "--architecture", f"nets_of_user:{name}", "--layers", "0", "2")
    expected = compare_models(*nets, user.samples(), ["0", "2"], progress_bar=False)
    assert torch.equal(result.matrix, expected.matrix)
    assert (result.model_name, result.reference_name) == ("Plain (seed0)", "Plain (seed1)")


def test_lightning_checkpoints_have_the_arguments_of_their_class(user, tmp_path):
    nets = []
    for width in (5, 8):
        nets.append(user.Net(width))
        trainer = L.Trainer(accelerator="cpu", logger=False)
        trainer.strategy.connect(nets[-1])
        trainer.save_checkpoint(tmp_path / f"epoch={width}-step=9.ckpt")
    options = ["--architecture", "nets_of_user:Net", "--kernel", "rbf", "--name", "narrow", "--seed", "3"]
    result = compared("epoch=5-step=9.ckpt", "epoch=8-step=9.ckpt", *options)
    expected = compare_models(*nets, user.samples(), kernel="rbf", seed=3, progress_bar=False)
    assert torch.equal(result.matrix, expected.matrix)
    assert (result.model_name, result.reference_name) == ("narrow", "Net (epoch=8-step=9)")


def test_the_same_checkpoint_twice(user, tmp_path):
    save_plain(user.Plain(), tmp_path / "a.pt")
    result = compared("a.pt", "a.pt", "--architecture", "nets_of_user:Plain", "--layers", "0", "2")
    assert result.matrix.diagonal().tolist() == pytest.approx([1, 1])


def test_what_is_missing_or_cannot_be_imported_is_named(user, tmp_path, capsys):
    save_plain(user.Plain(), tmp_path / "a.pt")
    command = ["compare", "a.pt", "a.pt"]
    net, samples = ["--architecture", "nets_of_user:Plain"], ["--dataloader", "nets_of_user:samples"]
    assert "--architecture and --dataloader missing. Pass --architecture package.module:Net" in fails(capsys, *command)
    assert "--dataloader missing" in fails(capsys, *command, *net)
    for value, message in (
        ("nets_of_user", "must be like package.module:name, but is 'nets_of_user'"),
        ("nets_of_user.py:Plain", "names a module, not a file: write nets_of_user:Plain"),
        ("nowhere.nets:Plain", "there is no module 'nowhere'"),
        ("nets_of_user.inner:Plain", "there is no module 'nets_of_user.inner'"),
        ("nets_of_user:Other", "the module 'nets_of_user' has no 'Other'"),
        ("nets_of_user:number", "nets_of_user:number must be a class of modules"),
        ("nets_of_user:samples", "nets_of_user:samples() must return a module, but returned a DataLoader"),
    ):
        assert message in fails(capsys, *command, *samples, "--architecture", value)
    assert "nets_of_user:number must be a function" in fails(
        capsys, *command, *net, "--dataloader", "nets_of_user:number"
    )
    assert "must return batches, such as a DataLoader, but returned a type" in fails(
        capsys, *command, *net, "--dataloader", "nets_of_user:returns_a_class"
    )
    assert "--epoch is for banks and runs" in fails(capsys, *command, *net, *samples, "--epoch", "1")
    assert "--no-strict is for banks and runs" in fails(capsys, *command, *net, *samples, "--no-strict")


def test_a_checkpoint_of_another_architecture(user, tmp_path, capsys):
    torch.save(nn.Linear(2, 2).state_dict(), "other.pt")
    options = ["--architecture", "nets_of_user:Plain", "--dataloader", "nets_of_user:samples"]
    assert "'other.pt' has another architecture than Plain" in fails(
        capsys, "compare", "other.pt", "other.pt", *options
    )


def test_an_error_in_the_users_code_keeps_its_cause(user, tmp_path):
    """It is no bad input: the user needs the traceback."""
    save_plain(user.Plain(), tmp_path / "a.pt")
    command = ["compare", "a.pt", "a.pt", "--architecture", "nets_of_user:Plain", "--dataloader"]
    with pytest.raises(RuntimeError, match=r"nets_of_user:fail\(\) raised ValueError: no data here") as caught:
        main([*command, "nets_of_user:fail"])
    assert isinstance(caught.value.__cause__, ValueError)
    (tmp_path / "imports_a_missing_one.py").write_text("import not_installed_anywhere")
    with pytest.raises(ModuleNotFoundError, match="not_installed_anywhere"):
        main([*command, "imports_a_missing_one:samples"])


def test_the_import_path_is_as_before(user, tmp_path):
    save_plain(user.Plain(), tmp_path / "a.pt")
    before = list(sys.path)
    compared("a.pt", "a.pt", "--architecture", "nets_of_user:Plain")
    assert sys.path == before


def write_bank_of(net, user, path):
    """Write the bank of a run, of some samples in another order than the loader's."""
    order = torch.randperm(96, generator=torch.Generator().manual_seed(3)).tolist()
    loader = DataLoader(user.samples().dataset, batch_sampler=[order[:32], order[32:64]])
    bank = GramBank.from_model(net, loader, progress_bar=False)
    bank.epoch, bank.step = 4, 49
    bank.save(path)
    return bank


def test_a_checkpoint_and_a_bank_on_either_side(user, tmp_path):
    """The model of the checkpoint is shown the samples of the bank, and the layers are those of the bank."""
    nets = user.Plain(), user.Plain()
    save_plain(nets[0], tmp_path / "a.pt")
    bank = write_bank_of(nets[1], user, tmp_path / "run" / "banks" / "epoch=004-step=000049.safetensors")
    own = GramBank.from_model(nets[0], user.samples(), like=bank, progress_bar=False)
    options = ["--architecture", "nets_of_user:Plain"]
    for file in (["run", "--epoch", "4"], ["run/banks/epoch=004-step=000049.safetensors"]):
        rows = compared("a.pt", *file, *options)
        assert torch.equal(rows.matrix, compare_banks(own, bank).matrix)
        assert rows.num_samples == 64
        assert (rows.model_name, rows.reference_name) == ("Plain (a)", "Plain (run), epoch 4")
        columns = compared(file[0], "a.pt", *file[1:], *options, "--reference-name", "tuned")
        assert torch.equal(columns.matrix, compare_banks(bank, own).matrix)
        assert (columns.model_name, columns.epoch, columns.reference_name) == ("Plain (run)", 4, "tuned")


def test_the_layers_of_a_checkpoint_and_a_bank(user, tmp_path):
    """By class where a model is there, by other names, of the reference's side, and of another architecture."""
    save_plain(user.Plain(), tmp_path / "a.pt")
    bank = write_bank_of(user.Plain(), user, tmp_path / "b.safetensors")
    net, bare = ["--architecture", "nets_of_user:Plain"], ("a.pt", "b.safetensors")
    chosen = compared(*bare, *net, "--layers", "Linear", "--reference-layers", "2")
    assert (chosen.layers, chosen.reference_layers) == (("0", "2"), ("2",))
    assert compared(*bare, *net, "--layers", "0", "1").layers == ("0", "1")
    swapped = compared(*reversed(bare), *net, "--layers", "2", "--reference-layers", "0", "--pair", "2=0")
    assert list(swapped.same_named()) == ["2"]
    inside = GramBank(("net.0", "net.2"), "Wrapper", bank.sample_kind, seed=bank.seed)
    for batch in bank:
        inside.add(batch)
    inside.save(tmp_path / "c.safetensors")
    assert compared("a.pt", "c.safetensors", *net).paired().layers == {"0": "net.0", "2": "net.2"}
    save_plain(user.Net(4), tmp_path / "other.pt")
    other = compared("other.pt", "b.safetensors", "--architecture", "nets_of_user:make_net")
    assert (other.layers, other.reference_layers) == (("one", "two"), ("0", "2"))


def test_options_that_do_not_fit_a_checkpoint_and_a_bank(user, tmp_path, capsys):
    save_plain(user.Plain(), tmp_path / "a.pt")
    write_bank_of(user.Plain(), user, tmp_path / "run" / "banks" / "epoch=004-step=000049.safetensors")
    options = ["--architecture", "nets_of_user:Plain", "--dataloader", "nets_of_user:samples"]
    command = ["compare", "a.pt", "run", *options]
    for option in ("--seed", "--gram-batch-size"):
        text = fails(capsys, *command, "--epoch", "4", option, "8")
        assert f"{option} is for two checkpoints. Beside a bank, the samples are those of the bank" in text
    asked = fails(capsys, *command, lines=2)
    assert f"lightning-cka compare a.pt run {' '.join(options)} --epoch 4" in asked
    assert "no path is a folder" in fails(
        capsys, "compare", "a.pt", "run/banks/epoch=004-step=000049.safetensors", *options, "--epoch", "4"
    )
