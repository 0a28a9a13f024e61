"""What `forked_scripts` imports once: all that takes long. None of it starts a thread or draws a random number."""

import gc
import multiprocessing
from importlib import import_module

MAIN_PROCESS = multiprocessing.current_process()
MODULES = (
    "lightning.pytorch.strategies.launchers.subprocess_script",
    "lightning_cka.cli",
    "lightning_cka.figures.pictures",
    "lightning_cka.monitor.callback",
    "pytest",
    "sklearn.datasets",
    "torch.utils.tensorboard",
)

for name in MODULES:
    import_module(name)
gc.freeze()  # So that forked processes share the memory of these modules.
