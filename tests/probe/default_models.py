"""Small models of the kinds that people train, for tests of the default layers."""

import torch
from torch import nn


class DoubleConv(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )

    def forward(self, x):
        return self.net(x)


class Down(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.pool_conv = nn.Sequential(nn.MaxPool2d(2), DoubleConv(inputs, outputs))

    def forward(self, x):
        return self.pool_conv(x)


class Up(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.up, self.conv = nn.ConvTranspose2d(inputs, inputs // 2, 2, 2), DoubleConv(inputs, outputs)

    def forward(self, x, skip):
        return self.conv(torch.cat([skip, self.up(x)], 1))


class UNet(nn.Module):
    """A U-Net of three levels, with images of 16 by 16."""

    def __init__(self):
        super().__init__()
        self.inc, self.outc = DoubleConv(3, 4), nn.Conv2d(4, 2, 1)
        self.down1, self.down2, self.down3 = Down(4, 8), Down(8, 16), Down(16, 32)
        self.up1, self.up2, self.up3 = Up(32, 16), Up(16, 8), Up(8, 4)

    def forward(self, x):
        x1 = self.inc(x)
        x2, x3 = self.down1(x1), None
        x3 = self.down2(x2)
        x = self.up1(self.down3(x3), x3)
        return self.outc(self.up3(self.up2(x, x2), x1))


class GIN(nn.Module):
    """A graph convolution on dense adjacency matrices."""

    def __init__(self, d):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, d))

    def forward(self, x, adjacency):
        return self.mlp(x + adjacency @ x)


class GraphNetwork(nn.Module):
    """Three graph convolutions, and a readout of the sum over nodes. Batches are ``(n, nodes, d + nodes)``."""

    def __init__(self, d=8, flat=False):
        super().__init__()
        self.d, self.flat = d, flat
        self.embed, self.convs = nn.Linear(d, d), nn.ModuleList(GIN(d) for _ in range(3))
        self.readout = nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, 2))

    def forward(self, batch):
        x, adjacency = batch[..., : self.d], batch[..., self.d :]
        n, nodes = x.shape[:2]
        if self.flat:  # As PyTorch Geometric does: one row for each node.
            x, adjacency = x.flatten(0, 1), torch.block_diag(*adjacency)
        x = self.embed(x)
        for conv in self.convs:
            x = conv(x, adjacency).relu()
        return self.readout(x.view(n, nodes, -1).sum(1))


class GRN(nn.Module):
    """A gated residual network."""

    def __init__(self, d):
        super().__init__()
        self.fc1, self.fc2, self.gate, self.norm = (
            nn.Linear(d, d),
            nn.Linear(d, d),
            nn.Linear(d, 2 * d),
            nn.LayerNorm(d),
        )

    def forward(self, x):
        return self.norm(x + nn.functional.glu(self.gate(self.fc2(nn.functional.elu(self.fc1(x))))))


class VariableSelection(nn.Module):
    def __init__(self, d, variables):
        super().__init__()
        self.grns = nn.ModuleDict({name: GRN(d) for name in variables})
        self.weights = nn.Linear(d * len(variables), len(variables))

    def forward(self, xs):
        weights = self.weights(torch.cat(xs, -1)).softmax(-1)
        values = torch.stack([grn(x) for grn, x in zip(self.grns.values(), xs, strict=True)], -1)
        return (values * weights.unsqueeze(-2)).sum(-1)


class TFT(nn.Module):
    """A temporal fusion transformer in small: variable selection, LSTM, attention, feed-forward."""

    def __init__(self, d=8, variables=("price", "promo", "weekday", "month")):
        super().__init__()
        self.prescalers = nn.ModuleDict({name: nn.Linear(1, d) for name in variables})
        self.selection = VariableSelection(d, variables)
        self.lstm = nn.LSTM(d, d, batch_first=True)
        self.gate_lstm, self.enrichment, self.feed_forward = nn.Linear(d, 2 * d), GRN(d), GRN(d)
        self.attention, self.output = nn.MultiheadAttention(d, 2, batch_first=True), nn.Linear(d, 3)

    def forward(self, x):
        xs = [scale(x[..., i : i + 1]) for i, scale in enumerate(self.prescalers.values())]
        x = self.selection(xs)
        x = x + nn.functional.glu(self.gate_lstm(self.lstm(x)[0]))
        x = self.enrichment(x)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.output(self.feed_forward(x))


class LSTMClassifier(nn.Module):
    def __init__(self, d=8):
        super().__init__()
        self.embed, self.lstm, self.head = nn.Embedding(20, d), nn.LSTM(d, d, 2, batch_first=True), nn.Linear(d, 2)

    def forward(self, ids):
        return self.head(self.lstm(self.embed(ids))[0][:, -1])
