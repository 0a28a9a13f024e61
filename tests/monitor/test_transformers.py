"""Small models of the `transformers` library with random weights; nothing is downloaded."""

import lightning as L
import pytest
import torch
from lightning_cka import compare_models
from observed import Wrapped, assert_same, expected_matrix, monitored_result
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

transformers = pytest.importorskip("transformers")

pytestmark = [
    pytest.mark.usefixtures("_without_figures"),
    pytest.mark.filterwarnings("ignore:CKA( with '.*')?. layers (that|whose)"),
]

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def bert():
    return transformers.BertModel(transformers.BertConfig(vocab_size=50, max_position_embeddings=32, **SMALL))


def gpt2():
    ids = {"bos_token_id": 0, "eos_token_id": 0}
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2, n_positions=32, **ids)
    )


def vit():
    return transformers.ViTModel(transformers.ViTConfig(image_size=8, patch_size=4, num_channels=1, **SMALL))


def sentences(n=64):
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(2, 9, (n,), generator=generator).tolist()
    return [torch.randint(1, 50, (length,), generator=generator) for length in lengths]


def collate_padded(extra=0):
    """Return a collate_fn that pads to the longest sentence of a batch, plus `extra` tokens."""

    def collate(samples):
        ids = torch.nn.functional.pad(pad_sequence(samples, batch_first=True), (0, extra))
        return {"input_ids": ids, "attention_mask": (ids != 0).long()}

    return collate


def collate_labelled(samples):
    batch = collate_padded()(samples)
    return batch | {"labels": batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)}


class NamedArguments(Wrapped):
    """forward names the entries of the batch."""

    def forward(self, input_ids, attention_mask, labels=None):
        return self.net(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state


class KeywordArguments(Wrapped):
    """forward takes the entries of the batch as **batch."""

    def forward(self, **batch):
        return self.net(**batch)

    def training_step(self, batch, batch_idx):
        output = self(**batch)
        return output.loss if "labels" in batch else output.last_hidden_state.square().mean()


class NoForward(L.LightningModule):
    """The steps call the network; there is no forward."""

    def __init__(self):
        super().__init__()
        self.scale, self.bert = torch.nn.Parameter(torch.ones(())), bert()

    def training_step(self, batch, batch_idx):
        return self.scale * self.bert(**batch).last_hidden_state.square().mean()

    def validation_step(self, batch, batch_idx):
        self.training_step(batch, batch_idx)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def first(output):
    return output if isinstance(output, torch.Tensor) else output[0]


def mean_of_tokens(output, batch):
    masks = batch["attention_mask"].bool()
    return torch.stack([tokens[mask].mean(0) for tokens, mask in zip(first(output), masks, strict=True)])


def show_keywords(module, batch):
    module(**batch)


@pytest.mark.parametrize("wrapper", [NamedArguments, KeywordArguments])
def test_the_mean_leaves_out_padding(wrapper):
    module = wrapper(bert())
    names = [f"net.{name}" for name in ("embeddings", "encoder.layer.0.attention", "encoder.layer.1", "encoder")]
    result = monitored_result(module, sentences(), collate_padded(), [*names, "net.pooler", "net"], feature_fn="mean")
    reads = dict.fromkeys(names, mean_of_tokens) | {"net.pooler": lambda output, _: output, "net": mean_of_tokens}
    assert result.layers == tuple(reads)
    assert_same(result, expected_matrix(module, sentences(), reads, collate_padded(), show_keywords))
    # The feature of a ModelOutput is its last hidden state, which is the encoder's output.
    assert result.matrix[-1, -3] == pytest.approx(1, abs=1e-9)
    # Positive control: a mean with padding gives other values.
    with_padding = reads | {names[2]: lambda output, _: first(output).mean(1)}
    assert (
        result.matrix - expected_matrix(module, sentences(), with_padding, collate_padded(), show_keywords)
    ).abs().max() > 0.01


@pytest.mark.parametrize("feature_fn", ["mean", "cls", "last"])
def test_values_do_not_depend_on_the_padded_length(feature_fn):
    module = NamedArguments(bert(), lr=0.0)
    layers = ["net.embeddings", "net.encoder.layer.*.output", "net.pooler"]
    short, long = (
        monitored_result(module, sentences(), collate_padded(extra), layers, feature_fn=feature_fn).matrix
        for extra in (0, 7)
    )
    torch.testing.assert_close(short, long, rtol=0, atol=1e-5)


def test_the_mask_is_found_in_a_tuple_and_with_any_forward_fn():
    module = NamedArguments(bert(), lr=0.0)
    layers = ["net.embeddings", "net.encoder.layer.*.output"]
    batches = list(DataLoader(sentences(), batch_size=8, collate_fn=collate_padded(2)))
    expected, *others = (
        compare_models(module, module, shown, layers, feature_fn="mean", progress_bar=False, **kwargs).matrix
        for shown, kwargs in (
            (batches, {}),
            ([(batch, torch.zeros(8)) for batch in batches], {}),
            (batches, {"forward_fn": lambda module, batch: module.net(*batch.values())}),
        )
    )
    for other in others:
        assert torch.equal(other, expected)


def test_a_warning_names_sentences_without_tokens():
    data = sentences()
    data[5] = torch.zeros(3, dtype=torch.long)
    with pytest.warns(UserWarning) as caught:
        result = monitored_result(
            NamedArguments(bert()), data, collate_padded(), ["net.embeddings", "net.encoder"], feature_fn="mean"
        )
    messages = [str(warning.message) for warning in caught]
    assert "attention_mask leaves no token of samples (dataset index) 5: their features are nan" in messages
    assert result.matrix.isnan().all()


def test_an_additive_mask_raises():
    def collate(samples):
        batch = collate_padded()(samples)
        return batch | {"attention_mask": (batch["attention_mask"] - 1.0) * 1e4}

    with pytest.raises(ValueError, match=r"attention_mask has negative values.* expect 1 for a token"):
        monitored_result(NamedArguments(bert()), sentences(), collate, ["net.embeddings"], feature_fn="mean")


class Halved(torch.nn.Module):
    """The output has half as many tokens as the mask."""

    def __init__(self):
        super().__init__()
        self.bert, self.pool = bert(), torch.nn.AvgPool1d(2)

    def forward(self, **batch):
        return self.pool(self.bert(**batch).last_hidden_state.transpose(1, 2)).transpose(1, 2)


def test_a_mean_over_padding_warns():
    class Pooled(KeywordArguments):
        def training_step(self, batch, batch_idx):
            return self(**batch).square().mean()

    with pytest.warns(
        UserWarning, match=r"includes padding in the features of layers whose output.*\(8, 13\).*: net.pool"
    ):
        monitored_result(
            Pooled(Halved()), sentences(), collate_padded(5), ["net.bert.encoder", "net.pool"], feature_fn="mean"
        )


def test_a_language_model_with_labels_and_tied_weights(caplog):
    module = KeywordArguments(gpt2())
    assert module.net.lm_head.weight is module.net.transformer.wte.weight
    names = ("net.transformer.wte", "net.transformer.h.0.attn.c_attn", "net.transformer.h.1", "net.transformer")
    reads = dict.fromkeys((*names, "net.lm_head"), lambda output, _: first(output))
    # The whole network returns a loss, logits and a cache; only the logits have one entry per sample.
    reads["net"] = lambda output, _: output.logits
    result = monitored_result(module, sentences(), collate_labelled, list(reads))
    assert result.layers == tuple(reads)
    assert_same(result, expected_matrix(module, sentences(), reads, collate_labelled, show_keywords))
    assert result.matrix[-1, -2] == pytest.approx(1, abs=1e-9)
    every = monitored_result(module, sentences(), collate_labelled)
    assert {"net.transformer.wte", "net.lm_head"} < set(every.layers)
    assert "layer 'net.transformer.wpe' (Tensor(1, 8, 16) float32) has no dimension with one entry" in caplog.text


def test_patterns_leave_out_layers_that_do_not_run(caplog):
    result = monitored_result(KeywordArguments(bert()), sentences(), collate_padded(), "net.encoder.layer.**")
    assert "net.encoder.layer.1.output.dropout" in result.layers
    assert "CKA leaves out of layers=: layer 'net.encoder.layer.0.attention.self.dropout' (Dropout)" in caplog.text
    with pytest.raises(ValueError, match=r"self.dropout' \(Dropout\) did not run in forward.*Choose other layers"):
        monitored_result(
            KeywordArguments(bert()), sentences(), collate_padded(), "net.encoder.layer.*.attention.self.dropout"
        )
    with pytest.raises(ValueError, match=r"self.dropout' \(Dropout\) did not run in forward.*Choose other layers"):
        monitored_result(
            KeywordArguments(bert()),
            sentences(),
            collate_padded(),
            ["net.*", "net.encoder.layer.0.attention.self.dropout"],
        )


def test_an_image_transformer():
    generator = torch.Generator().manual_seed(1)
    images = [(torch.randn(1, 8, 8, generator=generator), 0) for _ in range(64)]

    class Images(Wrapped):
        def forward(self, images):
            return self.net(images).last_hidden_state

    module = Images(vit())
    assert "net.embeddings.patch_embeddings.projection" in monitored_result(module, images).layers
    reads = {
        "net.embeddings.patch_embeddings.projection": lambda output, _: output,
        "net.layers.0": lambda output, _: output[:, 0],
        "net": lambda output, _: output.last_hidden_state[:, 0],
    }
    assert_same(
        monitored_result(module, images, layers=list(reads), feature_fn="cls"), expected_matrix(module, images, reads)
    )


def test_a_module_without_forward_raises_and_names_a_forward_fn():
    with pytest.raises(
        ValueError, match="NoForward could not be shown a probe batch, since it defines no forward: pass"
    ) as caught:
        monitored_result(NoForward(), sentences(), collate_padded())
    entries = "input_ids=batch['input_ids'], attention_mask=batch['attention_mask']"
    assert f"forward_fn=lambda module, batch: module.bert({entries}). The batch is a dict of {{'input_ids':" in str(
        caught.value
    )


def test_a_module_without_forward_works_with_a_forward_fn():
    def show(module, batch):
        module.bert(**batch)

    module = NoForward()
    reads = dict.fromkeys(("bert.embeddings", "bert.encoder", "bert.pooler"), lambda output, _: first(output))
    result = monitored_result(module, sentences(), collate_padded(), list(reads), forward_fn=show)
    assert_same(result, expected_matrix(module, sentences(), reads, collate_padded(), show))
    with pytest.raises(
        ValueError, match=r"could not be shown a probe batch with this forward_fn.*dict of.*no attribute"
    ):
        monitored_result(
            NoForward(), sentences(), collate_padded(), forward_fn=lambda module, batch: module.model(**batch)
        )
