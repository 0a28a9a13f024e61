"""Models that are made of the paths of checkpoints."""

import os
import threading

import lightning as L
import pytest
import torch
from conftest import Net, loaders, trainer
from lightning_cka.runtime.checkpoint_models import check_sources, source_name, to_model
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel


def weights_equal(model, other):
    own, others = model.state_dict(), other.state_dict()
    return own.keys() == others.keys() and all(torch.equal(own[key], others[key]) for key in own)


def test_a_module_is_returned_as_it_is():
    model = Net()
    assert to_model(model, None) is model


@pytest.mark.parametrize("as_path", [str, lambda path: path, lambda path: PathLike(path)])
def test_weights_are_loaded_into_a_copy(tmp_path, as_path):
    saved, architecture = Net(), Net()
    before = {key: value.clone() for key, value in architecture.state_dict().items()}
    torch.save(saved.state_dict(), tmp_path / "a.pt")
    made = to_model(as_path(tmp_path / "a.pt"), architecture)
    assert weights_equal(made, saved)
    assert not made.training
    assert architecture.training
    assert all(torch.equal(value, before[key]) for key, value in architecture.state_dict().items())
    assert source_name(as_path(tmp_path / "a.pt")) == "a"


class PathLike(os.PathLike):
    def __init__(self, path):
        self.path = path

    def __fspath__(self):
        return str(self.path)


def wrapped(prefix):
    return lambda state: {f"{prefix}{key}": value for key, value in state.items()}


@pytest.mark.parametrize("rename", [wrapped("module."), wrapped("_orig_mod."), wrapped("module._orig_mod."), dict])
@pytest.mark.parametrize("compiled", [False, True])
def test_files_of_wrapped_models(tmp_path, rename, compiled):
    """Saved from DDP, a compiled model, both, or neither; loaded into a model that may be compiled, too."""
    saved, model = Net().net, Net().net
    save_file(rename(saved.state_dict()), tmp_path / "a.safetensors")
    made = to_model(tmp_path / "a.safetensors", torch.compile(model, backend="eager") if compiled else model)
    x = torch.randn(5, 8)
    with torch.no_grad():
        assert torch.equal(made.eval()(x), saved.eval()(x))
        assert not torch.equal(model.eval()(x), saved(x))


def test_averaged_weights(tmp_path):
    saved = AveragedModel(nn.Linear(3, 2))
    torch.save(saved.state_dict(), tmp_path / "ema.pt")
    assert weights_equal(to_model(tmp_path / "ema.pt", AveragedModel(nn.Linear(3, 2))), saved)
    with pytest.raises(ValueError, match=r"^model: checkpoint 'ema.pt' has another .*, n_averaged.* architecture="):
        to_model(tmp_path / "ema.pt", nn.Linear(3, 2))


class Sized(Net):
    """Has hyperparameters, and draws random numbers when it is made."""

    def __init__(self, width: int, depth: int = 1):
        super().__init__(width)
        self.save_hyperparameters()


def test_a_lightning_class_gets_the_hyperparameters_in_the_checkpoint(tmp_path):
    saved = Sized(width=12)
    quiet = trainer(max_epochs=1)
    quiet.fit(saved, *loaders())
    quiet.save_checkpoint(tmp_path / "sized.ckpt")
    state, content = torch.get_rng_state(), (tmp_path / "sized.ckpt").read_bytes()
    made = to_model(tmp_path / "sized.ckpt", Sized)
    assert weights_equal(made, saved)
    assert made.hparams.width == 12
    assert torch.equal(torch.get_rng_state(), state)
    assert (tmp_path / "sized.ckpt").read_bytes() == content
    torch.save(saved.state_dict(), tmp_path / "plain.pt")
    with pytest.raises(
        ValueError,
        match=r"^reference: Sized cannot be made for checkpoint 'plain.pt' \(TypeError: .*'width'\). Pass a module as "
        r"architecture=, such as architecture=Sized\(...\)",
    ):
        to_model(tmp_path / "plain.pt", Sized, "reference")


def test_a_class_without_arguments(tmp_path):
    saved = Net()
    torch.save({"state_dict": saved.state_dict()}, tmp_path / "a.pt")
    for architecture in (Net, type("Other", (Net,), {})):
        made = to_model(tmp_path / "a.pt", architecture)
        assert type(made) is architecture
        assert weights_equal(made, saved)
    with pytest.raises(ValueError, match=r"'a.pt' has another architecture than Identity: .* Pass a module of its"):
        to_model(tmp_path / "a.pt", nn.Identity)


class Runs:
    """Runs code when it is unpickled."""

    ran = False

    def __reduce__(self):
        return _run, ()


def _run():
    Runs.ran = True


@pytest.mark.parametrize("architecture", [Net, Net()])
def test_no_code_in_a_file_is_run(tmp_path, architecture):
    content = {"state_dict": Net().state_dict(), "pytorch-lightning_version": L.__version__, "hyper_parameters": Runs()}
    torch.save(content, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=r"model: checkpoint 'a.ckpt' holds Python objects besides tensors"):
        to_model(tmp_path / "a.ckpt", architecture)
    assert not Runs.ran


def test_models_that_cannot_be_made(tmp_path):
    torch.save(nn.Linear(3, 2).state_dict(), tmp_path / "a.pt")
    with pytest.raises(ValueError, match="model is a path: pass architecture=, a module of the checkpoint's class"):
        to_model(tmp_path / "a.pt", None)
    locked = nn.Linear(3, 2)
    locked.lock = threading.Lock()
    with pytest.raises(ValueError, match=r"cannot be copied .*\. Load the checkpoint yourself, and pass the module"):
        to_model(tmp_path / "a.pt", locked)
    with pytest.raises(ValueError, match="LazyLinear has lazy modules"):
        to_model(tmp_path / "a.pt", nn.LazyLinear(2))


@pytest.mark.parametrize(
    ("sources", "architecture", "error", "message"),
    [
        ({"model": "none.ckpt"}, Net, FileNotFoundError, "model: there is no checkpoint 'none.ckpt'"),
        ({"model": Net}, None, TypeError, r"model must be a module \(an instance, not a class\) or the path"),
        ({"model": Net(), "reference": 3}, None, TypeError, "reference must be a module .* but is 3"),
        ({"model": Net()}, Net, ValueError, "architecture is for checkpoints .*, but model is a module"),
        (
            {"model": Net(), "reference": Net()},
            Net(),
            ValueError,
            "architecture is for checkpoints .*, but model and reference are modules",
        ),
        ({"model": __file__}, "Net", TypeError, "architecture must be a module or a class of modules, but is 'Net'"),
        ({"model": __file__}, dict, TypeError, "architecture must be a module or a class"),
    ],
)
def test_sources_are_checked_before_anything_is_loaded(sources, architecture, error, message):
    with pytest.raises(error, match=message):
        check_sources(sources, architecture)
