"""Strategies of the Trainer: sharded weights, spawned processes, and errors on one of several processes."""

import json
import os
import re
import warnings
from unittest.mock import patch

import forked_scripts
import numpy as np
import pytest
import strategy_script
import torch
from conftest import Net, loaders, run_script, trainer
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning_cka import CKAMonitor, CKAResult
from strategy_script import Late

needs_sharding = pytest.mark.skipif(
    torch.__version__ < "2.7", reason="fully_shard of torch 2.6 knows no CPU: 'Stream' has no attribute 'record_event'"
)
REFERENCES = ["initial", "previous", "self", "module", "frozen.pt"]


def outcomes(folder, *runs):
    """Train once for each list of arguments, in a folder of its own, and return the results.

    Two processes train all runs in turn. A run of one process is trained here. Both save the time of imports.
    """
    other = Late()
    other.configure_model()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.5)
    words = []
    for number, run in enumerate(runs):
        place = folder / str(number)
        place.mkdir(parents=True)
        torch.save(other.state_dict(), place / "frozen.pt")
        words += [*run, "--folder", place, "then"]
    if "2" in words:
        run_script("strategy_script.py", folder, *words)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            strategy_script.main(list(map(str, words)))
    return [json.loads((folder / str(number) / "out.json").read_text()) for number in range(len(runs))]


@needs_sharding
def test_sharded_models_give_the_results_of_whole_ones_and_do_not_change(tmp_path):
    # With 9 batches for 2 processes, one process runs an extra forward pass.
    references = ["--references", json.dumps(REFERENCES)]
    # Blocks of 8, 8, 8, 8 and 4 samples, in forward passes of 3, 3 and 2, or 3 and 1.
    blocks = [*references, "--batch-size", "3", "--gram-batch-size", "8"]
    whole, whole_blocks = outcomes(
        tmp_path / "whole", *(["--devices", "1", *options] for options in (references, blocks))
    )
    sharded, plain, resumed, compiled, sharded_blocks = outcomes(
        tmp_path / "sharded",
        ["--devices", "2", *references],
        ["--devices", "2", "--references", "[]"],
        # From a sharded checkpoint.
        ["--devices", "2", *references, "--checkpoint", tmp_path / "sharded/0/checkpoints/epoch=1.ckpt"],
        ["--devices", "2", *references, "--epochs", "1", "--compile"],
        ["--devices", "2", *blocks],
    )
    assert plain["weights"] == sharded["weights"] == sharded_blocks["weights"]
    for name in ("initial", "previous", "self", "reference", "frozen"):
        assert np.shape(whole["matrices"][name]) == (3, 3, 3)
        for other in (sharded, resumed):
            np.testing.assert_allclose(other["matrices"][name], whole["matrices"][name], rtol=0, atol=1e-12)
        found, expected = (each["matrices"][name] for each in (sharded_blocks, whole_blocks))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    assert np.abs(np.subtract(whole["matrices"]["self"], whole_blocks["matrices"]["self"])).max() > 1e-3
    for name, matrices in compiled["matrices"].items():
        np.testing.assert_allclose(matrices, whole["matrices"][name][:1], rtol=0, atol=1e-12)
    frozen, initial = (np.array(sharded["matrices"][name]) for name in ("frozen", "initial"))
    assert abs(frozen - initial).max() > 1e-3


@needs_sharding
def test_several_processes_freeze_the_layers_of_one(tmp_path):
    """With DDP and sharded weights, also compiled, and resumed from a checkpoint before layers are frozen or after."""
    options = ["--references", '["initial"]', "--freeze", "0.1", "--epochs", "6"]
    ddp = ["--devices", "2", "--strategy", "ddp_find_unused_parameters_true", *options]
    sharded = ["--devices", "2", *options]
    (alone,) = outcomes(tmp_path / "alone", ["--devices", "1", *options])
    others = outcomes(
        tmp_path / "shared",
        ddp,
        sharded,
        [*sharded, "--compile"],
        *([*ddp, "--checkpoint", tmp_path / f"shared/0/checkpoints/epoch={epoch}.ckpt"] for epoch in (0, 3)),
        [*sharded, "--checkpoint", tmp_path / "shared/1/checkpoints/epoch=3.ckpt"],
    )
    assert list(alone["frozen"]) == ["net.0", "net.2"]
    assert alone["trained"] == ["net.4.weight", "net.4.bias"]
    for other in others:
        assert other["frozen"] == alone["frozen"]
        assert [name.replace("_orig_mod.", "") for name in other["trained"]] == alone["trained"]
        for name, weights in other["weights"].items():
            expected = alone["weights"][name.replace("_orig_mod.", "")]
            np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-12)
        for name, matrices in other["matrices"].items():
            np.testing.assert_allclose(matrices, alone["matrices"][name], rtol=0, atol=1e-12)


def test_spawned_processes_write_their_results_to_files(tmp_path, monkeypatch):
    forked_scripts.replace_spawning(monkeypatch)
    references = ["--references", '["initial", "previous"]']
    with warnings.catch_warnings(), patch.dict(os.environ):  # Lightning sets the port.
        warnings.simplefilter("ignore")
        strategy_script.main(["--devices", "2", "--strategy", "ddp_spawn", *references])
    (alone,) = outcomes(tmp_path / "alone", ["--devices", "1", *references])
    for name in ("initial", "previous"):
        found = [CKAResult.load(path).matrix for path in sorted((tmp_path / "cka" / name).glob("*.json"))]
        np.testing.assert_allclose(torch.stack(found), alone["matrices"][name], rtol=0, atol=1e-12)


def test_processes_can_have_different_numbers_of_validation_batches(tmp_path):
    """Each process compares at its own last batch."""
    own = ["--devices", "2", "--strategy", "ddp", "--own-dataloader"]
    uneven, even = outcomes(tmp_path, *([*own, "--validation", kind] for kind in ("few on 1", "")))
    assert uneven["matrices"] == even["matrices"]


def test_tensor_parallelism_raises(tmp_path):
    process = run_script("strategy_script.py", tmp_path, "--devices", 2, "--strategy", "tensor parallel", check=False)
    assert process.returncode != 0
    assert "does not work with tensor parallelism: ModelParallelStrategy has 2 processes for 1 share" in process.stderr


def test_the_error_names_a_reference_whose_layers_need_a_strategy():
    class Needs(Late):
        def configure_model(self):
            self.device_mesh["data_parallel"]

    with pytest.raises(ValueError, match=r"reference 'Needs': Needs has no layers yet.* pass a module that has its"):
        trainer(CKAMonitor(Needs())).fit(Net(), *loaders())


@pytest.mark.parametrize(("name", "message"), [("DeepSpeedStrategy", "compare_models"), ("FSDPStrategy", "FSDP2")])
def test_unsupported_strategies_raise(name, message):
    """They are recognised by class name. Neither works on a CPU."""
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
        ("ddp", "empty on 1", [], ["0 samples", "process 1 could not find its probe set"]),
        ("ddp", "empty on 1", ["--own-dataloader"], ["process 1 has no validation batch"]),
    ],
)
def test_an_error_on_one_process_ends_all_processes(tmp_path, strategy, validation, options, messages):
    process = run_script(
        "strategy_script.py",
        tmp_path,
        *("--devices", 2, "--strategy", strategy, "--samples", 32, "--validation", validation, *options),
        check=False,
    )
    assert process.returncode != 0
    assert not list(tmp_path.glob("checkpoints/*"))  # Training had not started.
    for message in messages:
        assert re.search(message, process.stderr), process.stderr[-3000:]
