"""Items are divided into parts of about the same size."""

import pytest
from lightning_cka.hsic.even_parts import even_parts


@pytest.mark.parametrize(("count", "most"), [(50, 32), (50, 64), (50, 17), (7, 1), (1, 5), (0, 5), (64, 64), (65, 64)])
def test_even_parts_have_each_item_once_and_differ_by_at_most_one(count, most):
    parts = [range(count)[part] for part in even_parts(count, most)]
    assert [item for part in parts for item in part] == list(range(count))
    sizes = [len(part) for part in parts]
    assert len(parts) == -(-count // most)
    assert not sizes or max(sizes) <= min(most, min(sizes) + 1)


def test_a_part_has_at_least_one_item():
    assert even_parts(2, 0) == [slice(0, 1), slice(1, 2)]
