"""Copies of models, and weights of checkpoints."""

import pytest
import torch
from conftest import Net
from lightning_cka.runtime.weights import detached_copy, read_weights
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


def test_a_model_that_cannot_be_copied_is_named():
    model = nn.Linear(3, 2)
    model.generator = (number for number in range(3))
    with pytest.raises(ValueError, match=r"Linear cannot be copied \(TypeError: cannot pickle 'generator' object\)"):
        detached_copy(model)


class Forwards(nn.Module):
    """A wrapper as people write it: it passes attributes on."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)


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
