"""Kernels of the Gram matrices."""

from lightning_cka.hsic.kernels import RBF, Kernel, KernelFn, distance

__all__ = ["RBF", "Kernel", "KernelFn", "distance"]
