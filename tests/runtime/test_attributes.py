"""What a forward pass writes to attributes of modules is taken back."""

import os
import random
import threading
import types
from collections import OrderedDict, defaultdict, deque
from dataclasses import dataclass, field
from functools import partial
from itertools import count, cycle
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from lightning_cka.runtime import bounded_copies
from lightning_cka.runtime.attribute_tables import HOOKS
from lightning_cka.runtime.attributes import AttributeSnapshot
from lightning_cka.runtime.iterators import copied_iterator
from torch import nn
from torch.utils.data import DataLoader, Dataset

random_choices = types.ModuleType("random_choices")  # A module of the user's own.
random_choices.LAST = 0
CALLS = 0
MEMORY: dict = {}
GENERATOR = torch.Generator().manual_seed(0)
NUMBERS = count()


def helper():
    """A function that only the code of another function names."""
    MEMORY["helper"] = MEMORY.get("helper", 0) + 1


def with_memory(x, memory=[], *, more={}):  # noqa: B006  # People write this.
    memory.append(x)
    more[len(more)] = x
    with_memory.last = x


def make_counter():
    calls, steps = 0, []

    def step():
        nonlocal calls
        calls += 1
        steps.append(calls)
        return calls, len(steps)

    return step


@dataclass
class State:
    count: int = 0
    history: list = field(default_factory=list)

    def step(self):
        self.count += 1


class Anneal:
    """A callable object with slots."""

    __slots__ = ("calls", "later")

    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        self.later = 1


class Helper:
    made = 0

    def __init__(self):
        Helper.made += 1


class Owner(nn.Module):
    total = 0
    shared: ClassVar = []

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(2, 2)
        self.calls = 0
        self.values = [1, [2, 3]]
        self.table = {"a": {"b": [1]}}
        self.ordered = OrderedDict(x=1, y=2)
        self.counts = defaultdict(list)
        self.recent = deque([1, 2], maxlen=2)
        self.names = {"one"}
        self.pair = ([1], {"k": 1})
        self.state = State()
        self.cache = torch.ones(3)
        self.array = np.ones(3)
        self.torch_rng = torch.Generator().manual_seed(0)
        self.numpy_rng = np.random.default_rng(0)
        self.old_numpy_rng = np.random.RandomState(0)
        self.python_rng = random.Random(0)
        self.hidden = [nn.BatchNorm1d(2)]
        self.anneal = Anneal()
        self.step = State().step
        self.partial = partial(State().step)
        self.missing = torch.tensor([float("nan"), 0.0])
        self.repeated = torch.arange(3.0).expand(2, 3)
        self.counter = make_counter()
        self.numbers, self.choices, self.pair_of_iterators = count(), cycle("abc"), [iter([1, 2, 3]), count()]
        steps = []
        self.net.register_forward_hook(lambda *_: steps.append(1))
        self.hook_steps = lambda: len(steps)
        self.once = self.net.register_forward_hook(lambda *_: self.once.remove())

    def forward(self):
        """Name what the changes below write to."""
        global CALLS
        CALLS += 1
        torch.rand(1, generator=GENERATOR)
        return self._step(), with_memory, helper, Helper, next(NUMBERS)

    def _step(self):
        return random_choices.LAST


CHANGES = {
    "a counter": lambda m: setattr(m, "calls", 7),
    "a new attribute": lambda m: setattr(m, "last", 1),
    "an attribute that is deleted": lambda m: delattr(m, "calls"),
    "a list": lambda m: m.values.append(4),
    "a nested list": lambda m: m.values[1].append(4),
    "a nested dict": lambda m: m.table["a"]["b"].append(2),
    "a dict key": lambda m: m.table.update(c=1),
    "the order of a dict": lambda m: m.ordered.move_to_end("x"),
    "a defaultdict": lambda m: m.counts["x"].append(1),
    "a deque": lambda m: m.recent.append(3),
    "a set": lambda m: m.names.add("two"),
    "a container in a tuple": lambda m: m.pair[0].append(2),
    "an object": lambda m: setattr(m.state, "count", 5),
    "a list in an object": lambda m: m.state.history.append(1),
    "a tensor in place": lambda m: m.cache.mul_(2),
    "a tensor that is replaced": lambda m: setattr(m, "cache", torch.zeros(3)),
    "an array in place": lambda m: m.array.__imul__(2),
    "a torch generator": lambda m: torch.rand(1, generator=m.torch_rng),
    "a numpy generator": lambda m: m.numpy_rng.random(),
    "an old numpy generator": lambda m: m.old_numpy_rng.rand(),
    "a python generator": lambda m: m.python_rng.random(),
    "a module that a list hides": lambda m: m.hidden[0](torch.randn(4, 2)),
    "a submodule": lambda m: m.add_module("more", nn.Linear(1, 1)),
    "a callable object with slots": lambda m: m.anneal(),
    "the object of a bound method": lambda m: m.step(),
    "the object of a partial function": lambda m: m.partial(),
    "an attribute of the class": lambda m: setattr(Owner, "total", 1),
    "a new attribute of the class": lambda m: setattr(Owner, "late", 1),
    "a list of the class": lambda m: m.shared.append(1),
    "the memory of a tensor": lambda m: setattr(m.cache, "data", m.net.weight.data),
    "the shape of a tensor": lambda m: m.cache.resize_(5).zero_(),
    "a tensor that repeats its entries": lambda m: m.repeated[0].mul_(2),
    "the sign of a zero": lambda m: m.missing[1].neg_(),
    "a new parameter": lambda m: setattr(m, "more", nn.Parameter(torch.ones(1))),
    "an attribute of a submodule": lambda m: setattr(m.net, "calls", 1),
    "a global name": lambda m: globals().update(CALLS=1),
    "a global dict, through another function": lambda m: helper(),
    "a global generator": lambda m: torch.rand(1, generator=GENERATOR),
    "a global iterator": lambda m: next(NUMBERS),
    "an attribute of a module of Python": lambda m: setattr(random_choices, "LAST", 1),
    "a class that is used": lambda m: Helper(),
    "defaults and attributes of a function": lambda m: with_memory(1),
    "a closure": lambda m: m.counter(),
    "a hook's closure, and a hook that removes itself": lambda m: m.net(torch.zeros(1, 2)),
    "a hook that is added": lambda m: m.net.register_forward_pre_hook(lambda *_: None),
    "a gradient hook that is added": lambda m: m.net.register_full_backward_hook(lambda *_: None),
    "a counting iterator": lambda m: next(m.numbers),
    "a cycle, round its end": lambda m: [next(m.choices) for _ in range(5)],
    "iterators in a list": lambda m: [next(each) for each in m.pair_of_iterators],
}


def content(module):
    """All that `Owner` holds, as text."""
    return repr(
        [
            [sorted(name for name in vars(part) if "hook" not in name) for part in module.modules()],
            [getattr(module, name, None) for name in ("calls", "values", "table", "ordered", "counts", "recent")],
            [module.names, module.pair, module.state, module.cache, module.array],
            module.torch_rng.get_state().tolist(),
            module.numpy_rng.bit_generator.state,
            module.old_numpy_rng.get_state()[1].tolist(),
            module.old_numpy_rng.get_state()[2],
            module.python_rng.getstate(),
            module.hidden[0].state_dict(),
            list(module._modules),
            list(module._parameters),
            [module.anneal.calls, hasattr(module.anneal, "later"), module.step.__self__, module.partial.func.__self__],
            [Owner.total, Owner.shared, hasattr(Owner, "late"), module.missing, module.net.weight],
            module.repeated,
            [CALLS, MEMORY, GENERATOR.get_state().tolist(), NUMBERS, random_choices.LAST, Helper.made],
            [with_memory.__defaults__, with_memory.__kwdefaults__, vars(with_memory), module.hook_steps()],
            [cell.cell_contents for cell in module.counter.__closure__],
            [list(vars(module.net)[name]) for name in sorted(HOOKS)],
            [module.numbers, copied_iterator(module.choices).__next__(), list(map(repr, module.pair_of_iterators))[1:]],
            list(copied_iterator(module.pair_of_iterators[0])),
        ]
    )


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_is_taken_back_in_place(change):
    module = Owner()
    before, kept = content(module), [module.values, module.table, module.state, module.cache]
    snapshot = AttributeSnapshot(module.modules())
    change(module)
    assert content(module) != before
    snapshot.restore()
    assert content(module) == before
    assert list(map(id, kept)) == list(map(id, [module.values, module.table, module.state, module.cache]))


def test_cycles_and_shared_containers():
    module = Owner()
    module.values.append(module.values)
    module.also = module.table
    snapshot = AttributeSnapshot(module.modules())
    module.also["new"] = 1
    snapshot.restore()
    assert module.table is module.also
    assert "new" not in module.table


def test_values_of_parameters_are_left_alone():
    module = Owner()
    snapshot = AttributeSnapshot(module.modules())
    with torch.no_grad():
        module.net.weight.fill_(3)
    snapshot.restore()
    assert (module.net.weight == 3).all()


class Data(Dataset):
    def __init__(self):
        self.reads = 0

    def __len__(self):
        return 10**9


def test_objects_of_frameworks_are_left_alone():
    module = Owner()
    module.data, module.lock, module.file = Data(), threading.Lock(), Path(os.devnull).open()  # noqa: SIM115
    module.loader, module.module = DataLoader(module.data), os
    module.optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    snapshot = AttributeSnapshot(module.modules())
    module.data.reads = 3
    module.optimizer.param_groups[0]["lr"] = 0.2
    snapshot.restore()
    module.file.close()
    assert module.data.reads == 3
    assert module.optimizer.param_groups[0]["lr"] == 0.2


def test_long_containers_are_restored_quickly():
    module = Owner()
    module.numbers, module.states = list(range(10**6)), [State() for _ in range(20_000)]
    snapshot = AttributeSnapshot(module.modules())
    assert len(snapshot._alive) < 100
    module.numbers.append(1)
    module.states.pop()
    snapshot.restore()
    assert (len(module.numbers), len(module.states)) == (10**6, 20_000)


@pytest.mark.parametrize("change", [lambda m: m.array.__imul__(2), lambda m: m.sparse.mul_(2)])
def test_what_cannot_be_copied_is_watched(monkeypatch, change):
    monkeypatch.setattr(bounded_copies, "MAX_COPIED_BYTES", 8)
    module = Owner()
    module.sparse = torch.eye(3).to_sparse()
    snapshot = AttributeSnapshot(module.modules())
    assert snapshot.changed_large_tensors() == []
    change(module)
    assert len(snapshot.changed_large_tensors()) == 1


def test_a_large_tensor_is_watched_and_not_copied(monkeypatch):
    monkeypatch.setattr(bounded_copies, "MAX_COPIED_BYTES", 8)
    module = Owner()
    snapshot = AttributeSnapshot(module.modules())
    assert snapshot.changed_large_tensors() == []
    module.cache.mul_(2)
    assert snapshot.changed_large_tensors() == ["Owner.cache"]


def test_hooks_that_frameworks_add_stay():
    """FSDP2 adds some in its first forward pass. Without them, it cannot save a checkpoint."""

    def of_framework(*_):
        pass

    of_framework.__module__ = "torch.distributed.fsdp"
    net = nn.Linear(2, 2)
    snapshot = AttributeSnapshot(net.modules())
    net.register_forward_hook(lambda *_: None)
    for hook in (of_framework, partial(of_framework, 1)):
        net.register_state_dict_pre_hook(hook)
        net.register_forward_pre_hook(hook)
    snapshot.restore()
    assert list(net._forward_hooks) == []
    assert len(net._state_dict_pre_hooks) == len(net._forward_pre_hooks) == 2
