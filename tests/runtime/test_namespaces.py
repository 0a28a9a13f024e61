"""Callbacks and classes of both Lightning packages."""

import sys
from types import ModuleType

from lightning_cka.runtime.namespaces import class_names, join_namespaces


class Ours:
    pass


class Callback(Ours):
    pass


class Theirs:
    pass


def test_class_names_follow_the_method_resolution_order():
    assert class_names(Callback()) == ["Callback", "Ours", "object"]


def test_a_callback_joins_the_other_package_once_it_is_imported(monkeypatch):
    monkeypatch.delitem(sys.modules, "pytorch_lightning", raising=False)
    join_namespaces(Callback)
    assert Callback.__bases__ == (Ours,)
    other = ModuleType("pytorch_lightning")
    other.Callback = Theirs
    monkeypatch.setitem(sys.modules, "pytorch_lightning", other)
    for _ in range(2):
        join_namespaces(Callback)
        assert Callback.__bases__ == (Ours, Theirs)
