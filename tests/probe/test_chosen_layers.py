"""The line that says which layers are compared."""

import warnings

import pytest
import torch
from conftest import Net, loaders, trainer
from gram_banks import ignore_few_samples, make_bank
from lightning_cka import CKAMonitor, GramBank, compare_banks, compare_models
from lightning_cka.probe.chosen_layers import in_short
from torch import nn

pytestmark = [ignore_few_samples, pytest.mark.filterwarnings("ignore:CKA( with '.*')?. layers (that|whose)")]


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.fc = nn.LayerNorm(8), nn.Linear(8, 8)

    def forward(self, x):
        return x + 0.02 * self.fc(self.norm(x)).relu()


def stack(depth=12):
    torch.manual_seed(0)
    return nn.ModuleDict({"net": nn.Sequential(*[Block() for _ in range(depth)]), "head": nn.Linear(8, 3)})


def run(model, x):
    return model["head"](model["net"](x))


def bank_of(layers, depth=12):
    batches = [torch.randn(16, 8) for _ in range(3)]
    return GramBank.from_model(stack(depth), batches, layers, forward_fn=run, progress_bar=False)


@pytest.mark.parametrize(
    ("layers", "line"),
    [
        ("net.*", "CKA of 12 layers: net.0 ... 11 (of 12 that match; 'net.**' would match 24 more)"),
        ("Block", "CKA of 12 layers: net.0 ... 11 (of 12 that match)"),
        (["Block", "!net.11", "head"], "CKA of 12 layers: net.0 ... 10, head (of 12 that match)"),
        (["net.**", "!**.fc", "!Block"], "CKA of 12 layers: net.0.norm ... net.11.norm (of 12 that match)"),
        ("head", "CKA of 1 layer: head (of 1 that match)"),
        (["net.0", nn.Linear], "CKA of 14 layers: net.0, net.0.fc ... net.11.fc, head (of 14 that match)"),
        (None, "(the default layers; layers= chooses others)"),
        ("!head", "(the default layers; layers= chooses others)"),
    ],
)
def test_one_line_tells_what_was_chosen(layers, line, caplog):
    bank = bank_of(layers)
    assert [message for message in caplog.messages if line in message and message.startswith("CKA of ")]
    assert ("head" in bank.layers) == ("head" in line or layers is None)


def test_layers_that_do_not_run_are_counted_among_those_that_match(caplog):
    model = stack(2)
    model["never"] = nn.Linear(2, 2)
    GramBank.from_model(model, [torch.randn(16, 8)], nn.Linear, forward_fn=run, progress_bar=False)
    assert "CKA of 3 layers: net.0.fc, net.1.fc, head (of 4 that match)" in caplog.messages


def test_a_pattern_that_stops_at_9_is_pointed_out():
    with pytest.warns(UserWarning, match=r"'net\.\?' leaves out net\.10, net\.11: .* 'net\.\*' takes any number"):
        assert len(bank_of("net.?").layers) == 10
    whole = bank_of("net.*")
    with pytest.warns(UserWarning, match=r"'net\.\?' leaves out net\.10, net\.11"):
        compare_banks(whole, whole, layers="net.?")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bank_of("net.?", depth=10)
        bank_of(["net.?", "net.1?"])


def test_the_reference_is_told_too(caplog):
    batches = [torch.randn(16, 8) for _ in range(3)]
    options = {"forward_fn": run, "progress_bar": False}
    compare_models(stack(), stack(3), batches, "Block", reference_layers="net.*", **options)
    assert "CKA of 12 layers: net.0 ... 11 (of 12 that match)" in caplog.messages
    line = "CKA of 3 layers of the reference: net.0 ... 2 (of 3 that match; 'net.**' would match 6 more)"
    assert line in caplog.messages


@pytest.mark.usefixtures("_blank_figures")
def test_the_monitor_tells_it_before_training(tmp_path, caplog):
    monitor = CKAMonitor(["initial", nn.Sequential(nn.Linear(8, 4))], ["net.[04]", "head"], reference_layers="Linear")
    trainer(monitor, max_epochs=1, default_root_dir=tmp_path).fit(Net(), *loaders())
    lines = [message for message in caplog.messages if message.startswith("CKA of")]
    assert lines == [
        "CKA of 3 layers: net.0, net.4, head (of 3 that match)",
        "CKA of 1 layer: 0 (of 1 that match)",
    ]


@pytest.mark.usefixtures("_blank_figures")
@pytest.mark.parametrize(("number", "is_told"), [(64, False), (65, True)])
def test_the_cost_of_many_layers_is_told(number, is_told, tmp_path, caplog):
    model = Net()
    model.net = nn.Sequential(*[Block() for _ in range(number - 1)], nn.Linear(8, 16))
    monitor = CKAMonitor("initial", "net.*")
    trainer(monitor, max_epochs=3, default_root_dir=tmp_path).fit(model, *loaders())
    told = [message for message in caplog.messages if "the pairs of 65 layers take about" in message]
    assert bool(told) == is_told
    if told:
        mebibytes = 60 * 65**2 / 2**20
        assert f"about {mebibytes:.3g} MiB of results and" in told[0]
        assert f"besides the forward passes; {3 * mebibytes:.3g} MiB and" in told[0]
        files = list(tmp_path.rglob("initial/*.json"))
        assert len(files) == 3
        assert files[0].stat().st_size / 2**20 == pytest.approx(mebibytes, rel=0.3)


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["a", "b"], "a, b"),
        (["a.0", "a.1"], "a.0, a.1"),
        (["stem", "a.0", "a.1", "a.2", "head"], "stem, a.0 ... 2, head"),
        (["a.0.x", "a.1.x", "a.2.x"], "a.0.x ... a.2.x"),
        (["0", "1", "2"], "0 ... 2"),
        (["conv1", "conv2", "conv10"], "conv1 ... 10"),
        (list("abcdefghij"), "a, b, c, d, e, f, g, h, and 2 more"),
    ],
)
def test_names_in_short(names, text):
    assert in_short(names) == text


@pytest.mark.parametrize(
    ("layers", "chosen"),
    [("b.*", ["b.c"]), (["**", "!a"], ["b.c"]), ("!b.c", ["a"]), ("**", ["a", "b.c"]), (["b.c", "a"], ["a", "b.c"])],
)
def test_banks_are_chosen_from_alike(layers, chosen):
    assert list(compare_banks(make_bank(), make_bank(2), layers=layers).layers) == chosen


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("b*", r"'b\*' matches none of the bank's layers: a, b\.c\. '\*' and '\?' stay .*write \*\*.*: 'b\*\*'"),
        (["a", "!a"], r"takes away all layers that it chooses"),
        ("!c", "'c' matches none"),
        (nn.Linear, "A bank knows the names of layers, not their classes"),
    ],
)
def test_bad_choices_from_banks(layers, message):
    with pytest.raises(ValueError, match=message):
        compare_banks(make_bank(), make_bank(2), layers=layers)


def test_default_layers_can_be_taken_away():
    whole = bank_of(None, depth=2).layers
    assert bank_of("!head", depth=2).layers == whole[:-1]
    with pytest.raises(ValueError, match=r"all 5 default layers are taken away; choose others"):
        bank_of(["!**"], depth=2)
