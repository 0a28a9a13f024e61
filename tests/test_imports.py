"""The architecture: imports go downward, and importing changes nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import lightning_cka

PACKAGE = Path(lightning_cka.__file__).parent
LEVELS = {
    "folding": -1,
    "grams": 0,
    "layers": 0,
    "rng": 0,
    "collectives": 0,
    "uncertainty": 0,
    "inputs": 2,
    "batches": 1,
    "restore": 2,
    "packed": 1,
    "functional": 3,
    "kernels": 2,
    "diagnostics": 2,
    "flags": 1,
    "result": 3,
    "influence": 3,
    "exchangeability": 3,
    "metric": 4,
    "probe": 4,
    "bank": 3,
    "weights": 3,
    "lockstep": 1,
    "capture": 5,
    "dry_run": 6,
    "comparison": 5,
    "scalars": 4,
    "notices": 6,
    "canvas": 0,
    "plotting": 5,
    "compare": 7,
    "reference": 4,
    "loggers": 5,
    "live": 7,
    "session": 10,
    "monitor": 11,
    "cli": 9,
    "__init__": 12,
    "version": 0,
    "namespaces": 0,
    "files": 0,
    "alignment": 4,
    "trajectory": 6,
    "heatmap": 3,
    "trends": 4,
    "panels": 4,
    "animation": 4,
    "tables": 4,
    "summary": 7,
    "memory": 6,
    "trainer_checks": 6,
    "report": 8,
}


def imported(tree):
    """Modules of this package that are imported at the top level; type-only and late imports may go up."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lightning_cka"):
            yield from [node.module.split(".")[1]] if "." in node.module else [alias.name for alias in node.names]


def test_imports_go_downward():
    files = {path.stem: path for path in PACKAGE.glob("*.py")}
    assert set(files) == set(LEVELS)
    seen = 0
    for name, path in files.items():
        for other in imported(ast.parse(path.read_text())):
            seen += 1
            assert LEVELS[other] < LEVELS[name], f"{name} imports {other}"
    assert seen > 20


def test_importing_is_without_side_effects():
    code = """
import random, sys, torch, numpy
import lightning.pytorch
before = (torch.get_rng_state().tolist(), random.getstate(), torch.get_float32_matmul_precision())
modules = set(sys.modules)
import lightning_cka
assert before == (torch.get_rng_state().tolist(), random.getstate(), torch.get_float32_matmul_precision())
assert not {"matplotlib.pyplot", "torch._inductor"} & (set(sys.modules) - modules)
own = {name.split(".")[0] for name in set(sys.modules) - modules} - sys.stdlib_module_names
known = {"PIL", "dateutil", "lightning_cka", "matplotlib", "mpl_toolkits", "safetensors", "scipy", "six"}
assert {name for name in own if not name.startswith("_")} <= known, own
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert process.returncode == 0, process.stderr
    assert process.stdout == ""


def test_public_names():
    assert set(lightning_cka.__all__) == {
        "CKAMonitor",
        "CKAResult",
        "GramBank",
        "MinibatchCKA",
        "__version__",
        "compare_banks",
        "compare_models",
        "functional",
        "plot_cka",
    }
    assert all(hasattr(lightning_cka.functional, n) for n in ("centered_gram", "unbiased_hsic", "biased_hsic", "cka"))
