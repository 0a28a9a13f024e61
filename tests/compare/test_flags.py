"""`Thresholds` are checked before anything is computed."""

import pytest
from lightning_cka.compare.flags import Thresholds, check_thresholds
from misleading_features import compare_features, feature_pairs


def test_thresholds_of_another_type_raise():
    with pytest.raises(TypeError, match=r"thresholds must be lightning_cka.Thresholds\(...\) or None, but is 3"):
        compare_features(*feature_pairs()["healthy"], thresholds=3)


def test_no_thresholds_are_the_defaults():
    assert check_thresholds(None) == Thresholds()
