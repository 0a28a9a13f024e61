"""The default layers of twelve kinds of models are those that a person would plot."""

import pytest
import torch
from default_models import TFT, GraphNetwork, LSTMClassifier, UNet
from example_models import plan_of
from lightning_cka.probe.repeated_blocks import repeated_blocks
from torch import nn

N = 8
SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
IDS = torch.randint(1, 50, (N, 6), generator=torch.Generator().manual_seed(0))
WORDS = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}


def image(size=16):
    return torch.randn(N, 3, size, size, generator=torch.Generator().manual_seed(1))


def rows(model, batch, **kwargs):
    return list(plan_of(model.eval(), [batch], **kwargs).names)


def rows_of(model, batch):
    return rows(model, batch, forward_fn=lambda model, batch: model(**batch))


def numbered(prefix, number):
    return [f"{prefix}.{place}" for place in range(number)]


def test_bert():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(vocab_size=50, num_hidden_layers=12, **SMALL)
    names = rows_of(transformers.BertForSequenceClassification(config), WORDS)
    assert names == ["bert.embeddings", *numbered("bert.encoder.layer", 12), "bert.pooler", "classifier"]


def test_t5():
    """Both stacks count. Their blocks contain lists of unlike sublayers, which are no stack."""
    transformers = pytest.importorskip("transformers")
    config = transformers.T5Config(
        vocab_size=50, d_model=16, d_kv=8, d_ff=32, num_layers=3, num_heads=2, decoder_start_token_id=0
    )
    names = rows_of(transformers.T5ForConditionalGeneration(config), WORDS | {"labels": IDS})
    sides = [[*numbered(f"{side}.block", 3), f"{side}.final_layer_norm"] for side in ("encoder", "decoder")]
    # Versions differ in whether the shared embedding has one name or two.
    assert [name for name in names if "embed" not in name and name != "shared"] == [*sides[0], *sides[1], "lm_head"]


def test_whisper():
    transformers = pytest.importorskip("transformers")
    sizes = {f"{side}_{size}": value for side in ("encoder", "decoder") for size, value in
             {"layers": 3, "attention_heads": 2, "ffn_dim": 32}.items()}  # fmt: skip
    config = transformers.WhisperConfig(
        vocab_size=50, d_model=16, num_mel_bins=8, max_source_positions=20, max_target_positions=10, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, suppress_tokens=None, begin_suppress_tokens=None,
        **sizes,
    )  # fmt: skip
    batch = {"input_features": torch.randn(N, 8, 40), "decoder_input_ids": IDS}
    names = rows_of(transformers.WhisperForConditionalGeneration(config), batch)
    encoder = ["conv1", "conv2", *numbered("layers", 3), "layer_norm"]
    decoder = [*numbered("layers", 3), "layer_norm"]
    assert names[:6] == [f"model.encoder.{name}" for name in encoder]
    assert names[-5:] == [*(f"model.decoder.{name}" for name in decoder), "proj_out"]
    assert all("embed" in name for name in names[6:-5])


def test_clip():
    transformers = pytest.importorskip("transformers")
    text = {"vocab_size": 60, "num_hidden_layers": 3, "max_position_embeddings": 10, "eos_token_id": 59} | SMALL
    vision = {"num_hidden_layers": 3, "image_size": 16, "patch_size": 4} | SMALL
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    names = rows_of(transformers.CLIPModel(config), WORDS | {"pixel_values": image()})
    of_text = ["text_model.embeddings", *numbered("text_model.encoder.layers", 3), "text_model.final_layer_norm"]
    blocks = numbered("vision_model.encoder.layers", 3)
    norms = ["vision_model.pre_layrnorm", "vision_model.post_layernorm"]
    of_vision = ["vision_model.embeddings", norms[0], *blocks, norms[1]]
    assert [name for name in names if name.startswith("text_model")] == of_text
    assert [name for name in names if name.startswith("vision_model")] == of_vision
    assert set(names) - {*of_text, *of_vision} == {"text_projection", "visual_projection"}


def test_mixtral():
    """Experts have no row per sample: the blocks' outputs have."""
    transformers = pytest.importorskip("transformers")
    config = transformers.MixtralConfig(
        vocab_size=50, num_hidden_layers=3, num_key_value_heads=2, num_local_experts=4, **SMALL
    )
    names = rows_of(transformers.MixtralForCausalLM(config), WORDS)
    assert names == ["model.embed_tokens", *numbered("model.layers", 3), "model.norm", "lm_head"]


def test_hugging_face_vit_and_convnext():
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(num_hidden_layers=3, image_size=16, patch_size=4, **SMALL)
    names = rows_of(transformers.ViTForImageClassification(config), {"pixel_values": image()})
    assert [name.rpartition(".")[2] for name in names] == ["embeddings", "0", "1", "2", "layernorm", "classifier"]
    config = transformers.ConvNextConfig(hidden_sizes=[8, 16, 16, 16], depths=[1, 1, 3, 1])
    names = rows_of(transformers.ConvNextForImageClassification(config), {"pixel_values": image(32)})
    blocks = [name for name in names if ".layers." in name]
    stages = [(0, 0), (1, 0), (2, 0), (2, 1), (2, 2), (3, 0)]
    assert blocks == [f"convnext.encoder.stages.{stage}.layers.{place}" for stage, place in stages]
    assert not {"convnext.encoder.stages.0", "convnext.encoder.stages.2"} & set(names)


def test_timm_convnext():
    timm = pytest.importorskip("timm")
    names = rows(timm.create_model("convnext_atto", num_classes=5), image(32))
    depths = (2, 2, 6, 2)
    stages = [[f"stages.{i}.downsample", *numbered(f"stages.{i}.blocks", depth)] for i, depth in enumerate(depths)]
    assert names == ["stem", *[name for stage in stages for name in stage][1:], "head"]


def test_timm_vit():
    timm = pytest.importorskip("timm")
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=5)
    assert rows(model, image(32)) == ["patch_embed", *numbered("blocks", 12), "norm", "head"]


def test_timm_efficientnet():
    """The first block has another class than the others."""
    timm = pytest.importorskip("timm")
    names = rows(timm.create_model("efficientnet_b0", num_classes=5), image(32))
    blocks = [f"blocks.{i}.{j}" for i, depth in enumerate((1, 2, 2, 3, 3, 4, 1)) for j in range(depth)]
    assert names == ["conv_stem", "bn1", *blocks, "conv_head", "bn2", "classifier"]


def test_unet():
    assert rows(UNet(), image()) == ["inc", "down1", "down2", "down3", "up1", "up2", "up3", "outc"]


def test_graph_network():
    batch = torch.randn(N, 5, 8 + 5)
    assert rows(GraphNetwork(), batch) == ["embed", "convs.0", "convs.1", "convs.2", "readout"]
    # Convolutions with a row for each node cannot be compared, so there are no blocks.
    assert rows(GraphNetwork(flat=True), batch) == ["readout.0", "readout.2"]


def test_temporal_fusion_transformer():
    variables = ("price", "promo", "weekday", "month")
    assert rows(TFT(), torch.randn(N, 6, 4)) == [
        *(f"prescalers.{name}" for name in variables),
        "selection.weights",
        *(f"selection.grns.{name}" for name in variables),
        *("lstm", "gate_lstm", "enrichment", "attention", "feed_forward", "output"),
    ]


def test_lstm():
    assert rows(LSTMClassifier(), torch.randint(20, (N, 6))) == ["embed", "lstm", "head"]


# What is a stack.


class Block(nn.Module):
    def __init__(self, d=4, scale=1.0):
        super().__init__()
        self.norm, self.fc, self.scale = nn.LayerNorm(d), nn.Linear(d, d), scale

    def forward(self, x):
        return x + self.scale * self.fc(self.norm(x)).relu()


class Heads(nn.Module):
    """Several like branches of one input."""

    def __init__(self, count, d=4):
        super().__init__()
        self.heads = nn.ModuleList(nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, d)) for _ in range(count))
        self.mix = nn.Linear(count * d, d)

    def forward(self, x):
        return x + self.mix(torch.cat([head(x) for head in self.heads], -1))


class NamedSiblings(nn.Module):
    def __init__(self):
        super().__init__()
        self.entry, self.middle, self.exit = Block(), Block(), Block()

    def forward(self, x):
        return self.exit(self.middle(self.entry(x)))


def vectors():
    return torch.randn(N, 4)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        # Three layers without layers inside are no blocks.
        (nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 4)), ["0", "1", "2"]),
        # Two are no stack.
        (nn.Sequential(Block(), Block()), ["0.norm", "0.fc", "1.norm", "1.fc"]),
        (nn.Sequential(nn.Linear(4, 4), *[Block() for _ in range(3)]), ["0", "1", "2", "3"]),
        # Blocks whose output is their input, as where the last weights start at zero, are no branches.
        (nn.Sequential(*[Block(scale=0.0) for _ in range(3)]), ["0", "1", "2"]),
        (nn.Sequential(*[nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(3)]), ["0", "1", "2"]),
        (nn.Sequential(Heads(3)), [*[f"0.heads.{i}.{j}" for i in range(3) for j in (0, 2)], "0.mix"]),
        (nn.Sequential(*[Heads(3) for _ in range(3)]), ["0", "1", "2"]),
        (NamedSiblings(), ["entry", "middle", "exit"]),
        # Stages: their blocks count, also where a stage has one.
        (
            nn.Sequential(*[nn.Sequential(*[Block() for _ in range(depth)]) for depth in (2, 1, 2)]),
            ["0.0", "0.1", "1.0", "2.0", "2.1"],
        ),
        # What is around the blocks is one layer if it is as small as a block.
        (
            nn.Sequential(
                nn.Sequential(nn.Linear(4, 4), nn.ReLU()),
                nn.Sequential(*[Block() for _ in range(3)]),
                nn.Sequential(*[nn.Linear(4, 4) for _ in range(3)]),
            ),
            ["0", "1.0", "1.1", "1.2", "2.0", "2.1", "2.2"],
        ),
        # Parametrizations are no layers.
        (
            nn.Sequential(*[nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)) for _ in range(3)]),
            ["0", "1", "2"],
        ),
    ],
)
def test_stacks(model, expected):
    assert rows(model, vectors()) == expected


def test_adapted_layers_inside_blocks_count_too():
    class Lora(nn.Module):
        def __init__(self, base):
            super().__init__()
            self.base_layer, d = base.requires_grad_(False), base.in_features
            self.down, self.up = nn.Linear(d, 1, bias=False), nn.Linear(1, d, bias=False)

        def forward(self, x):
            return self.base_layer(x) + self.up(self.down(x))

    model = nn.Sequential(*[Block() for _ in range(3)], nn.Linear(4, 2))
    for block in model[:3]:
        block.fc = Lora(block.fc)
    assert rows(model, vectors()) == ["0.fc", "0", "1.fc", "1", "2.fc", "2", "3"]


@pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")  # peft uses names that transformers deprecates.
def test_adapters_of_peft_in_a_transformer():
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    model = transformers.BertModel(transformers.BertConfig(vocab_size=50, num_hidden_layers=3, **SMALL))
    model = peft.get_peft_model(model, peft.LoraConfig(target_modules=["query", "value"], r=2))
    names = [name.removeprefix("base_model.model.") for name in rows_of(model, WORDS)]
    blocks = [
        [f"encoder.layer.{i}.attention.self.query", f"encoder.layer.{i}.attention.self.value", f"encoder.layer.{i}"]
        for i in range(3)
    ]
    assert names == ["embeddings", *(name for block in blocks for name in block), "pooler"]


def test_no_layers_have_no_blocks():
    assert repeated_blocks([], {}, {}) == []
