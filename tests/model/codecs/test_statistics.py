from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from model.codecs.linear_audio import LinearAudioCodec
from model.codecs.linear_video import LinearVideoCodec
from model.codecs.statistics import LatentStatistics, Normaliser


def flat_cloud(cells: int = 400) -> torch.Tensor:
    """Latents (4, 5, …) that vary in three directions."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(3, 5, generator=generator)
    weights = torch.randn(4, cells, 3, generator=generator) * torch.tensor([5.0, 2.0, 0.5]) + 1
    return (weights @ directions).transpose(1, 2)


def test_measured_in_parts_as_at_once():
    cloud = flat_cloud()
    for components in (None, 3):
        once = LatentStatistics.measure([cloud], components=components)
        parts = LatentStatistics.measure(cloud.split([1, 2, 1]), components=components)
        torch.testing.assert_close(torch.tensor(parts.std), torch.tensor(once.std), rtol=1e-6, atol=0)
        torch.testing.assert_close(torch.tensor(parts.mean), torch.tensor(once.mean), rtol=1e-6, atol=1e-9)
        assert parts.count == once.count == 1600


def test_components_are_uncorrelated_and_lose_nothing_that_varies():
    cloud = flat_cloud()
    statistics = LatentStatistics.measure([cloud], components=3)
    assert list(statistics.std) == sorted(statistics.std, reverse=True)
    axes = torch.tensor(statistics.components)
    torch.testing.assert_close(axes @ axes.T, torch.eye(3), atol=1e-5, rtol=0)
    normaliser = Normaliser(5, statistics)
    latent = normaliser.normalise(cloud)
    flat = latent.transpose(1, 2).flatten(0, 1)
    torch.testing.assert_close(flat.T @ flat / len(flat), torch.eye(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(normaliser.restore(latent), cloud, atol=1e-4, rtol=0)


def test_more_components_than_directions_are_refused():
    with pytest.raises(ValueError, match="components=4"):
        LatentStatistics.measure([flat_cloud()], components=4)


def test_a_codec_with_components_has_their_channels(tmp_path):
    video = torch.rand(3, 3, 5, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    plain = LinearVideoCodec(spatial=8, temporal=2, channels=30)
    LatentStatistics.measure([plain.encode(video)], components=4).save(tmp_path / "video.json")
    codec = LinearVideoCodec(
        spatial=8, temporal=2, channels=30, statistics=LatentStatistics.load(tmp_path / "video.json")
    )
    latent = codec.encode(video)
    assert codec.channels == 4 and latent.shape == (3, *codec.latent_shape(5, 16, 16)) == (3, 4, 3, 2, 2)
    assert codec.fingerprint != plain.fingerprint

    audio = torch.rand(4, 4000, generator=torch.Generator().manual_seed(2)) - 0.5
    plain = LinearAudioCodec(rate=8000, n_fft=512, hop=200, mels=40, low_hz=60, iterations=1)
    codec = LinearAudioCodec(
        rate=8000,
        n_fft=512,
        hop=200,
        mels=40,
        low_hz=60,
        iterations=1,
        statistics=LatentStatistics.measure([plain.encode(audio)], components=6),
    )
    latent = codec.encode(audio)
    assert codec.channels == 6 and latent.shape == (4, *codec.latent_shape(4000)) == (4, 6, 10)
    assert codec.mel(latent).shape == (4, 40, 20) and codec.decode(latent).shape == (4, 4000)


@pytest.mark.parametrize(
    "wrong", [{"std": (1.0,)}, {"std": (1.0, 0.0)}, {"std": (1.0,), "components": ((1.0,),)}, {"components": ((1, 0),)}]
)
def test_inconsistent_statistics_are_refused(wrong):
    with pytest.raises(ValidationError):
        LatentStatistics(**{"mean": (0.0, 0.0), "std": (1.0, 1.0), "count": 2, **wrong})


@pytest.mark.parametrize("components", [None, 3])
@pytest.mark.parametrize("whitening", [0.0, 0.5, 1.0])
def test_partial_whitening_keeps_some_of_the_proportions(components, whitening):
    generator = torch.Generator().manual_seed(0)
    deviations = torch.tensor([4.0, 1.0, 0.25])
    latents = torch.randn(1, 3, 20_000, generator=generator) * deviations[:, None] + 1
    statistics = LatentStatistics.measure([latents], components=components, whitening=whitening)
    found = Normaliser(3, statistics).normalise(latents).std(dim=(0, 2))
    expected = deviations ** (1 - whitening)
    expected /= expected.square().mean().sqrt()
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0)
    torch.testing.assert_close(Normaliser(3, statistics).restore(Normaliser(3, statistics).normalise(latents)), latents)
