"""What watching costs: the monitor's work of one epoch against its floor, and its memory.

The floor is one bare forward pass over the probe set, the float32 products X X^T of each layer, and one
product over all pairs of layers. Peak memory is what is allocated at once above the bare forward pass.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections import OrderedDict
from pathlib import Path

import lightning as L
import torch
from lightning_cka import CKAMonitor
from lightning_cka.comparison import Comparison
from lightning_cka.layers import named_layers
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader, TensorDataset


class BasicBlock(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (y + self.shortcut(x)).relu()


def resnet18():
    """ResNet-18 for 32x32 images."""
    blocks, inputs = [], 64
    for stage, width in enumerate((64, 128, 256, 512)):
        blocks += [BasicBlock(inputs, width, 1 + (stage > 0)), BasicBlock(width, width, 1)]
        inputs = width
    stem = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


class Block(nn.Module):
    def __init__(self, d, heads=3):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.mlp = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d))
        self.heads = heads

    def forward(self, x):
        n, t, d = x.shape
        qkv = self.qkv(self.norm1(x)).view(n, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(*qkv)
        x = x + self.out(attended.transpose(1, 2).reshape(n, t, d))
        return x + self.mlp(self.norm2(x))


def transformer(d=192, depth=12):
    """ViT-Ti sized: 64 patches of a 32x32 image and a class token make 65 tokens; the tokens are the input."""
    return nn.Sequential(OrderedDict([(f"block{i}", Block(d)) for i in range(depth)]))


def mlp(width=512, depth=50):
    """Linear layers and ReLUs, initialised so that the signal survives 50 layers."""
    net = nn.Sequential(*[m for _ in range(depth) for m in (nn.Linear(width, width), nn.ReLU())])
    for layer in net[::2]:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return net


NETWORKS = {
    "ResNet-18": (resnet18, (3, 32, 32), 128, [nn.Conv2d, BasicBlock]),
    "transformer": (transformer, (65, 192), 128, ["net.block?", "net.block??", "*.out", "*.mlp"]),
    "MLP": (mlp, (512,), 256, nn.Linear),
}


class Lit(L.LightningModule):
    """The network, with as little training as the Trainer accepts."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        return self(batch[0][:4]).mean() * 0

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def bare_forward(model, batches, device):
    model.eval()
    with torch.inference_mode():
        for x in batches:
            model(x.to(device))
    model.train()


def floor(model, batches, device, names):
    """Bare forward, X X^T in float32, and the product over all pairs."""
    modules, grams = named_layers(model), {}

    def hook(name):
        def reduce(module, args, output):
            flat = output.flatten(1)
            grams[name] = flat @ flat.T

        return reduce

    handles = [modules[name].register_forward_hook(hook(name)) for name in names]
    model.eval()
    with torch.inference_mode():
        for x in batches:
            model(x.to(device))
            stack = torch.stack([grams[name].flatten() for name in names])
            stack @ stack.T
    model.train()
    for handle in handles:
        handle.remove()


def timed(fn, device):
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    fn()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_memory(fn, device):
    """Bytes of tensors allocated at once above what was there before."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        fn()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        fn()
    current = peak = 0
    for event in sorted(profiler.profiler.kineto_results.events(), key=lambda e: e.start_ns()):
        if event.name() == "[memory]":
            current += event.nbytes()
            peak = max(peak, current)
    return peak


def measure(name, samples, repeats, device, tmp):
    make, shape, batch_size, layers = NETWORKS[name]
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(samples, *shape), torch.zeros(samples))
    loader = DataLoader(data, batch_size=batch_size)
    module = Lit(make())
    monitor = CKAMonitor("initial", layers, num_samples=samples, batch_size=batch_size, dirpath=tmp)
    trainer = L.Trainer(
        max_epochs=1, limit_train_batches=1, limit_val_batches=1, num_sanity_val_steps=0, logger=False,
        accelerator=device.type, devices=1, callbacks=[monitor], enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    # The monitor's work is called again by hand, at the moment when the Trainer would call it.
    runs = {"bare": [], "floor": [], "pass": [], "epoch": []}
    peaks, largest = {}, [0]

    class Measure(L.Callback):
        def on_validation_epoch_end(self, trainer, module):
            session, probe = monitor._session, monitor._session.probe
            batches = [batch.data[0] for batch in probe.probe.batches()]
            names = probe.plan.names

            def compare():
                comparison = Comparison(names, {"initial": monitor.references[0].bank}, {"linear": "linear"}, device)
                probe.show(trainer, module, comparison.add)
                comparison.results()

            works = {
                "bare": lambda: bare_forward(module, batches, device),
                "floor": lambda: floor(module, batches, device, names),
                "pass": compare,
                "epoch": session.log,
            }
            handles = [
                m.register_forward_hook(lambda _m, _a, out: largest.append(out.numel() * out.element_size()))
                for m in module.modules()
            ]
            bare_forward(module, batches[:1], device)
            for handle in handles:
                handle.remove()
            for work in works.values():
                work()
            for _ in range(repeats):
                for key, work in works.items():
                    runs[key].append(timed(work, device))
            for key in ("bare", "floor", "pass"):
                peaks[key] = peak_memory(works[key], device)

    trainer.callbacks.append(Measure())
    trainer.fit(module.to(device), loader, loader)
    layers_count, batch = len(monitor._session.probe.plan.names), batch_size
    grams = layers_count * samples // batch * batch * (batch + 1) // 2 * 4
    median = {key: statistics.median(values) for key, values in runs.items()}
    return {
        "network": name,
        "layers": layers_count,
        "samples": samples,
        "batch": batch,
        "bare_s": median["bare"],
        "floor_s": median["floor"],
        "floor_spread_s": max(runs["floor"]) - min(runs["floor"]),
        "pass_s": median["pass"],
        "epoch_s": median["epoch"],
        "epoch_spread_s": max(runs["epoch"]) - min(runs["epoch"]),
        "pass_ratio": statistics.median(p / f for p, f in zip(runs["pass"], runs["floor"], strict=True)),
        "epoch_ratio": statistics.median(e / f for e, f in zip(runs["epoch"], runs["floor"], strict=True)),
        "peak_bare_mib": peaks["bare"] / 2**20,
        "extra_mib": (peaks["pass"] - peaks["bare"]) / 2**20,
        "floor_extra_mib": (peaks["floor"] - peaks["bare"]) / 2**20,
        "grams_mib": grams / 2**20,
        "allowed_mib": (grams + 2 * max(largest)) / 2**20,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path, default=Path("benchmark.json"))
    args = parser.parse_args()
    device = torch.device(args.device)
    print(f"torch {torch.__version__}, {device}, {torch.get_num_threads()} threads, {platform.machine()}")
    print(f"{args.samples} samples, medians of {args.repeats} interleaved runs")
    print("pass: forward, Gram matrices and comparison; epoch: that, figures and files; Gram matrices: of one bank\n")
    print(
        "network      layers   bare    floor      pass   ratio     epoch   ratio | extra MiB  allowed (Gram matrices)"
    )
    rows = []
    for name in args.networks:
        row = measure(name, args.samples, args.repeats, device, args.output.parent / "runs" / "benchmark")
        rows.append(row)
        print(
            f"{name:12} {row['layers']:5}  {row['bare_s']:6.2f}s {row['floor_s']:6.2f}s±{row['floor_spread_s'] / 2:.2f}"
            f" {row['pass_s']:6.2f}s  {row['pass_ratio']:5.2f} {row['epoch_s']:6.2f}s±{row['epoch_spread_s'] / 2:.2f}"
            f" {row['epoch_ratio']:5.2f} | {row['extra_mib']:8.1f} {row['allowed_mib']:8.1f} ({row['grams_mib']:.1f})",
            flush=True,
        )
    args.output.write_text(json.dumps(rows, indent=1))
    print(f"\nWritten to {args.output}")


if __name__ == "__main__":
    main()
