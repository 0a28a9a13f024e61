"""CKA between the layers of networks, during training and afterwards."""

from lightning_cka import functional
from lightning_cka.compare.banks import compare_banks
from lightning_cka.compare.flags import Thresholds
from lightning_cka.compare.metric import MinibatchCKA
from lightning_cka.compare.models import compare_models
from lightning_cka.compare.result import CKAResult
from lightning_cka.compare.trajectory import trajectories
from lightning_cka.figures.heatmap import plot_cka
from lightning_cka.hsic.kernels import RBF
from lightning_cka.monitor.callback import CKAMonitor
from lightning_cka.probe.bank import GramBank
from lightning_cka.version import __version__

__all__ = [
    "RBF",
    "CKAMonitor",
    "CKAResult",
    "GramBank",
    "MinibatchCKA",
    "Thresholds",
    "__version__",
    "compare_banks",
    "compare_models",
    "functional",
    "plot_cka",
    "trajectories",
]
