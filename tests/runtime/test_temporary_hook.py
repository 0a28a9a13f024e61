"""Copies and pickles of a model do not have the hooks of this package."""

import copy
import pickle
import threading

import pytest
import torch
from lightning_cka.runtime.temporary_hook import TemporaryHook
from torch import nn


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_the_hook_of_a_copy_does_nothing(copied):
    lock, outputs, model = threading.Lock(), [], nn.Sequential(nn.Linear(3, 2))

    def add(output):
        with lock:
            outputs.append(output)

    model[0].register_forward_hook(TemporaryHook(add))
    duplicate = copied(model)
    output = duplicate(torch.ones(1, 3))
    assert outputs == []
    assert torch.equal(model(torch.ones(1, 3)), output)
    assert len(outputs) == 1
