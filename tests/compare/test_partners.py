"""Each layer has a partner."""

from lightning_cka.compare.partners import partners


def pairs(layers, reference_layers):
    return list(zip(*partners(layers, reference_layers), strict=True))


def test_layers_of_the_same_name_are_partners():
    assert pairs("abc", "abc") == [(0, 0), (1, 1), (2, 2)]
    assert pairs("abc", "cab") == [(0, 1), (1, 2), (2, 0)]


def test_other_layers_have_the_partner_at_the_same_depth():
    assert pairs("abcde", "xyz") == [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2)]
    assert pairs("ab", "vwxyz") == [(0, 0), (0, 1), (0, 2), (1, 3), (1, 4)]
    assert pairs("a", "xyz") == [(0, 0), (0, 1), (0, 2)]
    assert pairs("ab", "xb") == [(0, 0), (1, 1)]


def test_a_model_with_itself_has_the_next_layer():
    assert pairs("abc", None) == [(0, 1), (1, 2), (2, 1)]
    assert pairs("a", None) == [(0, 0)]
    assert pairs("", None) == []
