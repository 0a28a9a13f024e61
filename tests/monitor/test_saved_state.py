"""A checkpoint whose state of the monitor is damaged, hostile or of another version never stops a run."""

import copy
import shutil

import pytest
import torch
from conftest import Net, loaders, trainer
from damage import STRANGE, nested, with_random_changes
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning_cka import CKAMonitor
from lightning_cka.monitor.saved_state import read_state

pytestmark = [
    pytest.mark.usefixtures("_without_figures"),
    pytest.mark.filterwarnings(
        "ignore:CKA( with '.*')?. layers (that|whose)", "ignore:(training goes|The dirpath has)"
    ),
]
KEY = "CKAMonitor{'prefix': 'cka/', 'names': ['initial', 'previous']}"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two epochs: its folder, and the state in its last checkpoint."""
    folder = tmp_path_factory.mktemp("run")
    fit(folder, 2)
    checkpoint = torch.load(folder / "epoch=1.ckpt", weights_only=True)
    (state,) = [state for key, state in checkpoint["callbacks"].items() if key == KEY]
    return folder, state


def fit(folder, max_epochs, resume=None):
    monitor = CKAMonitor(["initial", "previous"], dirpath=folder / "cka", num_samples=64, batch_size=16)
    saver = ModelCheckpoint(folder, "{epoch}", save_top_k=-1)
    used = trainer(monitor, saver, max_epochs=max_epochs, enable_checkpointing=True, default_root_dir=folder)
    used.fit(Net(), *loaders(), ckpt_path=resume)
    return monitor


def read(state, key=KEY):
    return read_state({"callbacks": {"Other": 1, key: state}}, "CKAMonitor", KEY, "cka/")


def assert_unusable(state):
    checkpoint = {"callbacks": {KEY: state}}
    with pytest.warns(
        UserWarning, match="the CKA state in the checkpoint cannot be used: .*restart from the current weights"
    ) as caught:
        assert read_state(checkpoint, "CKAMonitor", KEY, "cka/") == {}
    assert len(caught) == 1
    assert len(str(caught[0].message)) <= 300
    assert "\n" not in str(caught[0].message)
    assert checkpoint == {"callbacks": {KEY: {}}}


def test_an_honest_state_is_used_without_a_warning(run):
    state = read(copy.deepcopy(run[1]))
    assert state["banks"] == run[1]["banks"]
    assert state["journal"] == run[1]["journal"] != {}  # The results are in files, which the journal lists.
    assert state["last"][0] == 1
    assert read({}) == {}
    assert read_state({}, "CKAMonitor", KEY, "cka/") == {}


def cyclic():
    value = {"log_key_prefix": "cka/"}
    value["results"] = value
    return value


class Rude:
    """It has no behaviour that can be used."""

    def __getattr__(self, name):
        raise OverflowError(name)

    def __eq__(self, other):
        raise RuntimeError

    __hash__ = None


@pytest.mark.parametrize(
    "state",
    [
        *(value for value in STRANGE if value != {}),
        torch.zeros(3),
        nested(100_000),
        b"x",
        {1: 2, None: 3},
        {"log_key_prefix": torch.zeros(2)},
        cyclic(),
        Rude(),
        {"log_key_prefix": "cka/", "folder": Rude()},
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_state_of_any_type_gives_one_warning(state):
    checkpoint = {"callbacks": {KEY: state}}
    with pytest.warns(UserWarning, match="cannot be used: .*restart from the current weights"):
        assert read_state(checkpoint, "CKAMonitor", KEY, "cka/") == {}
    assert checkpoint == {"callbacks": {KEY: {}}}


@pytest.mark.filterwarnings("ignore:the CKA state in the checkpoint")
@pytest.mark.parametrize("has_checksum", [True, False])
def test_random_changes_are_refused_or_change_nothing(run, has_checksum):
    state = copy.deepcopy(run[1])
    if not has_checksum:
        del state["checksum"]
    state["banks"] = {}  # They are checked against their files.
    for part in (each for history in state["results"].values() for each in history):
        part["matrix"], part["standard_error"] = part["matrix"].tolist(), part["standard_error"].tolist()
    expected = read(copy.deepcopy(state))
    refused = 0
    for changed in with_random_changes(state, 300):
        if not isinstance(changed, dict) or not changed:
            continue
        found = read(changed)
        refused += not found
        skipped = ("banks", "format_version", "package_version", "checksum")
        if found and has_checksum:
            assert {k: v for k, v in found.items() if k not in skipped} == {
                k: v for k, v in expected.items() if k not in skipped
            }
    assert refused > 100


@pytest.mark.parametrize(
    "record",
    [
        {"path": "/etc/passwd"},
        {"path": "/x/banks/../initial.safetensors"},
        {"path": "/x/other.safetensors"},
        {"path": "/x/banks/initial.safetensors\x00"},
        {"path": 1},
        {"digest": None},
    ],
)
def test_records_of_banks_that_name_other_files(run, record):
    state = copy.deepcopy(run[1])
    state["banks"]["initial"] |= record
    assert_unusable(state)


@pytest.mark.parametrize("name", ["../../x", "/abs/x", "..", "", "x" * 300, "initial/../x", "epoch=000-step=000001\n"])
def test_names_of_banks_that_are_no_moments(run, name):
    state = copy.deepcopy(run[1])
    state["banks"][name] = {"path": f"/x/banks/{name}.safetensors", "digest": "0"}
    assert_unusable(state)
    state = copy.deepcopy(run[1])
    state["references"]["initial"]["snapshot"] = name
    state["checksum"] = None
    assert_unusable(state)


def test_a_state_of_a_later_version_is_used_with_a_warning(run):
    state = copy.deepcopy(run[1]) | {"format_version": 2, "package_version": "9.9", "later": [1]}
    state["references"]["initial"]["rank"] = 3
    unknown = r"written by lightning_cka 9\.9: unknown fields are ignored: later, references"
    with pytest.warns(UserWarning, match=unknown):
        found = read(state)
    assert found["journal"] == run[1]["journal"]


@pytest.mark.parametrize("damage", ["type", "nested", "number", "path"])
def test_training_resumes_from_a_checkpoint_whose_state_cannot_be_used(run, tmp_path, damage):
    folder = tmp_path / "inside" / "run"
    shutil.copytree(run[0], folder)
    outside = tmp_path / "inside" / "secret.safetensors"
    outside.write_bytes(b"secret")
    checkpoint = torch.load(folder / "epoch=1.ckpt", weights_only=True)
    state = checkpoint["callbacks"][KEY]
    if damage == "number":
        state["journal"]["size"] += 1
    if damage == "path":
        state["banks"] = {"../../secret": {"path": str(outside), "digest": "0"}}
    checkpoint["callbacks"][KEY] = {"type": torch.zeros(3), "nested": nested(300)}.get(damage, state)
    torch.save(checkpoint, folder / "epoch=1.ckpt")
    with pytest.warns(UserWarning, match="the CKA state in the checkpoint cannot be used"):
        monitor = fit(folder, 3, folder / "epoch=1.ckpt")
    assert [result.epoch for result in monitor.results["initial"]] == [2]
    assert monitor.results["initial"][0].reference_name.startswith("initial, restarted at step")
    assert sorted(path.name for path in (tmp_path / "inside").iterdir()) == ["run", "secret.safetensors"]
    assert outside.read_bytes() == b"secret"
