"""CKA of layers of the same name, collected over results."""

import numpy as np
import pytest
from lightning_cka.figures.layer_history import layer_history, moment_labels
from synthetic_results import history, result, settling_history


def test_values_and_bounds_are_those_of_the_results():
    results = history(count=2)
    found = layer_history(results, level=0.5)
    assert found.names == ["layer0", "layer1", "layer2"]
    for column, one in enumerate(results):
        low, high = one.confidence_interval(0.5)
        for values, matrix in ((found.values, one.matrix), (found.low, low), (found.high, high)):
            assert np.array_equal(values[:, column], matrix.diagonal().double().numpy())


def test_a_layer_that_a_result_lacks_is_nan():
    found = layer_history([result(2, 2), result(3, 3)])
    assert np.isnan(found.values).tolist() == [[False, False], [False, False], [True, False]]
    assert np.isnan(found.low).all()  # These results have no standard errors.
    with pytest.raises(ValueError, match="at least one result with layers of the same name"):
        layer_history([])


def test_settled_layers_need_a_tolerance_and_records():
    results = settling_history(layers=6)
    assert layer_history(results, tolerance=0.01).settled == [0, 1, 2, 3, None, None]
    assert layer_history(results).settled == [None] * 6
    assert layer_history(history(), tolerance=0.01).settled == [None] * 3  # These results have no records.


def test_moments_are_epochs_unless_two_results_share_one():
    assert moment_labels([result(epoch=0), result(epoch=1)]) == (["0", "1"], "epoch")
    assert moment_labels([result(epoch=0, step=3), result(epoch=0, step=6)]) == (["3", "6"], "step")
