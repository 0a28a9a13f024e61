"""HSIC, CKA and other measures of single batches, as functions of tensors."""

from lightning_cka.hsic.functional import biased_hsic, centered_gram, cka, unbiased_hsic
from lightning_cka.hsic.predictivity import linear_predictivity
from lightning_cka.hsic.procrustes import procrustes_distance

__all__ = ["biased_hsic", "centered_gram", "cka", "linear_predictivity", "procrustes_distance", "unbiased_hsic"]
