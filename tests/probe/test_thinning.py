"""Some of many layers are chosen by the repeated structure of the model."""

import torch
from example_models import plan_of
from lightning_cka.probe.thinning import thin_out
from lightning_cka.runtime.module_names import named_layers
from lightning_cka.runtime.spacing import spread_evenly
from scaled_layers import Scaled
from torch import nn


class Block(nn.Module):
    """A block as of a vision transformer."""

    def __init__(self):
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(4), nn.ModuleDict({"qkv": nn.Linear(4, 4), "proj": nn.Linear(4, 4)})
        self.norm2, self.mlp = nn.LayerNorm(4), nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4))

    def forward(self, x):
        x = x + self.attn["proj"](self.attn["qkv"](self.norm1(x)))
        return x + self.mlp(self.norm2(x))


class AdaptedBlock(Block):
    def __init__(self):
        super().__init__()
        self.attn["qkv"], self.attn["proj"] = Scaled(self.attn["qkv"]), Scaled(self.attn["proj"])
        self.mlp[0] = Scaled(self.mlp[0])


class Transformer(nn.Module):
    def __init__(self, depth, block=Block):
        super().__init__()
        self.stem, self.head = nn.Linear(4, 4), nn.Linear(4, 2)
        self.blocks = nn.ModuleList(block() for _ in range(depth))

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class Stages(nn.Module):
    """Stages of residual blocks, as in a ResNet."""

    def __init__(self, *depths):
        super().__init__()
        self.stem, self.head = nn.Linear(4, 4), nn.Linear(4, 2)
        for i, depth in enumerate(depths, 1):
            self.add_module(f"layer{i}", nn.Sequential(*[Block() for _ in range(depth)]))
        self.depths = depths

    def forward(self, x):
        x = self.stem(x)
        for i in range(len(self.depths)):
            x = self.get_submodule(f"layer{i + 1}")(x)
        return self.head(x)


def chosen(model):
    return plan_of(model, [torch.randn(8, 4)]).names


def test_the_outputs_of_three_blocks():
    assert chosen(Transformer(3)) == ("stem", "blocks.0", "blocks.1", "blocks.2", "head")


def test_the_leaves_of_few_blocks():
    names = chosen(Transformer(2))
    assert names[:4] == ("stem", "blocks.0.norm1", "blocks.0.attn.qkv", "blocks.0.attn.proj")
    assert len(names) == 14


def test_like_is_compared_with_like_over_depth(caplog):
    """The adapted layers of 20 blocks are too many: those of one place are left out."""
    names = chosen(Transformer(20, AdaptedBlock))
    blocks = [f"blocks.{i}" for i in range(20)]
    assert set(names) == {
        "stem",
        "head",
        *blocks,
        *(f"{block}.attn.{place}" for block in blocks for place in ("qkv", "proj")),
    }
    assert (names[0], names[-1]) == ("stem", "head")
    assert "CKA compares 62 of 82 layers, without blocks.*.mlp.0; choose others" in caplog.text


def test_blocks_of_several_stages_are_treated_alike():
    names = chosen(Stages(3, 8, 20, 3))
    blocks = {f"layer{stage}.{i}" for stage, depth in enumerate((3, 8, 20, 3), 1) for i in range(depth)}
    assert set(names) == {"stem", "head", *blocks}


def test_more_than_64_blocks_are_spread(caplog):
    names = chosen(Transformer(100))
    assert len(names) == 64
    assert (names[0], names[-1]) == ("stem", "head")
    assert all(name.count(".") <= 1 for name in names)
    assert "CKA compares 64 of 102 layers, evenly spaced; choose others" in caplog.text


def test_a_stack_of_leaves_with_a_head_is_spread():
    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.head = nn.Sequential(*[nn.Linear(4, 4) for _ in range(100)]), nn.Linear(4, 2)

        def forward(self, x):
            return self.head(self.net(x))

    names = chosen(Deep())
    assert len(names) == 64
    assert (names[0], names[-1]) == ("net.0", "head")


def test_layers_without_repeated_structure_are_spread():
    layers = {f"layer_{i}": nn.Linear(2, 2) for i in range(100)}
    thinned = thin_out(list(layers), list(layers), named_layers(nn.ModuleDict(layers)))
    assert (len(thinned.names), thinned.is_spread, thinned.names[-1]) == (64, True, "layer_99")


def test_spread_evenly():
    names = [str(i) for i in range(200)]
    chosen = spread_evenly(names, 64)
    assert len(set(chosen)) == 64
    assert (chosen[0], chosen[-1]) == ("0", "199")
    assert spread_evenly(names[:64], 64) == names[:64]
