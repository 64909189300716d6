"""UMT5: native weights against the reference's hidden states, both layouts, padding."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from model import umt5
from model.umt5 import RELEASED, UMT5Encoder, load_umt5
from model.weights.umt5 import to_transformers

SMALL = {"vocab_size": 128, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
SMALL |= {"relative_attention_num_buckets": 8, "feed_forward_proj": "gated-gelu"}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    words = ["<pad>", "</s>", "<unk>", "a", "red", "cat", "talks", "&", "<"]
    core = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


@pytest.fixture(scope="module")
def encoder(tokenizer) -> UMT5Encoder:
    torch.manual_seed(0)
    return UMT5Encoder(UMT5EncoderModel(UMT5Config(**SMALL)), tokenizer, length=10)


def test_native_weights_give_the_references_hidden_states(shared, tokenizer, tmp_path, monkeypatch):
    golden = load_file(shared / "golden" / "wan_native_umt5.safetensors")
    torch.save(
        {k.removeprefix("weights/"): v for k, v in golden.items() if k.startswith("weights/")}, tmp_path / "t5.pth"
    )
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    monkeypatch.setattr(umt5, "RELEASED", SMALL)
    loaded = load_umt5(tmp_path / "t5.pth", tmp_path / "tokenizer")
    mask = golden["io/mask"]
    with torch.no_grad():
        hidden = loaded.encoder(golden["io/ids"], attention_mask=mask).last_hidden_state
    assert ((hidden - golden["io/hidden"]) * mask[..., None]).abs().max() <= 1e-5


def test_native_names_are_those_of_transformers():
    with torch.device("meta"):
        keys = set(UMT5EncoderModel(UMT5Config(**RELEASED)).state_dict()) - {"encoder.embed_tokens.weight"}
    parts = ["norm1", "norm2", "attn.q", "attn.k", "attn.v", "attn.o", "pos_embedding.embedding"]
    parts += ["ffn.gate.0", "ffn.fc1", "ffn.fc2"]
    native = ["token_embedding.weight", "norm.weight"]
    native += [f"blocks.{index}.{part}.weight" for index in range(24) for part in parts]
    assert {to_transformers(key) for key in native} == keys
    assert to_transformers("head.weight") is None and to_transformers("blocks.0.attn.x.weight") is None


def test_a_transformers_folder_loads(encoder, tokenizer, tmp_path):
    encoder.encoder.save_pretrained(tmp_path)
    encoder.encode(["a red cat"])  # the tokenizer notes how it padded, which decides nothing
    tokenizer.save_pretrained(tmp_path)
    again = load_umt5(tmp_path, tmp_path, length=10)
    torch.testing.assert_close(again.encode(["a red cat"]), encoder.encode(["a red cat"]), atol=1e-6, rtol=0)
    assert again.fingerprint == encoder.fingerprint
    words = tmp_path / "tokenizer.json"
    words.write_text(words.read_text().replace('"cat"', '"dog"'))
    assert load_umt5(tmp_path, tmp_path, length=10).fingerprint != encoder.fingerprint


def test_rows_past_the_text_are_zero_and_do_not_depend_on_the_batch(encoder):
    both = encoder.encode(["a red cat", "a red cat talks a red cat talks a red cat talks"])
    assert both.shape == (2, 10, 32)
    assert (both[0, 4:] == 0).all() and (both[0, :4].abs().sum(1) > 0).all() and (both[1].abs().sum(1) > 0).all()
    torch.testing.assert_close(both[:1], encoder.encode(["a red cat"]), atol=1e-6, rtol=0)


def test_text_is_cleaned_as_wan_does(encoder):
    torch.testing.assert_close(encoder.encode(["  a\n red   &amp;amp; cat "]), encoder.encode(["a red & cat"]))
