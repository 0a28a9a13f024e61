"""The flag of layers about which CKA and the second opinions tell different stories."""

import re
import warnings

import pytest
import torch
from gram_banks import bank_of_features
from lightning_cka import Thresholds, compare_banks
from lightning_cka.compare.flag_messages import flag_label, flag_messages
from misleading_features import compare_features

pytestmark = pytest.mark.filterwarnings("ignore:CKA. layers about which second opinions")
ONLY = Thresholds(**(vars(Thresholds.off()) | {"disagreement": 0.1}))
CLASS = torch.arange(1024) % 10 == 3


def features():
    """Correlated features of 1024 samples, and a large shift."""
    torch.manual_seed(0)
    x = torch.randn(1024, 32) @ torch.randn(32, 64)
    shift = torch.randn(64)
    return x.relu(), 10 * x.std(0).norm() * shift / shift.norm()


def changed(kind):
    """Features, and the same ones changed as in the table of the guide."""
    x, shift = features()
    along = torch.randn(1024, 1)
    if kind == "a class moved":
        return x, x + 3 * x.std(0) * CLASS[:, None]
    if kind == "a class moved far":
        return x, x + 30 * x.std(0) * CLASS[:, None]
    if kind == "half of the samples moved":
        return x, x + shift * (torch.rand(1024, 1) < 0.5)
    if kind == "an outlier":
        return x, torch.where((torch.arange(1024) == 37)[:, None], 100 * x, x)
    return x + along * shift, torch.randn(1024, 64) * x.std(0) + along * shift


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize(
    "kind", ["a class moved", "a class moved far", "half of the samples moved", "an outlier", "a shared direction"]
)
@pytest.mark.parametrize("batch_size", [64, 256])
def test_changes_that_cka_exaggerates_or_hides_are_flagged_with_their_samples(kind, swap, batch_size):
    x, y = changed(kind)
    result = compare_features(*((y, x) if swap else (x, y)), batch_size, thresholds=ONLY)
    (flag,) = result.flags
    assert flag.reason == "disagreement"
    label = flag_label(flag, "dataset index")
    if kind == "a shared direction":
        assert flag.value < -0.6
        assert len(flag.samples) == 6
        assert "all but one direction changed: ridge CKA is" in label
        return
    assert flag.value > 0.1
    assert "less changed than CKA says: mutual kNN is" in label
    if kind == "an outlier":
        assert flag.samples == (37,)
        assert "cause: the outlier dataset index 37" in label
    elif kind.startswith("a class"):
        assert CLASS[list(flag.samples)].all()
        assert re.search(r"cause: samples that moved, such as dataset index \d+, \d+", label)


def test_the_value_is_that_of_the_measures_on_batches_of_64():
    x, y = changed("a class moved")
    results = compare_banks(
        *(bank_of_features([[part] for part in z.split(64)]) for z in (x, y)),
        measures=["cka", "mutual_knn"],
        thresholds=ONLY,
    )
    gap = results["mutual_knn"].matrix - results["cka"].matrix
    assert results["cka"].flags[0].value == pytest.approx(gap.item(), abs=1e-6)
    assert results["mutual_knn"].flags == ()


def test_layers_that_changed_as_cka_says_are_not_flagged():
    torch.manual_seed(1)
    x, _ = features()
    for noise in (0.0, 0.3, 1.0, 3.0, 100.0):
        other = x + noise * x.std(0) * torch.randn_like(x)
        assert compare_features(x, other, 64, thresholds=ONLY).flags == ()


def test_a_model_with_itself_and_layers_of_other_names_have_no_such_flag():
    x, y = (z.split(64) for z in changed("a class moved"))
    both = bank_of_features(list(zip(x, y, strict=True)), ("a", "b"))
    assert compare_banks(both, both, thresholds=ONLY).flags == ()
    one, other = bank_of_features([[z] for z in x], ("a",)), bank_of_features([[z] for z in y], ("b",))
    assert compare_banks(one, other, reference_layers="b", thresholds=ONLY).flags == ()


def test_the_message_says_what_to_do_and_a_threshold_switches_it_off():
    x, y = changed("an outlier")
    warnings.simplefilter("default")
    with pytest.warns(UserWarning, match="second opinions tell another story than CKA: a .*measures=") as caught:
        result = compare_features(x, y, 64, thresholds=ONLY)
    assert len(caught) == 1
    assert "plot_samples" in flag_messages(result.flags, "sample", result)[0]
    assert compare_features(x, y, 64, thresholds=Thresholds.off()).flags == ()
