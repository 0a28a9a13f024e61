"""Arithmetic on tensors: features to Gram matrices to HSIC.

In: tensors of shape ``(n, ...)``. Out: Gram matrices, their inner products, CKA of single batches, standard errors.
This room knows no model, no file and no process. It imports nothing from the other rooms.
"""
