"""The minibatch CKA of two models in float64, computed without any package, to measure rounding errors against."""

from __future__ import annotations

import torch
from lightning_cka.runtime.module_names import named_layers


def u_centered(gram):
    """Return the U-centered Gram matrix of Song et al. 2012, with a zero diagonal."""
    n = len(gram)
    gram = gram.clone().fill_diagonal_(0)
    rows = gram.sum(0) / (n - 2)
    total = gram.sum() / ((n - 1) * (n - 2))
    return (gram - rows[:, None] - rows + total).fill_diagonal_(0)


class ExactCKA:
    """The CKA that all packages estimate, from the same float32 features.

    Args:
        live: The model.
        reference: The model that it is compared with.
        batches: Inputs, one tensor for each batch.
        names: Names of the layers to compare.
        device: Where the models are.

    Attributes:
        post_relu: (L,), whether a layer has no negative output in either model.
    """

    def __init__(self, live, reference, batches, names, device):
        self._live = [self._grams(live, x.to(device), names) for x in batches]
        self._reference = [self._grams(reference, x.to(device), names) for x in batches]
        non_negative = [torch.stack([signs for _, signs in model]).all(0) for model in (self._live, self._reference)]
        self.post_relu = torch.stack(non_negative).all(0)

    @staticmethod
    def _grams(model, x, names):
        """Return the U-centered Gram matrices (L, n, n) of a batch, and (L,) whether a layer has no negative output."""
        modules, grams, signs = named_layers(model), {}, {}

        def hook_for(name):
            def hook(_module, _args, output):
                signs[name] = bool(output.min() >= 0)
                features = output.flatten(1).double()
                features = features - features.mean(0)
                grams[name] = u_centered(features @ features.T)

            return hook

        handles = [modules[name].register_forward_hook(hook_for(name)) for name in names]
        model.eval()
        with torch.no_grad():
            model(x)
        model.train()
        for handle in handles:
            handle.remove()
        return torch.stack([grams[name] for name in names]), torch.tensor([signs[name] for name in names])

    def matrix(self, chosen=slice(None)):
        """Return CKA (L, L) over the chosen batches: sums over batches first, then one ratio."""
        x = [grams for grams, _ in self._live][chosen]
        y = [grams for grams, _ in self._reference][chosen]
        pairs = sum(torch.einsum("aij,bij->ab", a, b) for a, b in zip(x, y, strict=True))
        layers, references = (sum(a.square().sum((1, 2)) for a in grams) for grams in (x, y))
        return pairs / (layers[:, None] * references).sqrt()

    def errors(self, matrix, expected):
        """Return the largest absolute error, over all layers and over those that end in a ReLU."""
        difference = (matrix.double().to(expected.device) - expected).abs()
        # nan is right where nan is expected.
        both_nan = matrix.isnan().to(expected.device) & expected.isnan()
        difference = difference.where(~both_nan, torch.zeros_like(difference))
        relu = self.post_relu.to(expected.device)
        of_relu = difference[relu][:, relu]
        return {"all": difference.max().item(), "relu": of_relu.max().item() if of_relu.numel() else None}
