from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.config import ModelConfig
from model.rope import Rotation, audio_rotation, axis_pairs, rotate, video_rotation
from tests.model.helpers import difference

CPU = torch.device("cpu")
THETA = 10_000.0


def test_pairs_of_wan():
    assert axis_pairs(128) == (22, 21, 21)
    assert all(sum(axis_pairs(width)) == width // 2 for width in range(6, 200, 2))


@pytest.mark.parametrize("frame_step", [1.0, 4.0])
@pytest.mark.parametrize("head_dim", [12, 24, 128])
@pytest.mark.parametrize(
    ("kind", "rate", "stride"), [("ovi", 17 * 4 * 16 / 65, 4), ("physical", 16, 4), ("literal", 16, 1)]
)
def test_same_moment_has_same_temporal_phase(frame_step, head_dim, kind, rate, stride):
    """An audio token at the time of a latent frame turns the temporal channels as the frame's tokens do.

    The rates make every fourth audio latent fall on a latent frame: 65 frames of 16 a second are 17 latent frames.
    """
    config = ModelConfig.preset(
        "tiny",
        fps=16,
        temporal_stride=4,
        clip_frames=65,
        audio_latent_rate=rate,
        audio_rope=kind,
        frame_step=frame_step,
    )
    time = axis_pairs(head_dim)[0]
    video = video_rotation((9, 2, 3), config.frame_step, head_dim, THETA, CPU)
    audio = audio_rotation(33, config.audio_step, head_dim, THETA, CPU)
    for of_video, of_audio in zip(video[:2], audio[:2]):
        frames = of_video.view(9, 6, -1)[..., :time]
        for place in range(6):
            assert difference(of_audio[::stride][:9, :time], frames[:, place]) < 1e-6
    assert video.cos[6, 0] == pytest.approx(math.cos(frame_step), abs=1e-6)  # the second frame's fastest pair


def test_ends_of_the_clip_coincide_in_paper():
    """With Ovi's alignment the last instant of a 121-frame clip is at position 31 in both streams."""
    config = ModelConfig.preset("paper")
    assert 121 / 24 * config.audio_latent_rate * config.audio_step == pytest.approx(31)


def test_audio_is_untouched_on_spatial_axes():
    rotation = audio_rotation(50, 0.1428, 128, THETA, CPU)
    x = torch.randn(1, 50, 2, 128, generator=torch.Generator().manual_seed(0))
    turned = rotate(x, rotation)
    assert torch.equal(turned[..., 44:], x[..., 44:])
    assert torch.equal(turned[:, 0], x[:, 0])
    assert difference(turned[:, 1:, :, :44], x[:, 1:, :, :44]) > 0.1


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 200), st.integers(0, 200), st.integers(0, 300), st.sampled_from([12, 32, 64]))
def test_scores_depend_on_distance_alone(first, second, shift, head_dim):
    random = torch.Generator().manual_seed(first)
    q, k = (torch.randn(1, 1, 1, head_dim, generator=random) for _ in range(2))
    rotation = audio_rotation(second + first + shift + 1, 0.5, head_dim, THETA, CPU)

    def at(x, position):
        return rotate(x, Rotation(*(part[position : position + 1] for part in rotation)))

    near = (at(q, first) * at(k, second)).sum()
    far = (at(q, first + shift) * at(k, second + shift)).sum()
    assert abs(near - far) < 2e-4
    assert abs(at(q, first).norm() - q.norm()) < 1e-4


def test_rotation_matches_complex_numbers():
    """Wan's form: channel pairs as complex numbers times unit complex numbers, all in float64."""
    head_dim, grid = 24, (3, 4, 5)
    x = torch.randn(2, 60, 3, head_dim, generator=torch.Generator().manual_seed(1))
    parts, positions = axis_pairs(head_dim), torch.cartesian_prod(*(torch.arange(n) for n in grid)).double()
    angles = torch.cat([positions[:, a, None] / THETA ** (torch.arange(n) / n) for a, n in enumerate(parts)], -1)
    expected = (
        torch.view_as_complex(x.double().unflatten(-1, (-1, 2))) * torch.polar(torch.ones_like(angles), angles)[:, None]
    )
    turned = rotate(x, video_rotation(grid, 1.0, head_dim, THETA, CPU))
    assert difference(turned, torch.view_as_real(expected).flatten(-2).float()) < 2e-6


def test_compiled_form_is_the_eager_one():
    rotation = video_rotation((2, 3, 4), 1.0, 24, THETA, CPU)
    x = torch.randn(2, 24, 3, 24, generator=torch.Generator().manual_seed(2))
    compiled = torch.compile(rotate, backend="eager", fullgraph=True)(x, rotation)
    assert difference(compiled, rotate(x, rotation)) < 1e-6


def test_bfloat16_stays():
    assert (
        rotate(torch.ones(1, 4, 1, 12, dtype=torch.bfloat16), audio_rotation(4, 1.0, 12, THETA, CPU)).dtype
        == torch.bfloat16
    )
