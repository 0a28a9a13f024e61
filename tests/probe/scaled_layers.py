"""A layer with an adapter, for tests of default layers."""

import torch
from torch import nn


class Scaled(nn.Module):
    """Scales what a layer gives, as (IA)^3 does."""

    def __init__(self, base):
        super().__init__()
        self.inner, self.scale = base, nn.Parameter(torch.ones(base.out_features))

    def forward(self, x):
        return self.inner(x) * self.scale
