"""Strategies of the Trainer: processes that share a model's weights, or its data, and what goes wrong with these."""

import json
import re

import numpy as np
import pytest
import torch
from conftest import Net, loaders, run_script, trainer
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning_cka import CKAMonitor, CKAResult
from strategy_script import Late

needs_sharding = pytest.mark.skipif(
    torch.__version__ < "2.7", reason="fully_shard of torch 2.6 knows no CPU: 'Stream' has no attribute 'record_event'"
)
REFERENCES = ["initial", "previous", "self", "module", "frozen.pt"]


def outcome(folder, *args):
    folder.mkdir(exist_ok=True)
    other = Late()
    other.configure_model()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.5)
    torch.save(other.state_dict(), folder / "frozen.pt")
    run_script("strategy_script.py", folder, *args)
    return json.loads((folder / "out.json").read_text())


@needs_sharding
def test_sharded_weights_give_the_matrices_of_whole_ones_and_are_left_alone(tmp_path):
    # 9 batches for 2 processes: one of them makes a forward pass in vain.
    references = ["--references", json.dumps(REFERENCES)]
    whole = outcome(tmp_path / "whole", "--devices", 1, *references)
    sharded = outcome(tmp_path / "sharded", "--devices", 2, *references)
    plain = outcome(tmp_path / "plain", "--devices", 2, "--references", "[]")
    assert plain["weights"] == sharded["weights"]
    # From a checkpoint in shards.
    resumed = outcome(tmp_path / "sharded", "--devices", 2, *references, "--checkpoint", "checkpoints/epoch=1.ckpt")
    for name in ("initial", "previous", "self", "Late", "frozen"):
        assert np.shape(whole["matrices"][name]) == (3, 3, 3)
        for other in (sharded, resumed):
            np.testing.assert_allclose(other["matrices"][name], whole["matrices"][name], rtol=0, atol=1e-12)
    compiled = outcome(tmp_path / "compiled", "--devices", 2, *references, "--epochs", 1, "--compile")
    for name, matrices in compiled["matrices"].items():
        np.testing.assert_allclose(matrices, whole["matrices"][name][:1], rtol=0, atol=1e-12)
    frozen, initial = (np.array(sharded["matrices"][name]) for name in ("frozen", "initial"))
    assert abs(frozen - initial).max() > 1e-3


def test_spawned_processes_leave_their_results_in_files(tmp_path):
    references = ["--references", '["initial", "previous"]']
    run_script("strategy_script.py", tmp_path, "--devices", 2, "--strategy", "ddp_spawn", *references)
    alone = outcome(tmp_path / "alone", "--devices", 1, *references)
    for name in ("initial", "previous"):
        found = [CKAResult.load(path).matrix for path in sorted((tmp_path / "cka" / name).glob("*.json"))]
        np.testing.assert_allclose(torch.stack(found), alone["matrices"][name], rtol=0, atol=1e-12)


def test_processes_need_not_validate_on_as_many_batches(tmp_path):
    """They compare at the last one of their own."""
    own = ["--devices", 2, "--strategy", "ddp", "--own-dataloader"]
    uneven, even = (outcome(tmp_path / str(i), *own, "--validation", kind) for i, kind in enumerate(("few on 1", "")))
    assert uneven["matrices"] == even["matrices"]


def test_tensor_parallel_layers_are_refused(tmp_path):
    process = run_script("strategy_script.py", tmp_path, "--devices", 2, "--strategy", "tensor parallel", check=False)
    assert process.returncode != 0
    assert "does not work with tensor parallelism: ModelParallelStrategy has 2 processes for 1 share" in process.stderr


def test_a_reference_whose_layers_need_a_strategy_is_named():
    class Needs(Late):
        def configure_model(self):
            self.device_mesh["data_parallel"]

    with pytest.raises(ValueError, match=r"reference 'Needs': Needs has no layers yet.* pass a module that has its"):
        trainer(CKAMonitor(Needs())).fit(Net(), *loaders())


@pytest.mark.parametrize(("name", "message"), [("DeepSpeedStrategy", "compare_models"), ("FSDPStrategy", "FSDP2")])
def test_strategies_that_hide_layers_are_refused(name, message):
    """By their names: neither can be had on a CPU."""
    strategy = type(name, (SingleDeviceStrategy,), {})(device=torch.device("cpu"))
    with pytest.raises(ValueError, match=f"does not work with {name}.*{message}"):
        trainer(CKAMonitor(), strategy=strategy, accelerator="auto").fit(Net(), *loaders())


@pytest.mark.parametrize(
    ("strategy", "validation", "options", "messages"),
    [
        ("ddp", "raise", [], ["sample cannot be read", "process 1 could not show the model the probe set"]),
        pytest.param(
            *("fsdp2", "raise", [], ["sample cannot be read", "process 1 could not show the model the probe set"]),
            marks=needs_sharding,
        ),
        ("ddp", "die", [], ["worker.*exited unexpectedly", "process 1 could not show the model the probe set"]),
        ("ddp", "empty on 1", [], ["0 samples", "process 1 could not show the model a probe batch"]),
        ("ddp", "empty on 1", ["--own-dataloader"], ["process 1 has no validation batch"]),
    ],
)
def test_a_fault_on_one_process_ends_all_of_them(tmp_path, strategy, validation, options, messages):
    process = run_script(
        "strategy_script.py",
        tmp_path,
        *("--devices", 2, "--strategy", strategy, "--samples", 32, "--validation", validation, *options),
        check=False,
    )
    assert process.returncode != 0
    assert not list(tmp_path.glob("checkpoints/*"))  # It was before training.
    for message in messages:
        assert re.search(message, process.stderr), process.stderr[-3000:]
