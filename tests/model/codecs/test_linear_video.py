from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.codecs.linear_video import LinearVideoCodec
from model.codecs.statistics import LatentStatistics


@settings(deadline=None, max_examples=25)
@given(
    st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 4]), st.integers(0, 3), st.integers(1, 3), st.integers(1, 3)
)
def test_nothing_is_lost_when_all_channels_are_kept(spatial, temporal, groups, rows, columns):
    codec = LinearVideoCodec(spatial=spatial, temporal=temporal)
    size = (1 + groups * temporal, rows * spatial, columns * spatial)
    video = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latent = codec.encode(video)
    assert latent.shape == (2, *codec.latent_shape(*size))
    torch.testing.assert_close(codec.decode(latent), video, atol=1e-5, rtol=0)


def test_statistics_give_unit_latents_and_are_undone():
    codec = LinearVideoCodec(spatial=4, temporal=2, channels=20)
    video = torch.rand(4, 3, 5, 16, 16, generator=torch.Generator().manual_seed(1)) - 0.3
    measured = LatentStatistics.measure([codec.encode(video[:2]), codec.encode(video[2:])])
    normal = LinearVideoCodec(spatial=4, temporal=2, channels=20, statistics=measured)
    latent = normal.encode(video)
    torch.testing.assert_close(latent.mean((0, 2, 3, 4)), torch.zeros(20), atol=1e-5, rtol=0)
    torch.testing.assert_close(latent.std((0, 2, 3, 4), correction=0)[:3], torch.ones(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(normal.decode(latent), codec.decode(codec.encode(video)), atol=1e-5, rtol=0)
    assert normal.fingerprint != codec.fingerprint


def test_the_first_frame_does_not_know_the_rest():
    codec = LinearVideoCodec(spatial=8, temporal=4, channels=48)
    video = torch.rand(1, 3, 9, 32, 32, generator=torch.Generator().manual_seed(2)) * 2 - 1
    latent = codec.encode(video)
    torch.testing.assert_close(codec.encode(video[:, :, :1]), latent[:, :, :1], atol=0, rtol=0)
    torch.testing.assert_close(codec.encode(video[:, :, :5]), latent[:, :, :2], atol=1e-6, rtol=0)


def test_few_channels_keep_what_is_smooth():
    codec = LinearVideoCodec(spatial=8, temporal=4, channels=48)
    ramp = torch.linspace(-0.8, 0.8, 32)
    video = (ramp[:, None] * 0.5 + ramp * 0.5).expand(1, 3, 5, 32, 32)
    assert (codec.decode(codec.encode(video)) - video).abs().max() < 0.02


@pytest.mark.parametrize("size", [(4, 32, 32), (5, 30, 32), (0, 32, 32)])
def test_sizes_that_do_not_fit_are_refused(size):
    with pytest.raises(ValueError, match="does not fit"):
        LinearVideoCodec().latent_shape(*size)


def test_more_channels_than_a_block_has_are_refused():
    with pytest.raises(ValueError, match="1 to 12"):
        LinearVideoCodec(spatial=2, temporal=1, channels=13)
