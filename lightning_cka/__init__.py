"""CKA between the layers of networks, during training and afterwards.

A name is imported when it is first used, so that ``import lightning_cka`` itself takes no time (PEP 562).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_cka import functional as functional
    from lightning_cka.compare.banks import compare_banks as compare_banks
    from lightning_cka.compare.flags import Thresholds as Thresholds
    from lightning_cka.compare.measure_metrics import MinibatchMutualKNN as MinibatchMutualKNN
    from lightning_cka.compare.measure_metrics import MinibatchRidge as MinibatchRidge
    from lightning_cka.compare.measure_metrics import MinibatchRSA as MinibatchRSA
    from lightning_cka.compare.metric import MinibatchCKA as MinibatchCKA
    from lightning_cka.compare.models import compare_models as compare_models
    from lightning_cka.compare.result import CKAResult as CKAResult
    from lightning_cka.compare.trajectory import trajectories as trajectories
    from lightning_cka.decisions.compare_many import compare_many as compare_many
    from lightning_cka.decisions.convergence import convergence as convergence
    from lightning_cka.decisions.ranks_of_run import rank_history as rank_history
    from lightning_cka.decisions.seed_ceiling import seed_ceiling as seed_ceiling
    from lightning_cka.decisions.would_freeze import would_freeze as would_freeze
    from lightning_cka.figures.heatmap import plot_cka as plot_cka
    from lightning_cka.hsic.distance_ranks import RSA as RSA
    from lightning_cka.hsic.hat_matrices import Ridge as Ridge
    from lightning_cka.hsic.kernels import RBF as RBF
    from lightning_cka.hsic.neighbors import MutualKNN as MutualKNN
    from lightning_cka.monitor.callback import CKAMonitor as CKAMonitor
    from lightning_cka.monitor.freeze_converged import FreezeConverged as FreezeConverged
    from lightning_cka.probe.bank import GramBank as GramBank
    from lightning_cka.version import __version__ as __version__

_MODULE_OF = {
    "RBF": "hsic.kernels",
    "RSA": "hsic.distance_ranks",
    "CKAMonitor": "monitor.callback",
    "CKAResult": "compare.result",
    "FreezeConverged": "monitor.freeze_converged",
    "GramBank": "probe.bank",
    "MinibatchCKA": "compare.metric",
    "MinibatchMutualKNN": "compare.measure_metrics",
    "MinibatchRSA": "compare.measure_metrics",
    "MinibatchRidge": "compare.measure_metrics",
    "MutualKNN": "hsic.neighbors",
    "Ridge": "hsic.hat_matrices",
    "Thresholds": "compare.flags",
    "__version__": "version",
    "compare_banks": "compare.banks",
    "compare_many": "decisions.compare_many",
    "compare_models": "compare.models",
    "convergence": "decisions.convergence",
    "plot_cka": "figures.heatmap",
    "rank_history": "decisions.ranks_of_run",
    "seed_ceiling": "decisions.seed_ceiling",
    "trajectories": "compare.trajectory",
    "would_freeze": "decisions.would_freeze",
}

_MODULES = {
    "compare",
    "decisions",
    "diagnostics",
    "figures",
    "functional",
    "hsic",
    "kernels",
    "monitor",
    "plotting",
    "probe",
    "runtime",
    "view",
}

__all__ = [*_MODULE_OF, "functional"]


def __getattr__(name: str) -> Any:
    """Import a public name or a module."""
    if name in _MODULE_OF:
        value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
        globals()[name] = value
        return value
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
