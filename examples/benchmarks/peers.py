"""The same comparisons by other packages: their time, memory and digits.

Each gets a live model whose weights change from epoch to epoch, and frozen references, on the same batches and layers.
What it is given in its favour: a loader that is not shuffled (so that all see the same batches), ``no_grad``, and its
hooks are taken out after each comparison, where it leaves them in the model.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import io
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from lightning_cka.compare.comparison import Comparison
from lightning_cka.monitor.reference import Reference
from lightning_cka.runtime.module_names import named_layers
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.epoch import bare_forward
from benchmarks.moment import at_validation, mib, peak_memory, seconds, timed, with_range
from benchmarks.networks import NETWORKS, Lit

EPOCHS = 5


def pytorch_cka(live, reference, loader, names):
    from cka import compute_cka

    (matrix,) = compute_cka(live, reference, loader, layers=names, device=live.device, progress=False)
    return matrix


def torch_cka(live, reference, loader, names):
    from torch_cka import CKA

    comparison = CKA(live, reference, "live", "reference", names, names, device=str(live.device))
    comparison.compare(loader, loader)
    return comparison.export()["CKA"]


def ckatorch(live, reference, loader, names):
    from ckatorch import CKA

    class Flattened(CKA):
        """It takes (1, samples, features) from a layer; of tokens, it would compare the tokens of each sample."""

        def _hook(self, model, module_name, module, inp, out):
            features = self.first_features if model == "first" else self.second_features
            features[module_name] = out.detach().flatten(1)[None]

    comparison = Flattened(live, reference, names, first_name="live", second_name="reference", device=live.device)
    return comparison(loader, epochs=1)


@dataclass(frozen=True)
class Peer:
    """Another package. All of them document the minibatch CKA of Nguyen et al., from the unbiased HSIC."""

    package: str
    module: str
    compare: Callable
    clamped: bool = False
    last_batch_only: bool = False
    """What it gives is of the last batch: those before are overwritten."""


PEERS = [
    Peer("pytorch-cka", "cka", pytorch_cka, clamped=True),
    Peer("torch-cka", "torch_cka", torch_cka),
    Peer("ckatorch", "ckatorch", ckatorch, last_batch_only=True),
]


def installed():
    """The peers that can be imported, and why others cannot."""
    found, missing = [], {}
    for peer in PEERS:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                importlib.import_module(peer.module)
            found.append(peer)
        except ImportError as error:
            missing[peer.package] = str(error)
    return found, missing


@contextlib.contextmanager
def quiet_and_tidy(*models):
    """No progress bars and warnings; hooks and modes are left as they were."""
    hooks = [(module, dict(module._forward_hooks)) for model in models for module in model.modules()]
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        for module, found in hooks:
            module._forward_hooks.clear()
            module._forward_hooks.update(found)
        for model in models:
            model.train()


class Truth:
    """The CKA that all of them estimate, in float64, of the same float32 features: written out, without the package."""

    def __init__(self, live, references, batches, names, device):
        self._live = [self._grams(live, x.to(device), names) for x in batches]
        self._reference = [self._grams(references[0], x.to(device), names) for x in batches]
        both = [self._live, self._reference]
        self.post_relu = torch.stack([torch.stack([grams[1] for grams in model]).all(0) for model in both]).all(0)

    @staticmethod
    def _grams(model, x, names):
        """U-centered Gram matrices (L, n, n) of a batch, and which layers are nowhere negative."""
        modules, grams, signs = named_layers(model), {}, {}

        def hook(name):
            def reduce(_module, _args, output):
                signs[name] = bool(output.min() >= 0)
                features = output.flatten(1).double()
                features = features - features.mean(0)
                gram = features @ features.T
                n = len(gram)
                gram.fill_diagonal_(0)
                rows = gram.sum(0) / (n - 2)
                total = gram.sum() / ((n - 1) * (n - 2))
                grams[name] = (gram - rows[:, None] - rows + total).fill_diagonal_(0)

            return reduce

        handles = [modules[name].register_forward_hook(hook(name)) for name in names]
        model.eval()
        with torch.no_grad():
            model(x)
        model.train()
        for handle in handles:
            handle.remove()
        return torch.stack([grams[name] for name in names]), torch.tensor([signs[name] for name in names])

    def matrix(self, chosen=slice(None)):
        """(L, L), over the chosen batches."""
        x = [grams for grams, _ in self._live][chosen]
        y = [grams for grams, _ in self._reference][chosen]
        pairs = sum(torch.einsum("aij,bij->ab", a, b) for a, b in zip(x, y, strict=True))
        layers, references = (sum(a.square().sum((1, 2)) for a in grams) for grams in (x, y))
        return pairs / (layers[:, None] * references).sqrt()

    def errors(self, found, truth):
        """The worst difference, over all layers and over those that end in a ReLU."""
        difference = (found.double().to(truth.device) - truth).abs()
        # A layer that is nan in both is right.
        difference = difference.where(~(found.isnan().to(truth.device) & truth.isnan()), torch.zeros_like(difference))
        relu = self.post_relu.to(truth.device)
        of_relu = difference[relu][:, relu]
        return {"all": difference.max().item(), "relu": of_relu.max().item() if of_relu.numel() else None}


def order_of_running(model, names, x):
    """The names, in the order in which the layers' hooks fire."""
    modules, fired = named_layers(model), []
    handles = [
        modules[name].register_forward_hook(lambda _module, _args, _output, name=name: fired.append(name))
        for name in names
    ]
    with torch.no_grad():
        model.eval()(x)
    model.train()
    for handle in handles:
        handle.remove()
    return fired


def advance(module, epoch):
    """Other weights in each epoch, the same for everyone."""
    generator = torch.Generator().manual_seed(epoch)
    with torch.no_grad():
        for parameter in module.parameters():
            factor = 1 + 0.01 * torch.randn(parameter.shape, generator=generator)
            parameter.mul_(factor.to(parameter.device))


def measure(name, samples, repeats, num_references, limit_s, device, folder):
    """Each package's time for all comparisons, its memory and its errors, and ours: a list for the JSON file.

    Of a peer that would take longer than ``limit_s``, one comparison on one batch is measured, and the time of all
    is told from it: none of them does anything in a comparison that another one would gain from.
    """
    network = NETWORKS[name]
    found_peers, _ = installed()

    def work(moment):
        module, probe, trainer = moment.module, moment.probe, moment.trainer
        batches = moment.batches
        # In the order in which they run: two of the peers give their matrices in that order, whatever they are asked.
        names = order_of_running(module, moment.names, batches[0].to(device))
        places = [moment.names.index(name) for name in names]
        references = [Lit(network.make()).to(device) for _ in range(max(num_references))]
        weights = {key: value.clone() for key, value in module.state_dict().items()}
        loader, one_batch = (
            DataLoader(TensorDataset(torch.cat(each)), batch_size=network.batch) for each in (batches, batches[-1:])
        )

        def over_epochs(compare):
            """Seconds of the comparisons alone, with the live model as it is in each epoch."""
            module.load_state_dict(weights)
            total = 0.0
            for epoch in range(EPOCHS):
                advance(module, epoch)
                total += timed(compare, device)
            return total

        def bank(reference):
            return probe.frozen_bank(Reference("frozen", reference), trainer, module)

        def our_pass(banks):
            of_names = {str(number): each for number, each in enumerate(banks)}
            comparison = Comparison(moment.names, of_names, {"linear": "linear"}, device)
            probe.show(trainer, module, comparison.add)
            return comparison.results()["0", "linear"].result.matrix[places][:, places]

        def ours(number):
            banks = []
            shown = timed(lambda: banks.extend(map(bank, references[:number])), device)
            return shown + over_epochs(lambda: our_pass(banks))

        def theirs(peer, number):
            def compare():
                for reference in references[:number]:
                    with quiet_and_tidy(module, reference):
                        peer.compare(module, reference, loader, names)

            return over_epochs(compare)

        def compare_once(peer, data):
            with quiet_and_tidy(module, references[0]):
                return peer.compare(module, references[0], data, names)

        # Memory and errors, of one comparison with one reference; it warms up, too. The peak does not depend on the
        # number of batches.
        truth = Truth(module, references, batches, names, device)
        bare_peak = peak_memory(lambda: bare_forward(moment, batches[:1]), device)
        size_of_reference = sum(p.numel() * p.element_size() for p in references[0].state_dict().values())
        own_bank = bank(references[0])
        matrices = []
        rows = [
            {
                "package": "lightning-cka",
                "extra_bytes": peak_memory(lambda: matrices.append(our_pass([own_bank])), device) - bare_peak,
                "held_bytes_per_reference": sum(
                    part.numel() * part.element_size() for batch in own_bank for part in batch.grams
                ),
                "error": truth.errors(matrices[0], truth.matrix()),
                "error_of_all_batches": truth.errors(matrices[0], truth.matrix()),
                "seconds": {number: [] for number in num_references},
                "is_estimate": dict.fromkeys(num_references, False),
            }
        ]
        slow, failed = {}, {}
        for peer in found_peers:
            matrices = []
            row = {
                "package": f"{peer.package} {importlib.metadata.version(peer.package)}",
                "held_bytes_per_reference": size_of_reference,
                "seconds": {number: [] for number in num_references},
                "is_estimate": dict.fromkeys(num_references, False),
            }
            rows.append(row)
            start = time.perf_counter()
            try:
                peak = peak_memory(lambda p=peer, m=matrices: m.append(compare_once(p, one_batch)), device)
                batch_s = time.perf_counter() - start
                row["extra_bytes"] = peak - bare_peak
                if batch_s < limit_s / 4:  # Without what looking at the memory takes.
                    batch_s = timed(lambda p=peer: compare_once(p, one_batch), device)
                is_slow = batch_s * len(batches) > limit_s / 4
                matrix = matrices[0] if is_slow else compare_once(peer, loader)
            except Exception as error:  # noqa: BLE001  # Whatever it raises: that is the result.
                failed[peer.package] = row["failed"] = f"{type(error).__name__}: {error}"
                continue
            is_of_last = peer.last_batch_only or is_slow
            row["error_is_of_one_batch"] = is_slow
            for key, chosen in (("error", slice(-1, None) if is_of_last else slice(None)),
                                ("error_of_all_batches", slice(None))):  # fmt: skip
                expected = truth.matrix(chosen)
                row[key] = truth.errors(matrix, expected.clamp(0, 1) if peer.clamped else expected)
            if is_slow:
                row["error_of_all_batches"] = None if not peer.last_batch_only else row["error_of_all_batches"]
            for number in num_references:
                expected_s = batch_s * len(batches) * EPOCHS * number
                if expected_s > limit_s:
                    slow[peer.package, number] = expected_s
        for _ in range(repeats):
            for number in num_references:
                rows[0]["seconds"][number].append(ours(number))
                for peer, row in zip(found_peers, rows[1:], strict=True):
                    if peer.package not in failed and (peer.package, number) not in slow:
                        row["seconds"][number].append(theirs(peer, number))
        for peer, row in zip(found_peers, rows[1:], strict=True):
            for number in num_references:
                if (peer.package, number) in slow:
                    row["seconds"][number] = [slow[peer.package, number]]
                    row["is_estimate"][number] = True
        module.load_state_dict(weights)
        header = {"network": name, "layers": len(names), "samples": samples, "batch": network.batch}
        return [header | {"post_relu_layers": int(truth.post_relu.sum())} | row for row in rows]

    layers = network.peer_layers or network.layers
    return at_validation(work, network, samples=samples, device=device, folder=folder, layers=layers)


def rows_of(found):
    """Of the table: one network."""
    ours = found[0]
    rows = []
    for each in found:
        row = {"network (layers)": f"{each['network']} ({each['layers']})", "package": each["package"]}
        if "failed" in each:
            rows.append(row | dict.fromkeys(list(rows[0])[2:], "–") | {"error": each["failed"][:60]})
            continue
        for number, times in each["seconds"].items():
            about = "about " if each["is_estimate"][number] else ""
            row[f"R = {number}"] = about + seconds(times)
            faster = statistics.median(times) / statistics.median(ours["seconds"][number])
            if len(times) == len(ours["seconds"][number]):
                each_faster = [a / b for a, b in zip(times, ours["seconds"][number], strict=True)]
                row[f"times ours, R = {number}"] = "1" if each is ours else with_range(each_faster, "{:.1f}")
            else:
                row[f"times ours, R = {number}"] = f"about {faster:.0f}"
        row["extra memory, MiB"] = mib(each["extra_bytes"])
        row["held per reference, MiB"] = mib(each["held_bytes_per_reference"])
        error, whole = each["error"], each["error_of_all_batches"]
        row["error"] = f"{error['all']:.0e}"
        row["error after ReLU"] = "–" if error["relu"] is None else f"{error['relu']:.0e}"
        row["error to all batches"] = "–" if whole is None else f"{whole['all']:.0e}"
        rows.append(row)
    return rows
