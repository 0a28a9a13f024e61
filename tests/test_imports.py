"""The architecture: rooms import in one direction and without circles, and an import has no side effects."""

import ast
import importlib
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import lightning_cka
import pytest

PACKAGE = Path(lightning_cka.__file__).parent
ROOMS = {  # Each room, with the rooms that it may import from.
    "hsic": set(),
    "runtime": set(),
    "probe": {"hsic", "runtime"},
    "compare": {"hsic", "runtime", "probe"},
    "decisions": {"hsic", "runtime", "probe", "compare"},
    "figures": {"hsic", "runtime", "probe", "compare", "decisions"},
    "view": {"hsic", "runtime", "compare", "decisions"},
    "monitor": {"hsic", "runtime", "probe", "compare", "decisions", "figures", "view"},
    "cli": {"hsic", "runtime", "probe", "compare", "decisions", "figures", "view", "monitor"},
}
LATE = {("compare", "decisions"), ("compare", "figures"), ("compare", "view"), ("decisions", "figures")}
"""Methods import what answers, draws or shows a result when they are called."""
MODULES = {
    "lightning_cka." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}


def imported(path):
    """Yield the modules of this package that a module imports, and whether the import is inside a function."""

    def visit(node, is_late):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
                continue
            if isinstance(child, ast.ImportFrom) and (child.module or "").startswith("lightning_cka"):
                for alias in child.names:
                    name = f"{child.module}.{alias.name}"
                    yield (name if name in MODULES else child.module), is_late
            yield from visit(child, is_late or isinstance(child, ast.FunctionDef))

    yield from visit(ast.parse(path.read_text()), False)


def room(module):
    """Return the room of a module, or None at the root."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else None


def test_every_folder_is_a_room():
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == set(ROOMS)


@pytest.mark.parametrize("name", ROOMS)
def test_rooms_import_from_left_to_right(name):
    count = 0
    for module, path in MODULES.items():
        if room(module) != name:
            continue
        for other, is_late in imported(path):
            count += 1
            target = room(other)
            if target is None:
                assert other == "lightning_cka.version", f"{module} imports {other}, which only re-exports names"
            elif not (is_late and (name, target) in LATE):
                assert target in ROOMS[name] | {name}, f"{module} imports {other}"
    assert count > 0


def test_modules_do_not_import_each_other_in_a_circle():
    graph = {
        module: {other for other, is_late in imported(path) if (room(module), room(other)) not in LATE or not is_late}
        for module, path in MODULES.items()
    }
    order = list(TopologicalSorter(graph).static_order())  # Raises CycleError for a circle.
    assert set(MODULES) <= set(order)


def test_few_modules_are_at_the_root():
    assert len(list(PACKAGE.glob("*.py"))) <= 14


@pytest.mark.parametrize("module", MODULES)
def test_modules_are_short_and_start_with_a_sentence(module):
    source = MODULES[module].read_text()
    assert len(source.splitlines()) <= 250
    assert (ast.get_docstring(ast.parse(source)) or "").split("\n")[0].endswith((".", ":"))


def test_an_import_has_no_side_effects():
    code = """
import random, sys, torch, numpy
import lightning.pytorch
before = (torch.get_rng_state().tolist(), random.getstate(), torch.get_float32_matmul_precision())
modules = set(sys.modules)
import lightning_cka
for name in lightning_cka.__all__:
    getattr(lightning_cka, name)
assert before == (torch.get_rng_state().tolist(), random.getstate(), torch.get_float32_matmul_precision())
assert not {"matplotlib.pyplot", "torch._inductor"} & (set(sys.modules) - modules)
own = {name.split(".")[0] for name in set(sys.modules) - modules} - sys.stdlib_module_names
known = {"PIL", "dateutil", "lightning_cka", "matplotlib", "mpl_toolkits", "safetensors", "scipy", "six"}
assert {name for name in own if not name.startswith("_")} <= known, own
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert process.returncode == 0, process.stderr
    assert process.stdout == ""


def test_an_import_of_the_package_alone_imports_nothing_else():
    code = (
        "import sys; import lightning_cka; assert not {'torch', 'lightning', 'matplotlib', 'numpy'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


def test_type_checkers_see_the_names_that_the_package_has():
    (block,) = [node for node in ast.parse((PACKAGE / "__init__.py").read_text()).body if isinstance(node, ast.If)]
    found = {each.name: node.module for node in block.body for each in node.names}
    assert set(found) == set(lightning_cka.__all__)
    for name, module in found.items():
        assert getattr(importlib.import_module(module), name) is getattr(lightning_cka, name)


def test_names_that_do_not_exist_raise():
    with pytest.raises(AttributeError, match="module 'lightning_cka' has no attribute 'nothing'"):
        lightning_cka.nothing  # noqa: B018
    assert set(lightning_cka.__all__) <= set(dir(lightning_cka))


def test_public_names():
    assert set(lightning_cka.__all__) == {
        "RBF",
        "Thresholds",
        "trajectories",
        "CKAMonitor",
        "CKAResult",
        "FreezeConverged",
        "GramBank",
        "MinibatchCKA",
        "MinibatchMutualKNN",
        "MinibatchRSA",
        "MinibatchRidge",
        "MutualKNN",
        "RSA",
        "Ridge",
        "__version__",
        "compare_banks",
        "compare_many",
        "compare_models",
        "convergence",
        "functional",
        "plot_cka",
        "rank_history",
        "seed_ceiling",
        "would_freeze",
    }
    assert all(hasattr(lightning_cka.functional, n) for n in ("centered_gram", "unbiased_hsic", "biased_hsic", "cka"))


@pytest.mark.parametrize(
    ("path", "names"),
    {
        "functional": ["biased_hsic", "centered_gram", "cka", "unbiased_hsic"],
        "kernels": ["RBF", "Kernel", "KernelFn", "distance"],
        "plotting": ["plot_cka", "plot_comparison", "plot_drift", "plot_layer_trend", "plot_trend"],
        "compare": ["compare_banks", "compare_models", "trajectories"],
        "diagnostics": ["Diagnostics", "Flag", "LayerDiagnostics", "LeaveOneOut", "SampleShare", "Thresholds"],
    }.items(),
)
def test_import_paths_of_version_0_1_0_work(path, names):
    module = importlib.import_module(f"lightning_cka.{path}")
    assert all(hasattr(module, name) for name in names)
