"""Copies of iterators are read in place of the originals."""

import itertools

import pytest
from lightning_cka.runtime.attributes import AttributeSnapshot
from lightning_cka.runtime.iterators import copied_iterator
from torch import nn

NUMBERS = [1, 2, 3, 4, 5]
ITERATORS = {
    "count": lambda: itertools.count(3, 2),
    "cycle": lambda: itertools.cycle(NUMBERS),
    "cycle of pairs": lambda: itertools.cycle(enumerate(NUMBERS)),
    "list": lambda: iter(NUMBERS),
    "tuple": lambda: iter((1, 2, 3, 4)),
    "range": lambda: iter(range(9)),
    "text": lambda: iter("abcdef"),
    "enumerate": lambda: enumerate(NUMBERS),
    "zip": lambda: zip(NUMBERS, itertools.count(), strict=False),
    "map": lambda: map(str, NUMBERS),
    "islice": lambda: itertools.islice(NUMBERS, 1, 9),
    "chain": lambda: itertools.chain(NUMBERS, NUMBERS),
    "accumulate": lambda: itertools.accumulate(NUMBERS),
    "reversed": lambda: reversed(NUMBERS),
    "product": lambda: itertools.product(NUMBERS, NUMBERS),
    "dict": lambda: iter({1: 2, 3: 4, 5: 6}),
    "tee": lambda: itertools.tee(NUMBERS)[0],
}


@pytest.mark.parametrize("position", [0, 1, 2, 7])
@pytest.mark.parametrize("make", ITERATORS.values(), ids=ITERATORS)
def test_a_copy_goes_on_and_leaves_the_original(make, position):
    original, other = make(), make()
    for iterator in (original, other):
        list(itertools.islice(iterator, position))
    copied = copied_iterator(original)
    expected = list(itertools.islice(other, 12))
    assert list(itertools.islice(copied, 12)) == expected
    assert list(itertools.islice(original, 12)) == expected


def test_two_owners_of_one_iterator_have_one_copy():
    module = nn.Module()
    module.numbers = itertools.count()
    module.listed = [module.numbers]
    original = module.numbers
    snapshot = AttributeSnapshot([module])
    assert (next(module.numbers), next(module.listed[0]), next(module.numbers)) == (0, 1, 2)
    snapshot.restore()
    assert module.numbers is module.listed[0] is original
    assert next(original) == 0


def test_generators_are_watched():
    module = nn.Module()
    module.idle, module.read = (i for i in range(9)), (i for i in range(9))
    snapshot = AttributeSnapshot([module])
    assert snapshot.advanced_generators() == []
    next(module.read)
    assert snapshot.advanced_generators() == ["Module.read"]


def test_what_cannot_be_copied_is_named():
    module = nn.Module()
    module.texts = map(str, (i for i in range(9)))
    assert AttributeSnapshot([module]).left_alone == ["the iterator Module.texts"]
