"""A plain CNN and its training loop, for `cka_as_loss.py` and `layer_identification.py`."""

from __future__ import annotations

import torch
from torch import nn


class PlainCNN(nn.Module):
    """Convolutions with batch normalisation and ReLU, then a linear layer on the mean over all pixels.

    Args:
        channels: Channels of the images, then those of each convolution.
        strides: Stride of each convolution.
    """

    def __init__(self, channels, strides):
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.BatchNorm2d(outputs), nn.ReLU())
            for inputs, outputs, stride in zip(channels[:-1], channels[1:], strides, strict=True)
        )
        self.head = nn.Linear(channels[-1], 10)

    def forward(self, x):
        """Return the logits, and the activations of each convolution."""
        activations = []
        for block in self.blocks:
            x = block(x)
            activations.append(x)
        return self.head(x.mean((2, 3))), activations


def minimise(model, losses, num_steps, max_lr, weight_decay):
    """Take a step of AdamW for each of the losses, which are computed one after the other.

    Returns:
        The model in evaluation mode.
    """
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr, total_steps=num_steps)
    for loss in losses:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()
