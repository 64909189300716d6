from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.attention import Heads, JointAttention, attention, use_kernels
from tests.model.helpers import difference


def heads(batch: int, length: int, seed: int) -> Heads:
    random = torch.Generator().manual_seed(seed)
    return Heads(*(torch.randn(batch, length, 3, 8, generator=random) for _ in range(3)))


def masked(q, k, v, mask):
    """Attention written out; ``mask`` (…, Lq, Lk) is True where a query may look."""
    scores = torch.einsum("bqnd,bknd->bnqk", q, k) / q.shape[-1] ** 0.5
    return torch.einsum("bnqk,bknd->bqnd", scores.masked_fill(~mask, -torch.inf).softmax(-1), v)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.lists(st.integers(1, 7), min_size=1, max_size=4))
def test_padded_keys_are_not_seen(queries, lengths):
    q, (_, k, v) = heads(len(lengths), queries, 0).q, heads(len(lengths), max(lengths), 1)
    out = attention(q, k, v, key_lengths=torch.tensor(lengths))
    for row, length in enumerate(lengths):
        alone = attention(q[row : row + 1], k[row : row + 1, :length], v[row : row + 1, :length])
        assert difference(out[row : row + 1], alone) < 2e-6


def test_blind_video_is_the_boolean_mask_and_sees_no_audio():
    video, audio = heads(2, 10, 0), heads(2, 4, 1)
    joint = JointAttention()
    out_video, out_audio = joint(video, audio, blind_video=True)
    mask = torch.ones(14, 14, dtype=torch.bool)
    mask[:10, 10:] = False
    expected = masked(*(torch.cat(pair, 1) for pair in zip(video, audio)), mask)
    assert difference(torch.cat((out_video, out_audio), 1), expected) < 2e-6
    assert torch.equal(joint(video, heads(2, 4, 9), blind_video=True)[0], out_video)
    assert difference(joint(video, audio)[0], out_video) > 0.01


def test_joint_attention_sees_everything():
    video, audio = heads(2, 10, 0), heads(2, 4, 1)
    out = torch.cat(JointAttention()(video, audio), 1)
    expected = masked(*(torch.cat(pair, 1) for pair in zip(video, audio)), torch.ones(14, 14, dtype=torch.bool))
    assert difference(out, expected) < 2e-6


def test_flex_agrees_with_sdpa():
    q, k, v = heads(2, 6, 0)
    lengths = torch.tensor([2, 6])
    expected = attention(q, k, v, key_lengths=lengths)
    try:
        use_kernels(padded="flex")
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # unfused flex attention says that it is slow
            assert difference(attention(q, k, v, key_lengths=lengths), expected) < 2e-6
    finally:
        use_kernels()


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_absent_kernel_is_named():
    with pytest.raises(ValueError, match="FA3 is not available here"):
        use_kernels(flash="FA3")
