"""Default layers are what a person would plot."""

import pytest
import torch
from example_models import plan_of
from scaled_layers import Scaled
from torch import nn

N = 8


class FusedLinear(nn.Linear):
    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        self.act = nn.ReLU()

    def forward(self, x):
        return self.act(super().forward(x))


class FakeQuantizedLinear(nn.Linear):
    """A layer as of quantisation-aware training."""

    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        self.weight_fake_quant, self.post = nn.Identity(), nn.Sequential(nn.Identity(), nn.Identity())

    def forward(self, x):
        return self.post(nn.functional.linear(x, self.weight_fake_quant(self.weight), self.bias))


class OwnAttention(nn.Module):
    """Attention with weights of its own."""

    def __init__(self, d):
        super().__init__()
        self.qkv, self.drop = nn.Parameter(torch.randn(d, 3 * d)), nn.Dropout()

    def forward(self, x):
        q, k, v = (x @ self.qkv).chunk(3, -1)
        return self.drop((q @ k.mT).softmax(-1)) @ v


class Functional(nn.Module):
    """Uses its children's weights without running them."""

    def __init__(self, d):
        super().__init__()
        self.parts = nn.ModuleList([nn.Linear(d, d) for _ in range(3)])

    def forward(self, x):
        return x @ torch.stack([part.weight for part in self.parts]).sum(0)


@pytest.mark.parametrize("layer", [FusedLinear(4, 4), FakeQuantizedLinear(4, 4), OwnAttention(4), Functional(4)])
def test_modules_whose_inner_modules_give_no_row_are_one_layer(layer):
    net = nn.Sequential(nn.Linear(4, 4), layer, nn.Linear(4, 2))
    assert plan_of(net, [torch.randn(N, 5, 4)]).names == ("0", "1", "2")


def test_quantisation_aware_layers_of_torch():
    qat = pytest.importorskip("torch.ao.nn.qat")
    config = pytest.importorskip("torch.ao.quantization").default_qat_qconfig
    net = nn.Sequential(qat.Linear(4, 4, qconfig=config), nn.ReLU(), qat.Linear(4, 2, qconfig=config))
    assert plan_of(net, [torch.randn(N, 4)]).names == ("0", "2")


def test_transformer_encoders_keep_their_attention(caplog):
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)
    names = plan_of(encoder, [torch.randn(N, 5, 8)]).names
    places = ("self_attn", "norm1", "linear1", "linear2", "norm2")
    assert names == tuple(f"layers.{i}.{place}" for i in range(2) for place in places)
    assert "out_proj" not in caplog.text


class Experts(nn.Module):
    """A mixture of experts whose weights are stacked."""

    def __init__(self, d):
        super().__init__()
        self.weights, self.act = nn.Parameter(torch.randn(2, d, d)), nn.ReLU()

    def forward(self, tokens, gates):
        return sum(self.act(tokens @ w) * gates[:, i : i + 1] for i, w in enumerate(self.weights))


class Mixture(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.gate, self.experts = nn.Linear(d, 2), Experts(d)

    def forward(self, x):
        tokens = x.flatten(0, 1)
        return self.experts(tokens, self.gate(tokens).softmax(-1)).view_as(x)


class ListOfExperts(nn.Module):
    """A mixture of experts that each get some of the tokens."""

    def __init__(self, d):
        super().__init__()
        self.gate, self.experts = nn.Linear(d, 2), nn.ModuleList([nn.Linear(d, d), nn.Linear(d, d)])

    def forward(self, x):
        tokens = x.flatten(0, 1)
        chosen, out = self.gate(tokens).argmax(-1), torch.zeros_like(tokens)
        for i, expert in enumerate(self.experts):
            out[chosen == i] = expert(tokens[chosen == i])
        return out.view_as(x)


@pytest.mark.parametrize("mixture", [Mixture, ListOfExperts])
def test_mixtures_of_experts_are_one_layer_and_their_parts_are_named(mixture, caplog):
    torch.manual_seed(0)  # An expert may get as many tokens as there are samples, by chance.
    net = nn.Sequential(nn.Linear(4, 4), mixture(4), nn.Linear(4, 2))
    assert plan_of(net, [torch.randn(N, 5, 4)]).names == ("0", "1", "2")
    assert "1.gate" in caplog.text
    assert "1.experts" in caplog.text


class Embeddings(nn.Module):
    """Adds parameters of its own to what a child gives."""

    def __init__(self, d):
        super().__init__()
        self.projection, self.norm, self.position = nn.Linear(d, d), nn.LayerNorm(d), nn.Parameter(torch.randn(5, d))

    def forward(self, x):
        return self.norm(self.projection(x)) + self.position


class Biased(nn.Module):
    """Has a parameter of its own, but gives what its last child gives."""

    def __init__(self, d):
        super().__init__()
        self.bias, self.qkv, self.proj = nn.Parameter(torch.randn(5, 5)), nn.Linear(d, 3 * d), nn.Linear(d, d)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, -1)
        return self.proj((q @ k.mT + self.bias).softmax(-1) @ v)


def test_outputs_of_modules_with_own_parameters_count_if_no_child_has_them():
    net = nn.Sequential(Embeddings(4), Biased(4))
    names = ("0.projection", "0.norm", "0", "1.qkv", "1.proj")
    assert plan_of(net, [torch.randn(N, 5, 4)]).names == names


class Lora(nn.Module):
    """Adds a low-rank product to a frozen layer."""

    def __init__(self, base, rank=2):
        super().__init__()
        self.base_layer, self.drop = base.requires_grad_(False), nn.ModuleDict({"default": nn.Dropout()})
        self.lora_A = nn.ModuleDict({"default": nn.Linear(base.in_features, rank, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(rank, base.out_features, bias=False)})

    def forward(self, x):
        delta = self.lora_B["default"](self.lora_A["default"](self.drop["default"](x)))
        return self.base_layer(x) + delta


class OwnLora(nn.Module):
    """The same with parameters of its own."""

    def __init__(self, base, rank=2):
        super().__init__()
        self.wrapped, self.a = base, nn.Parameter(torch.randn(base.in_features, rank))
        self.b = nn.Parameter(torch.zeros(rank, base.out_features))

    def forward(self, x):
        return self.wrapped(x) + x @ self.a @ self.b


class Merged(Lora):
    """Has its adapter merged into the base layer."""

    def forward(self, x):
        return self.base_layer(x)


@pytest.mark.parametrize("adapt", [Lora, OwnLora, Scaled, Merged])
@pytest.mark.parametrize("width", [12, 16])
def test_adapted_outputs_are_compared(adapt, width, caplog):
    net = nn.Sequential(nn.Linear(12, 12), adapt(nn.Linear(12, width)), nn.ReLU(), adapt(nn.Linear(width, 12)))
    assert plan_of(net, [torch.randn(N, 12)]).names == ("0", "1", "3")
    assert "a part of an adapted layer, whose output is compared" in caplog.text


def test_adapters_of_peft():
    peft = pytest.importorskip("peft")
    net = nn.Sequential(nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 12))
    model = peft.get_peft_model(net, peft.LoraConfig(target_modules=["0"], r=2))
    assert plan_of(model, [torch.randn(N, 12)]).names == ("0", "2")


class Block(nn.Module):
    """A block whose first layer has its input, its output's shape, and most of its weights."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.norm(self.conv(x)).relu()


class SqueezeAndExcite(Block):
    def forward(self, x):
        y = self.conv(x)
        return y * self.norm(y.mean((2, 3), keepdim=True)).sigmoid()


class Parallel(nn.Module):
    """Two branches of equal size."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        return self.conv(x) + self.norm(x)


@pytest.mark.parametrize("block", [Block(), SqueezeAndExcite(), Parallel()])
def test_ordinary_blocks_are_no_adapters(block):
    assert plan_of(nn.Sequential(block), [torch.randn(N, 3, 5, 5)]).names == ("0.conv", "0.norm")


def test_an_embedding_larger_than_the_rest_is_no_adapted_layer():
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.position = nn.Embedding(1000, 4), nn.Parameter(torch.randn(5, 4))
            self.mix = nn.Linear(4, 4)

        def forward(self, ids):
            return self.mix(self.embed(ids) + self.position)

    assert plan_of(nn.Sequential(Encoder()), [torch.randint(1000, (N, 5))]).names == ("0.embed", "0.mix")


def test_a_feature_fn_for_leaves_need_not_fit_containers():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            return {"a": self.layer(x)}

    net = Pair()
    assert plan_of(nn.Sequential(net), [torch.randn(N, 4)], feature_fn=lambda output: output[:, :2]).names == (
        "0.layer",
    )
