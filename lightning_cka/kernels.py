"""The kernels that Gram matrices can be made with."""

from lightning_cka.hsic.kernels import RBF, Kernel, KernelFn, distance

__all__ = ["RBF", "Kernel", "KernelFn", "distance"]
