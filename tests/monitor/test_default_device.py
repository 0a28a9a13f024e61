"""The default device and the default dtype of torch do not reach the package's own tensors and generators."""

from contextlib import contextmanager

import lightning as L
import pytest
import torch
from conftest import Net, dataset, loaders, quietly
from lightning_cka import CKAMonitor, CKAResult, GramBank, MinibatchCKA, compare_banks, compare_models, trajectories
from lightning_cka.probe.seeded_sampling import draw_probe_set
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)
from torch.utils.data.distributed import DistributedSampler
from training import MARKS, run

pytestmark = [
    *MARKS,
    pytest.mark.filterwarnings("ignore:the probe set consists of the first samples"),
    pytest.mark.filterwarnings("ignore:CKA"),
]


@contextmanager
def default_device(name):
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def default_dtype(dtype):
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


DEFAULTS = {
    "meta": (default_device, "meta"),
    "float64": (default_dtype, torch.float64),
    "bfloat16": (default_dtype, torch.bfloat16),
}
"""A tensor on the device "meta" has no values: reading one raises an error."""

every_default = pytest.mark.parametrize("default", DEFAULTS)


def under(default):
    enter, value = DEFAULTS[default]
    return enter(value)


def same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        expected = other[name]
        if isinstance(value, torch.Tensor):
            assert (value.device, value.dtype) == (expected.device, expected.dtype), name
            assert torch.equal(value.nan_to_num(7), expected.nan_to_num(7)), name
        else:
            assert value == expected, name


SAMPLES = TensorDataset(torch.randn(96, 8, generator=torch.Generator().manual_seed(0)))


class Stream(IterableDataset):
    def __init__(self, samples):
        self.samples = samples

    def __iter__(self):
        return (self.samples[i] for i in range(96))


def sampled(samples):
    """Return loaders whose samples are found in different ways."""
    return {
        "shuffled": DataLoader(samples, 16, shuffle=True),
        "subset": DataLoader(samples, 16, sampler=SubsetRandomSampler(range(10, 90))),
        "replacement": DataLoader(samples, 16, sampler=RandomSampler(samples, replacement=True, num_samples=80)),
        "weighted": DataLoader(samples, 16, sampler=WeightedRandomSampler([1.0] * 48 + [0.0] * 48, 200)),
        "batches": DataLoader(samples, batch_sampler=BatchSampler(RandomSampler(samples), 16, drop_last=False)),
        "share": DataLoader(samples, 16, sampler=DistributedSampler(samples, num_replicas=2, rank=0, shuffle=False)),
        "stream": DataLoader(Stream(samples), 16),
        "list": [samples[i : i + 16] for i in range(0, 96, 16)],
    }


SAMPLED = sampled(SAMPLES)


def drawn():
    outcome = {}
    for name, loader in SAMPLED.items():
        probe = draw_probe_set(loader, num_samples=64)
        for batch in probe.batches():
            outcome[f"{name} {batch.index}"] = batch.data[0]
            outcome[f"{name} {batch.index} numbers"] = batch.samples
    return outcome


@every_default
def test_probe_sets(default):
    expected = drawn()
    with under(default):
        same(drawn(), expected)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_workers(num_workers):
    loader = DataLoader(SAMPLES, 16, num_workers=num_workers)
    expected = [batch.data[0] for batch in draw_probe_set(loader).batches()]
    with default_device("meta"):
        found = [batch.data[0] for batch in draw_probe_set(loader).batches()]
    assert all(map(torch.equal, found, expected))
    assert len(found) == len(expected) == 8


def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).eval()


def comparisons(model, other, samples, folder):
    outcome = {}
    bad = samples.tensors[0].clone()
    bad[3, 2] = torch.nan
    cases = [
        *((name, loader, "linear", True) for name, loader in SAMPLED.items()),
        *(("bad", bad.split(16), kernel, unbiased) for kernel in ("linear", "rbf", "distance") for unbiased in (0, 1)),
    ]
    for name, loader, kernel, unbiased in cases:
        result = compare_models(model, other, loader, kernel=kernel, unbiased=bool(unbiased), progress_bar=False)
        key = f"{name} {kernel} {unbiased}"
        outcome[key], outcome[f"{key} error"] = result.matrix, result.standard_error
        outcome[f"{key} flags"] = [flag.reason for flag in result.flags]
    bank = GramBank.from_model(model, DataLoader(samples, 16), progress_bar=False)
    bank.save(folder / "bank.safetensors")
    loaded = GramBank.load(folder / "bank.safetensors")
    other_bank = GramBank.from_model(other, DataLoader(samples, 16), like=loaded, progress_bar=False)
    result = compare_banks(loaded, other_bank)
    result.save(folder / "result.json")
    outcome["banks"], outcome["saved"] = result.matrix, CKAResult.load(folder / "result.json").matrix
    outcome["lower"], outcome["upper"] = result.confidence_interval()
    outcome |= {f"path {name}": path.matrix for name, path in trajectories([bank, loaded, other_bank]).items()}
    return outcome


@pytest.fixture(scope="module")
def expected_comparisons(tmp_path_factory):
    with quietly():
        return comparisons(network(1), network(2), SAMPLES, tmp_path_factory.mktemp("expected"))


@every_default
def test_comparisons_without_a_trainer(default, tmp_path, expected_comparisons):
    arguments = network(1), network(2), SAMPLES, tmp_path
    with under(default):
        same(comparisons(*arguments), expected_comparisons)


@every_default
def test_a_metric_that_is_put_on_the_cpu(default):
    def computed(features):
        with torch.device("cpu"):  # As `metric.to(device)` in a module: torchmetrics uses the default device.
            metric = MinibatchCKA(["a", "b"], kernel="rbf", return_standard_error=True)
        for x, y in features:
            metric.update([x, y])
        matrix, error = metric.compute()
        return {"matrix": matrix, "error": error}

    features = [(torch.randn(16, 4), torch.randn(16, 8)) for _ in range(6)]
    expected = computed(features)
    with under(default):
        same(computed(features), expected)


def results(monitor):
    return {
        f"{key} {i} {name}": getattr(result, name)
        for key, results in monitor.results.items()
        for i, result in enumerate(results)
        for name in ("matrix", "standard_error", "epoch", "step")
    }


class UnderMeta(CKAMonitor):
    """Has the default device "meta" in all its hooks: Lightning itself cannot train with it."""


def _under_meta(name):
    def hook(self, *args, **kwargs):
        with default_device("meta"):
            return getattr(CKAMonitor, name)(self, *args, **kwargs)

    return hook


for _name in [name for name in dir(CKAMonitor) if name.startswith("on_") or name in ("setup", "teardown")]:
    if getattr(CKAMonitor, _name) is not getattr(L.Callback, _name, None) and callable(getattr(CKAMonitor, _name)):
        setattr(UnderMeta, _name, _under_meta(_name))


@contextmanager
def logs_on_the_cpu(monkeypatch):
    log = L.LightningModule.log

    def on_cpu(*args, **kwargs):
        with torch.device("cpu"):
            return log(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(L.LightningModule, "log", on_cpu)
        yield


SOURCES = {"validation": {}, "own": {"dataloader": DataLoader(dataset(seed=4), 16, shuffle=True)}}


def full_monitor(source, folder, kind=CKAMonitor):
    """Return a monitor with references of all kinds, and arguments that make it compute nearly all there is."""
    references = ["initial", "previous", "self", network_like(Net())]
    arguments = {"kernel": ["linear", "rbf"], "save_banks": True, "trajectory": True, "num_samples": 64}
    return kind(references, dirpath=folder, **arguments, **SOURCES[source])


@pytest.fixture(scope="module")
def expected_training(tmp_path_factory):
    """By source, the weights and the results of a run with the usual defaults."""
    found = {}
    for source in SOURCES:
        monitor = full_monitor(source, tmp_path_factory.mktemp("expected"))
        with quietly():
            found[source] = run(monitor)[0].state_dict(), results(monitor)
    return found


@pytest.mark.parametrize("source", SOURCES)
@every_default
def test_training(default, source, monkeypatch, tmp_path, expected_training):
    weights, expected = expected_training[source]
    monitor = full_monitor(source, tmp_path, UnderMeta if default == "meta" else CKAMonitor)
    if default == "meta":
        with logs_on_the_cpu(monkeypatch):
            model, _ = run(monitor)
    else:
        model, _ = run(Sets(default), monitor)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert len(results(monitor)) >= 4 * 8
    same(results(monitor), expected)


class Sets(L.Callback):
    """Sets the default dtype while a Trainer fits, as user code may."""

    def __init__(self, name):
        self.dtype = DEFAULTS[name][1]

    def setup(self, trainer, module, stage):
        torch.set_default_dtype(self.dtype)

    def teardown(self, trainer, module, stage):
        torch.set_default_dtype(torch.float32)


def network_like(net):
    torch.manual_seed(5)
    for parameter in net.parameters():
        nn.init.normal_(parameter)
    return net


def test_a_failed_comparison_with_on_error_warn(monkeypatch):
    def fails_in_epoch_1(module, batch):
        if module.trainer.validating and module.trainer.current_epoch == 1:
            raise OSError("flaky")
        return module(batch[0])

    monitor = UnderMeta(forward_fn=fails_in_epoch_1, on_error="warn", num_samples=32, batch_size=8)
    with logs_on_the_cpu(monkeypatch), pytest.warns(UserWarning, match="epoch 1 failed: OSError: flaky"):
        run(monitor)
    assert monitor.results["initial"][-1].matrix.isnan().all()
    assert monitor.results["initial"][-1].matrix.device.type == "cpu"


def test_the_loaders_of_the_tests_are_read_on_the_cpu():
    """The control: a tensor that is made without a device has no values with the default device "meta"."""
    with default_device("meta"):
        assert torch.zeros(2).is_meta
        with pytest.raises(RuntimeError, match="meta"):
            next(iter(loaders()[0]))
