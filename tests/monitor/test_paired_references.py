"""References with names, and references whose layers are paired with those of the live model."""

import csv
import json
import logging

import pytest
import torch
import yaml
from conftest import Net, cli_config, loaders, run_script, trainer
from fitting import fit
from lightning.pytorch.callbacks import EarlyStopping
from lightning_cka import CKAMonitor, CKAResult, compare_models
from lightning_cka.compare.pairing import Pairing

pytestmark = [
    pytest.mark.filterwarnings("ignore:(CKA|Be aware that when using `ckpt_path`):UserWarning"),
    pytest.mark.usefixtures("_blank_figures"),
]


class Wrapper(Net):
    """A live model around a backbone."""

    def __init__(self):
        super().__init__()
        self.bert, self.net = self.net, None

    def forward(self, x):
        return self.head(self.bert(x))


def backbone():
    return Net().net


MEAN = {"mean", "mean_se", "mean_lower", "mean_upper"}
LAYERS = {"layers": ["bert.*", "head"], "reference_layers": "*"}
NAMES = [f"bert.{i}" for i in range(6)]


def test_the_layers_of_a_bare_backbone_are_paired_with_those_of_its_wrapper(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    monitor = CKAMonitor({"pretrained": backbone()}, **LAYERS, dirpath=tmp_path, log_changes=True)
    _, used = fit(monitor, model=Wrapper())
    result = monitor.results["pretrained"][-1]
    assert result.pairing == Pairing({f"bert.{i}": str(i) for i in range(6)}, "names without 'bert.'")
    logged = {key: value.item() for key, value in used.callback_metrics.items() if key.startswith("cka/pretrained/")}
    for i, name in enumerate(NAMES):
        assert logged[f"cka/pretrained/{name}"] == pytest.approx(result.matrix[i, i].item(), abs=1e-6)
        assert f"cka/pretrained/{name}_change" in logged
    assert logged["cka/pretrained/mean"] == pytest.approx(result.matrix.diagonal().mean().item(), abs=1e-6)
    assert logged["cka/pretrained/mean_se"] == pytest.approx(result.mean_standard_error, abs=1e-6)
    assert "cka/pretrained/mean_all_pairs" not in logged
    assert (tmp_path / "pretrained" / "drift.png").exists()
    assert "CKA pairs 6 of 7 layers with reference 'pretrained' by names without 'bert.': bert.0 with 0," in caplog.text
    rows = list(csv.DictReader((tmp_path / "pretrained.csv").read_text().splitlines()))
    assert {(row["layer"], row["reference_layer"]) for row in rows if row["paired"] == "True"} == {
        (f"bert.{i}", str(i)) for i in range(6)
    }
    files = sorted((tmp_path / "pretrained").glob("*.json"))
    loaded = [CKAResult.load(path) for path in files]
    assert loaded[-1].pairing == result.pairing
    assert loaded[1].difference(loaded[0]).same_named_pairs() == result.same_named_pairs()


@pytest.mark.parametrize(
    ("arguments", "pairs"),
    [
        ({"layers": "bert.*"}, {f"bert.{i}": str(i) for i in range(6)}),
        ({"layers": ["bert.1", "head"]}, {"bert.1": "1"}),
        ({"layers": ["bert.1", "head"], "pair": {"head": "4"}}, {"head": "4"}),
        ({"layers": "Linear", "pair": {"head": "4", "bert.4": "4"}}, {"bert.4": "4", "head": "4"}),
        ({"layers": "ReLU", "pair": "position"}, None),
    ],
)
def test_the_layers_of_a_bare_backbone_follow_from_the_pairs(arguments, pairs):
    """A user who passes the backbone alone need not say its layers again."""
    monitor = CKAMonitor({"pretrained": backbone()}, **arguments)
    fit(monitor, model=Wrapper())
    result = monitor.results["pretrained"][-1]
    found = {result.layers[i]: result.reference_layers[j] for i, j in result.same_named_pairs().values()}
    assert found == (pairs or {name: name.removeprefix("bert.") for name in result.layers})
    assert len(result.reference_layers) == len(set(found.values()))


def test_an_error_about_a_forward_function_does_not_speak_of_layers():
    with pytest.raises(ValueError, match="pass reference_forward_fn=") as caught:
        fit(CKAMonitor(backbone(), "bert.*", forward_fn=lambda model, batch: model.bert(batch[0])), model=Wrapper())
    assert "reference_layers=" not in str(caught.value)


@pytest.mark.parametrize(
    ("pair", "pairs"),
    [("position", {"bert.0": "4", "head": "2"}), ({"head": "4"}, {"head": "4"})],
)
def test_position_and_mapping(pair, pairs):
    monitor = CKAMonitor({"x": backbone()}, ["bert.0", "head"], reference_layers=["4", "2"], pair=pair)
    _, used = fit(monitor, model=Wrapper())
    assert dict(monitor.results["x"][-1].pairing.layers) == pairs
    names = {key.removeprefix("cka/x/") for key in used.callback_metrics if key.startswith("cka/x/")}
    assert names - MEAN == {*pairs, "converged_layers"}


def test_nothing_is_paired_with_an_empty_mapping():
    monitor = CKAMonitor({"x": backbone()}, **LAYERS, pair={})
    _, used = fit(monitor, model=Wrapper())
    names = {key.removeprefix("cka/x/") for key in used.callback_metrics if key.startswith("cka/x/")}
    assert names == {name.replace("mean", "mean_all_pairs") for name in MEAN}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pair": "position"}, "reference 'x': pair='position' needs equally many layers"),
        ({"pair": {"bert.9": "1"}}, r"reference 'x': pair: 'bert.9' is no compared layer of the model; .*such as bert"),
        ({"pair": {"bert.1": "9"}}, r"reference 'x': pair: '9' is no compared layer of the reference"),
    ],
)
def test_layers_that_cannot_be_paired_raise_before_the_first_step(arguments, message):
    model = Wrapper()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        fit(CKAMonitor({"x": backbone()}, **LAYERS, **arguments), model=model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_an_argument_that_pairs_no_module_is_refused():
    with pytest.raises(ValueError, match="pair pairs the layers of a reference that is a module, but there is none"):
        CKAMonitor("initial", pair="position")
    with pytest.raises(ValueError, match="pair must be 'name', 'position' or a mapping"):
        CKAMonitor(backbone(), pair="depth")


def test_a_callback_that_monitors_a_mean_without_pairs_is_told_of_the_mean_of_all_pairs():
    stop = EarlyStopping("cka/x/mean")
    with pytest.raises(ValueError, match=r"looks for 'cka/x/mean', which CKAMonitor does not .*mean_all_pairs"):
        fit(CKAMonitor({"x": backbone()}, **LAYERS, pair={}), stop, model=Wrapper())
    fit(CKAMonitor({"x": backbone()}, **LAYERS), EarlyStopping("cka/x/bert.1", patience=9), model=Wrapper())


def test_names_are_in_keys_folders_titles_and_results(tmp_path):
    torch.save(Net().state_dict(), tmp_path / "a.ckpt")
    reference = {"pretrained": Net(), "last week": tmp_path / "a.ckpt", "start": "initial", "a/b": "previous"}
    monitor = CKAMonitor(reference, dirpath=tmp_path / "cka", layers="head")
    _, used = fit(monitor)
    titles = ["pretrained (frozen)", "last week (frozen)", "start", "a/b"]
    assert [each.title for each in monitor.references] == titles
    safe = monitor.references[3].name
    assert safe.startswith("a_b-")
    assert list(monitor.results) == ["pretrained", "last week", "start", safe]
    assert [history[-1].reference_name for history in monitor.results.values()] == titles
    for name in monitor.results:
        assert f"cka/{name}/head" in used.callback_metrics
        assert (tmp_path / "cka" / name / "drift.png").exists()


@pytest.mark.parametrize(
    ("reference", "error", "message"),
    [
        ({}, ValueError, "reference is empty; expected .* or a mapping of names"),
        ({"": "initial"}, ValueError, "a name in reference= must have letters or digits, but is ''"),
        ({" ": "initial"}, ValueError, "must have letters or digits"),
        ({3: "initial"}, TypeError, "maps names to references, but 3 is no text"),
        (
            {"diagnostics": "initial"},
            ValueError,
            "'diagnostics' in reference= is the name of a file or folder of CKAMonitor",
        ),
        ({"Trajectory": "initial"}, ValueError, "'Trajectory' in reference= is the name of a file or folder"),
        ({"earlier-1": "initial"}, ValueError, "'earlier-1' in reference= is the name of a file or folder"),
        ({"Run": "initial", "run": "previous"}, ValueError, "'Run' and 'run' in reference= are one name for some file"),
        ({"x": "unknown"}, ValueError, "unknown reference 'unknown'"),
        ({"x": ["initial"]}, TypeError, r"a reference must be a name, .*but is \['initial'\]"),
    ],
)
def test_mappings_that_cannot_be_used_are_refused(reference, error, message):
    with pytest.raises(error, match=message):
        CKAMonitor(reference)


def test_a_module_of_the_live_class_is_called_reference():
    monitor = CKAMonitor([Net(), backbone(), Net()], layers="head", reference_layers="*")
    fit(monitor)
    assert list(monitor.results) == ["reference", "Sequential", "reference-2"]
    titles = [history[-1].reference_name for history in monitor.results.values()]
    assert titles == [f"{name} (frozen)" for name in monitor.results]
    fit(monitor, model=Wrapper())
    assert list(monitor.results) == ["Net", "Sequential", "Net-2"]


def resume(first, second, tmp_path, model=Net):
    """Results after two more epochs with another monitor."""
    _, used = fit(first, model=model())
    used.save_checkpoint(tmp_path / "x.ckpt")
    trainer(second, max_epochs=4).fit(model(), *loaders(), ckpt_path=tmp_path / "x.ckpt")
    return second.results


def test_a_paired_history_goes_on_and_another_pairing_restarts_it(tmp_path):
    torch.manual_seed(0)
    net = backbone()
    first, same = (CKAMonitor({"p": net}, **LAYERS, dirpath=tmp_path / "cka") for _ in range(2))
    results = resume(first, same, tmp_path, Wrapper)
    assert [result.epoch for result in results["p"]] == [0, 1, 2, 3]
    assert {str(result.pairing) for result in results["p"]} == {str(results["p"][0].pairing)}
    other = CKAMonitor({"p": net}, **LAYERS, dirpath=tmp_path / "cka", pair={"head": "5"})
    with pytest.warns(UserWarning, match="history of 'p' restarts, .* other settings than now: reference or pair"):
        assert [result.epoch for result in resume(same, other, tmp_path, Wrapper)["p"]] == [2, 3]


@pytest.mark.parametrize("source", ["initial", "previous"])
def test_a_reference_with_a_new_name_keeps_its_bank_and_begins_a_new_history(source, tmp_path):
    first, named = CKAMonitor(source, dirpath=tmp_path / "cka"), CKAMonitor({"x": source}, dirpath=tmp_path / "cka")
    message = rf"no history of x, but of {source}\. .* begins a new history; reference=\{{'{source}': "
    with pytest.warns(UserWarning, match=message):
        results = resume(first, named, tmp_path)
    assert [(result.epoch, result.reference_name) for result in results["x"]] == [(2, "x"), (3, "x")]


def test_a_history_under_a_class_name_goes_on_if_its_name_is_given(tmp_path):
    """Earlier versions called a module of the live model's class by its class."""
    net = Net()
    first, second = (CKAMonitor({"Net": net}, dirpath=tmp_path / "cka") for _ in range(2))
    assert len(resume(first, second, tmp_path)["Net"]) == 4
    with pytest.warns(UserWarning, match=r"no history of reference, but of Net\. .*reference=\{'Net': "):
        results = resume(second, CKAMonitor(net, dirpath=tmp_path / "cka"), tmp_path)
    assert len(results["reference"]) == 2


def test_two_processes_pair_as_one_does(tmp_path):
    for devices in (1, 2):
        run_script("pairing_script.py", tmp_path, devices, '"name"')
    one, two, other = (json.loads((tmp_path / f"out-{name}.json").read_text()) for name in ("1-0", "2-0", "2-1"))
    assert one[1] == two[1] == other[1] == {f"bert.{i}": str(i) for i in range(5)}
    assert two == other
    assert {key.removeprefix("cka/pretrained/") for key in two[0]} >= {"mean", "mean_se", *one[1]}
    for key, value in one[0].items():
        assert two[0][key] == pytest.approx(value, abs=1e-9)
    assert two[2] == pytest.approx(one[2], abs=1e-9)


def test_two_processes_raise_together(tmp_path):
    failed = run_script("pairing_script.py", tmp_path, 2, '{"bert.9": "0"}', check=False)
    assert failed.returncode != 0
    assert "pair: 'bert.9' is no compared layer of the model" in failed.stderr
    assert not list(tmp_path.glob("out-*"))


def test_names_come_from_yaml(tmp_path):
    (tmp_path / "c.yaml").write_text(
        cli_config(
            reference={"start": "initial", "at the end": 0}, layers=["first", "sec*"], num_samples=64, dirpath="cka"
        )
    )
    run_script("cli_script.py", tmp_path, "lightning.pytorch", "fit", "--config", "c.yaml")
    assert list(json.loads((tmp_path / "lightning.pytorch.json").read_text())) == ["start", "at the end"]
    saved = yaml.safe_load((tmp_path / "config.yaml").read_text())["trainer"]["callbacks"][0]["init_args"]
    assert saved["reference"] == {"start": "initial", "at the end": 0}  # So that it can be read again.


def test_a_bert_is_paired_with_the_backbone_that_a_classifier_wraps():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=16, hidden_size=8, num_hidden_layers=3, num_attention_heads=2, intermediate_size=8
    )
    backbone = transformers.BertModel(config)
    model = transformers.BertForSequenceClassification(config)
    model.bert.load_state_dict(backbone.state_dict(), strict=False)
    batches = [{"input_ids": torch.randint(0, 16, (16, 5))} for _ in range(4)]
    result = compare_models(
        model, backbone, batches, ["BertLayer", "classifier"], reference_layers="BertLayer", feature_fn="cls",
        progress_bar=False,
    )  # fmt: skip
    layers = [f"encoder.layer.{i}" for i in range(3)]
    assert result.pairing == Pairing({f"bert.{name}": name for name in layers}, "names without 'bert.'")
    assert result.mean() == pytest.approx(1, abs=1e-5)
