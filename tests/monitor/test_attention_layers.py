"""Attention, the transformer layers of torch, and windows of tokens."""

import pytest
import torch
from lightning_cka import compare_models
from observed import Wrapped, assert_same, expected_matrix, monitored_result
from sequence_data import TakesLengths, collate_ragged, sequences, token_means
from torch import nn

pytestmark = [
    pytest.mark.usefixtures("_without_figures"),
    pytest.mark.filterwarnings("ignore:CKA( with '.*')?. layers (that|whose)"),
]


class Attending(nn.Module):
    def __init__(self, batch_first):
        super().__init__()
        self.embed, self.batch_first = nn.Linear(6, 8), batch_first
        self.attention = nn.MultiheadAttention(8, 2, batch_first=batch_first)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.embed(x if self.batch_first else x.transpose(0, 1))
        return self.head(self.attention(x, x, x)[0])


@pytest.mark.parametrize("batch_first", [True, False])
def test_attention(batch_first, caplog):
    module = Wrapped(Attending(batch_first))
    reads = {
        "net.embed": lambda output, _: output if batch_first else output.transpose(0, 1),
        "net.attention": lambda output, _: output[0] if batch_first else output[0].transpose(0, 1),
        "net.head": lambda output, _: output if batch_first else output.transpose(0, 1),
    }
    assert_same(monitored_result(module, sequences(), layers=list(reads)), expected_matrix(module, sequences(), reads))
    assert "out_proj" not in caplog.text
    # Attention uses the weights of out_proj without calling it: attention is one layer.
    assert monitored_result(module, sequences()).layers == ("net.embed", "net.attention", "net.head")
    assert "out_proj" not in caplog.text
    assert monitored_result(module, sequences(), layers=nn.Linear).layers == ("net.embed", "net.head")
    assert "CKA leaves out of layers=: layer 'net.attention.out_proj'" in caplog.text
    with pytest.raises(ValueError, match=r"'net.attention.out_proj' \(NonDyn.*\) did not run in forward"):
        monitored_result(module, sequences(), layers=["net.head", "net.attention.out_proj"])


class Encoder(nn.Module):
    """An encoder whose fast path, in evaluation mode, calls no submodule and uses nested tensors."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(6, 8)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True), 2)

    def forward(self, x, lengths):
        padding = torch.arange(x.shape[1]) >= lengths[:, None]
        return self.encoder(self.embed(x), src_key_padding_mask=padding)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize(("feature_fn", "read"), [("mean", token_means), ("flatten", lambda output, _: output)])
def test_the_fast_path_of_transformer_layers_hides_no_layer(feature_fn, read):
    class Masked(TakesLengths):
        def forward(self, x, lengths, attention_mask=None):
            return self.net(x, lengths)

    def masked(samples):
        batch = collate_ragged(samples)
        return batch | {"attention_mask": torch.arange(batch["x"].shape[1]) < batch["lengths"][:, None]}

    def show(module, batch):
        # Training mode does not use the fast path; the network has no dropout.
        module.train()
        module(**batch)

    module = Masked(Encoder())
    names = ["net.embed", "net.encoder.layers.0.linear1", "net.encoder.layers.0", "net.encoder.layers.1.norm2"]
    names += ["net.encoder"]
    result = monitored_result(module, sequences(), masked, names, feature_fn=feature_fn)
    assert result.layers == tuple(names)
    assert_same(result, expected_matrix(module, sequences(), dict.fromkeys(names, read), masked, show))
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize("enabled", [True, False])
def test_the_fast_path_setting_is_restored_after_an_error(enabled):
    class Fails(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 6)

        def forward(self, x):
            assert not torch.backends.mha.get_fastpath_enabled()
            raise RuntimeError("in forward")

    torch.backends.mha.set_fastpath_enabled(enabled)
    try:
        with pytest.raises(ValueError, match="RuntimeError: in forward"):
            compare_models(Fails(), Fails(), [torch.randn(8, 6)], progress_bar=False)
        assert torch.backends.mha.get_fastpath_enabled() == enabled
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


class Windows(nn.Module):
    """Layers that see 4 windows of 4 tokens per sample, as in a Swin transformer."""

    def __init__(self):
        super().__init__()
        self.embed, self.window, self.mlp = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        n = len(x)
        x = self.mlp(self.window(self.embed(x).reshape(n * 4, 4, 8)).relu())
        return self.head(x.reshape(n, 16, 8).mean(1))


def test_windows_in_the_batch_dimension_raise_and_name_a_feature_fn(caplog):
    module, data = Wrapped(Windows()), sequences(tokens=16)
    why = (
        "the output of layer 'net.window' (Tensor(32, 4, 8) float32) has no dimension with one entry per sample: its "
        "first has 4 for each, those of a sample in a row, as windows are. Compare such layers alone, "
        "with feature_fn=lambda output: output.unflatten(0, (-1, 4)).flatten(1)"
    )
    assert monitored_result(module, data).layers == ("net.embed", "net.head")
    assert "CKA leaves out of the default layers: the output of layer 'net.window' (Tensor(32, 4, 8)" in caplog.text
    with pytest.raises(ValueError, match="cannot compare these layers on a batch of 8 samples") as caught:
        monitored_result(module, data, layers=["net.window", "net.head"])
    assert why in str(caught.value)
    reads = dict.fromkeys(("net.window", "net.mlp"), lambda output, _: output.unflatten(0, (-1, 4)).flatten(1))
    alone = monitored_result(
        module, data, layers=list(reads), feature_fn=lambda output: output.unflatten(0, (-1, 4)).flatten(1)
    )
    assert_same(alone, expected_matrix(module, data, reads))
    reads["net.embed"] = lambda output, _: output
    mixed = monitored_result(module, data, layers=list(reads), feature_fn=lambda output: output.reshape(-1, 16, 8))
    assert_same(mixed, expected_matrix(module, data, reads))
