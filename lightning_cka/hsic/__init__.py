"""Arithmetic on tensors: from features to Gram matrices to HSIC and CKA.

In: tensors of shape ``(n, ...)``. Out: Gram matrices, the vectors that measures make of them, their inner products, CKA
of single batches, standard errors.
This room knows nothing of models, files and processes. It imports nothing from the other rooms.
"""
