from __future__ import annotations

import torch

from model.text import WordEncoder

PINNED = [-0.575620, 1.682331, 0.976739]


def test_words_have_the_same_features_everywhere_and_places_differ():
    one = WordEncoder(8, 16).encode(["Red hair, red"])[0]
    other = WordEncoder(8, 16).encode(["red  HAIR , red"])[0]
    torch.testing.assert_close(one, other, atol=0, rtol=0)
    assert not torch.equal(one[0], one[3])  # the same word in another place
    assert (one[4:] == 0).all() and (one[:4].abs().sum(1) > 0).all()
    # Pinned: every machine and version must draw the same.
    torch.testing.assert_close(one[0, :3], torch.tensor(PINNED), atol=1e-6, rtol=0)


def test_long_texts_are_cut_and_empty_ones_are_zero():
    encoded = WordEncoder(4, 16).encode(["a b c d e f", ""])
    assert encoded.shape == (2, 4, 16) and (encoded[0].abs().sum(1) > 0).all() and (encoded[1] == 0).all()
    torch.testing.assert_close(encoded[:1], WordEncoder(4, 16).encode(["a b c d"]), atol=0, rtol=0)
