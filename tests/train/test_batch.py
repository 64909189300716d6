"""Batches: the same after pickling, whichever way their tensors travel."""

from __future__ import annotations

import pickle
from functools import partial

import pytest
import torch

from train import batch as batches
from train.batch import Batch


@pytest.mark.parametrize("inline", [0, 1 << 30])
def test_a_batch_is_the_same_whichever_way_it_comes(monkeypatch, inline):
    monkeypatch.setattr(batches, "INLINE_BYTES", inline)
    draw = partial(torch.randn, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([3, 2])
    texts = {"default": draw(2, 6, 8), "tts": draw(2, 6, 8).half()}
    batch = Batch(["a", "b"], None, draw(2, 3, 4).bfloat16(), lengths, draw(2, 9, 3), texts, draw(2, 0, 8))
    again = pickle.loads(pickle.dumps(batch))
    assert again.names == batch.names and again.video is None and again.texts.keys() == texts.keys()
    pairs = [(getattr(batch, n), getattr(again, n)) for n in ("audio", "audio_lengths", "reference", "null_text")]
    for there, here in [*pairs, *((texts[name], again.texts[name]) for name in texts)]:
        assert there.dtype == here.dtype and torch.equal(there, here)
