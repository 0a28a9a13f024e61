"""HSIC and CKA of single batches, as functions of tensors."""

from lightning_cka.hsic.functional import biased_hsic, centered_gram, cka, unbiased_hsic

__all__ = ["biased_hsic", "centered_gram", "cka", "unbiased_hsic"]
