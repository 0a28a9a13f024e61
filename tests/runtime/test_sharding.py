"""Sharded models are recognised, and get other weights for a while."""

import pytest
import torch
from lightning_cka.runtime.sharding import fsdp_modules, is_resharded, is_sharded, temporary_weights
from torch import nn


class FSDPModule:
    """`fully_shard` makes a module an instance of a class of this name."""


class Sharded(FSDPModule, nn.Linear):
    calls = ()

    def reshard(self):
        self.calls += ("reshard",)

    def unshard(self):
        self.calls += ("unshard",)


def test_sharded_models_are_recognised_by_their_modules():
    plain, sharded = nn.Sequential(nn.Linear(3, 2)), nn.Sequential(Sharded(3, 2), nn.Linear(2, 2))
    assert not is_sharded(plain)
    assert is_sharded(sharded)
    assert fsdp_modules(sharded) == [sharded[0]]
    assert not is_resharded(sharded[0])  # Its parameters are no DTensors.


@pytest.mark.parametrize("fail", [False, True])
def test_other_weights_are_loaded_and_the_own_ones_restored(fail):
    model, other = nn.Sequential(Sharded(3, 2), nn.BatchNorm1d(2)), nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    own = {name: value.clone() for name, value in model.state_dict().items()}
    weights = {f"_orig_mod.{name}": value for name, value in other.state_dict().items()}

    def run():
        with temporary_weights(model, weights) as loaded:
            assert loaded is model
            assert torch.equal(loaded[0].weight, other[0].weight)
            loaded[1].running_mean += 1
            if fail:
                raise RuntimeError("inside")

    if fail:
        with pytest.raises(RuntimeError, match="inside"):
            run()
    else:
        run()
    assert all(torch.equal(value, own[name]) for name, value in model.state_dict().items())
    assert model[0].calls == ("reshard", "reshard", "unshard")  # It was gathered, and is gathered again.
