"""`FrozenLayers`: layers of a model that get no gradients, until they are to be trained again."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import Optimizer

from lightning_cka.runtime.module_names import named_layers
from lightning_cka.runtime.nested import tensors_in


class FrozenLayers:
    """Switches ``requires_grad`` of parameters off and on again, and keeps batch norms of frozen layers in eval mode.

    Parameters that did not require gradients before are left alone. So are those that are shared with a module outside
    of the frozen layers, such as tied embeddings. Optimizers keep the parameters: they skip those without a gradient,
    and their states stay as they are.

    Args:
        model: The model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._parameters: dict[int, nn.Parameter] = {}
        self._norms: dict[int, nn.Module] = {}
        self._in_eval: dict[int, nn.Module] = {}

    def set(self, names: Collection[str]) -> None:
        """Freeze the layers of these names, and no others. Each process must call this between two optimizer steps."""
        inside = self._modules_of(names)
        own = self._own_parameters(inside)
        for key in [key for key in self._parameters if key not in own]:
            self._parameters.pop(key).requires_grad_(True)
        for key, parameter in own.items():
            if parameter.requires_grad:
                self._parameters[key] = parameter
                parameter.requires_grad_(False)
                parameter.grad = None
        self._norms = {
            key: each for key, each in inside.items() if isinstance(each, _NormBase) and each.track_running_stats
        }
        for key in [key for key in self._in_eval if key not in self._norms]:
            self._in_eval.pop(key).train()

    def keep_in_eval(self) -> None:
        """Switch batch norms of frozen layers to eval mode again, if something has switched them to training mode."""
        for key, norm in self._norms.items():
            if norm.training:
                self._in_eval[key] = norm.eval()

    def shared(self, names: Collection[str]) -> list[str]:
        """Return the trainable parameters of some layers that other modules share, so that they cannot be frozen."""
        inside = self._modules_of(names)
        own, all_of = self._own_parameters(inside), _parameters(inside.values())
        named = self._model.named_parameters()
        return [name for name, p in named if id(p) in all_of and id(p) not in own and p.requires_grad]

    def held(self, names: Iterable[str]) -> list[str]:
        """Return those of some layers that have parameters, but none that trains, and are not frozen here."""
        layers = named_layers(self._model)
        own = {name: list(layers[name].parameters()) for name in names if name in layers}
        return [
            name
            for name, found in own.items()
            if found and not any(p.requires_grad or id(p) in self._parameters for p in found)
        ]

    def number_allowed(self, names: Sequence[str], optimizers: Iterable[Optimizer]) -> int:
        """Return how many of some layers, from the first one on, can be frozen at most.

        Each optimizer that has something to train now must keep something to train. Otherwise a loss may have no
        gradient, which torch takes for an error.
        """
        groups = [[p for group in each.param_groups for p in group["params"]] for each in optimizers]
        trained = [found for group in groups if (found := [p for p in group if p.requires_grad])]
        for number in range(len(names), 0, -1):
            own = self._own_parameters(self._modules_of(names[:number]))
            if all(any(id(p) not in own for p in group) for group in trained):
                return number
        return 0

    def reached_from(self, output: Any) -> list[str]:
        """Return the names of the parameters that a backward pass from the output of a layer would reach."""
        names = {id(p): name for name, p in self._model.named_parameters()}
        return [names[id(leaf)] for leaf in _leaves(output) if id(leaf) in names]

    def _modules_of(self, names: Collection[str]) -> dict[int, nn.Module]:
        layers = named_layers(self._model)
        return {id(each): each for name in names if name in layers for each in layers[name].modules()}

    def _own_parameters(self, inside: dict[int, nn.Module]) -> dict[int, nn.Parameter]:
        """Return the parameters of some modules that no other module has, by their identity."""
        others = _parameters(each for each in self._model.modules() if id(each) not in inside)
        return {key: p for key, p in _parameters(inside.values()).items() if key not in others}


def _parameters(modules: Iterable[nn.Module]) -> dict[int, nn.Parameter]:
    return {id(p): p for each in modules for p in each.parameters(recurse=False)}


def _leaves(output: Any) -> Iterator[Tensor]:
    """Yield the leaf tensors in the graph of an output."""
    nodes = [tensor.grad_fn for tensor in tensors_in(output) if tensor.grad_fn is not None]
    seen = set()
    while nodes:
        node = nodes.pop()
        if node in seen:
            continue
        seen.add(node)
        if (leaf := getattr(node, "variable", None)) is not None:
            yield leaf
        nodes += [before for before, _ in node.next_functions if before is not None]
