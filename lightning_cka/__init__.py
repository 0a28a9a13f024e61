"""CKA between the layers of networks, while they train and after."""

from lightning_cka import functional
from lightning_cka.bank import GramBank
from lightning_cka.compare import compare_banks, compare_models
from lightning_cka.metric import MinibatchCKA
from lightning_cka.monitor import CKAMonitor
from lightning_cka.plotting import plot_cka
from lightning_cka.result import CKAResult
from lightning_cka.version import __version__

__all__ = [
    "CKAMonitor",
    "CKAResult",
    "GramBank",
    "MinibatchCKA",
    "__version__",
    "compare_banks",
    "compare_models",
    "functional",
    "plot_cka",
]
