"""The examples, run small."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(tmp_path, name, *args):
    command = [sys.executable, EXAMPLES / name, *args]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert process.returncode == 0, process.stdout[-2000:] + process.stderr[-4000:]
    return process.stdout


@pytest.mark.parametrize(
    ("name", "args", "expected"),
    [
        ("digits.py", ["--epochs", "2"], r"conv1 +[01]\.\d+ ± 0\.\d+[\s\S]*heatmap-epoch=001-step=000029.png"),
        ("finetune_from_checkpoint.py", ["--epochs", "2"], r"conv1 +[01]\.\d\d [01]\.\d\d\n[\s\S]*Figures: "),
        ("ddp.py", ["--epochs", "1"], r"2 processes, 896 probe samples in 14 batches"),
        ("compare_two_models.py", ["--epochs", "1"], r"fc2 +linear\d  CKA 0\.\d+ ± 0\.\d+"),
        ("benchmark.py", ["--networks", "MLP", "--samples", "512", "--repeats", "1"], r"MLP +50"),
    ],
)
def test_example(tmp_path, name, args, expected):
    assert re.search(expected, run(tmp_path, name, *args))
    assert name == "benchmark.py" or list(tmp_path.rglob("*.png"))
