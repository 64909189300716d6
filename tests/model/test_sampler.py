"""What goes into the network and what comes out, task by task, on a small network with random weights."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import model.sampler
from model.config import ModelConfig
from model.guidance import Guidance, Scales
from model.sampler import Conditions, Latents, initial_noise, sample_latents
from model.schedule import wan_sigmas, wan_timesteps
from model.tasks import TASKS
from model.transformer import UniTalking

CONFIG = ModelConfig.preset("tiny", layers=2, dim=48, heads=2, ffn_dim=64, text_len=6, text_dim=8, reference_len=5)
FRAMES, SIDE, LENGTH = 3, 4, 7


@pytest.fixture(scope="module")
def network() -> UniTalking:
    """No weight is zero, so that every input matters."""
    torch.manual_seed(0)
    made = UniTalking(CONFIG).eval().requires_grad_(False)
    for parameter in made.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.1)
    return made


class Recorder:
    """A network that writes down what it was asked; ``changed`` rewrites its inputs."""

    def __init__(self, network: UniTalking, changed=lambda inputs: inputs) -> None:
        self.network, self.config, self.calls, self.changed = network, network.config, [], changed

    def __call__(self, **inputs):
        self.calls.append(inputs)
        return self.network(**self.changed(inputs))


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def setting(name: str, batch: int = 1) -> tuple[Latents, Conditions]:
    """Noise and conditions of a task; row *k* is the same in every batch."""
    task, size = TASKS[name], (CONFIG.video_channels, FRAMES, SIDE, SIDE)

    def rows(*shape: int, salt: int) -> torch.Tensor:
        return torch.stack([random(*shape, seed=100 * salt + row) for row in range(batch)])

    seeds = range(batch)
    video = initial_noise(seeds, "video", size) if "video" in task.generated else None
    conditions = Conditions(
        text=rows(CONFIG.text_len, CONFIG.text_dim, salt=1),
        null_text=rows(CONFIG.text_len, CONFIG.text_dim, salt=2),
        image=rows(size[0], 1, SIDE, SIDE, salt=3) if task.video == "first_frame" else None,
        video=rows(*size, salt=4) if task.video == "given" else None,
        reference=rows(CONFIG.reference_len, CONFIG.audio_channels, salt=5) if task.reference else None,
    )
    return Latents(video, initial_noise(seeds, "audio", (CONFIG.audio_channels, LENGTH))), conditions


def sample(network, name, batch=1, steps=4, **options) -> Latents:
    noise, conditions = setting(name, batch)
    return sample_latents(network, TASKS[name], noise, conditions, steps=steps, **options)


GUIDED = Guidance(video=Scales(text=3.0, image=2.0, reference=1.5), audio=Scales(text=2.5, image=1.2, reference=3.0))


@pytest.mark.parametrize("name", TASKS)
def test_streams_follow_the_table(network, name):
    task = TASKS[name]
    recorder = Recorder(network)
    noise, conditions = setting(name)
    result = sample_latents(recorder, task, noise, conditions, steps=3)
    assert (result.video is not None) == ("video" in task.streams)
    assert not torch.allclose(result.audio, noise.audio, atol=0.1)
    times = wan_timesteps(3, 5.0).double() / 1000
    for call, time in zip(recorder.calls, times, strict=True):
        assert call["audio_sigma"].tolist() == [time] and ((1000 * call["audio_sigma"]) % 1 == 0).all()
        assert call["blind_video"] == task.blind_video
        assert ("reference" in call) == task.reference
        if task.video == "absent":
            assert "video" not in call
        else:
            assert call["video_sigma"].tolist() == [0.0 if task.video == "given" else time]


def test_one_step_goes_all_the_way(network):
    noise, conditions = setting("t2av")
    result = sample_latents(network, TASKS["t2av"], noise, conditions, steps=1)
    sigma = torch.tensor([wan_timesteps(1, 5.0).item() / 1000], dtype=torch.float64)
    with torch.no_grad():
        velocity = network(
            video=noise.video, audio=noise.audio, text=conditions.text, video_sigma=sigma, audio_sigma=sigma
        )
    level = wan_sigmas(1, 5.0)[0]
    torch.testing.assert_close(result.video, noise.video - level * velocity.video, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(result.audio, noise.audio - level * velocity.audio, atol=1e-6, rtol=1e-6)


def test_first_frame_is_the_image_at_every_step_and_at_the_end(network):
    recorder = Recorder(network)
    noise, conditions = setting("ti2av", 2)
    result = sample_latents(recorder, TASKS["ti2av"], noise, conditions, steps=4)
    for call in recorder.calls:
        assert torch.equal(call["video"][:, :, :1], conditions.image)
        assert call["clean_frames"].tolist() == [[True, False, False]] * 2
    assert torch.equal(result.video[:, :, :1], conditions.image)
    assert not torch.allclose(result.video[:, :, 1:], noise.video[:, :, 1:], atol=0.1)


def test_the_pass_without_the_image_sees_it_noised(network):
    recorder = Recorder(network)
    noise, conditions = setting("ti2av")
    sample_latents(recorder, TASKS["ti2av"], noise, conditions, steps=2, guidance=GUIDED)
    for call, sigma in zip(recorder.calls, wan_sigmas(2, 5.0), strict=False):
        hidden, *seen = call["video"]
        torch.testing.assert_close(hidden[:, :1], ((1 - sigma) * conditions.image + sigma * noise.video[:, :, :1])[0])
        assert call["clean_frames"].tolist() == [[False] * 3] + [[True, False, False]] * 2
        assert all(torch.equal(video[:, :1], conditions.image[0]) for video in seen)
        assert all(torch.equal(video[:, 1:], hidden[:, 1:]) for video in seen)


def test_given_video_comes_back_untouched(network):
    noise, conditions = setting("tv2a", 2)
    assert torch.equal(sample_latents(network, TASKS["tv2a"], noise, conditions, steps=2).video, conditions.video)


@pytest.mark.parametrize("guidance", [Guidance(), GUIDED])
@pytest.mark.parametrize("joined", [0, 8192])
def test_the_cache_of_given_video_changes_nothing(network, monkeypatch, guidance, joined):
    monkeypatch.setattr(model.sampler, "JOINED_TOKENS", joined)
    without = Recorder(network, lambda inputs: inputs | {"cache": None})
    torch.testing.assert_close(
        sample(network, "tv2a", 2, guidance=guidance).audio,
        sample(without, "tv2a", 2, guidance=guidance).audio,
        atol=1e-5,
        rtol=0,
    )


@pytest.mark.parametrize("name", TASKS)
def test_other_samples_of_the_batch_change_nothing(network, name):
    together, alone = sample(network, name, 3, guidance=GUIDED), sample(network, name, 1, guidance=GUIDED)
    torch.testing.assert_close(together.audio[:1], alone.audio, atol=2e-5, rtol=0)
    if alone.video is not None:
        torch.testing.assert_close(together.video[:1], alone.video, atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", TASKS)
def test_passes_together_or_one_by_one(network, monkeypatch, name):
    together = sample(network, name, 2, guidance=GUIDED)
    monkeypatch.setattr(model.sampler, "JOINED_TOKENS", 0)
    recorder = Recorder(network)
    apart = sample(recorder, name, 2, guidance=GUIDED)
    assert {len(call["audio"]) for call in recorder.calls} == {2}
    torch.testing.assert_close(together.audio, apart.audio, atol=2e-5, rtol=0)
    if apart.video is not None:
        torch.testing.assert_close(together.video, apart.video, atol=2e-5, rtol=0)


def test_guidance_by_hand(network):
    """One step of TR2AV: the formula with the network called three times."""
    noise, conditions = setting("tr2av")
    level = wan_timesteps(1, 5.0).double() / 1000
    shared = {"video": noise.video, "audio": noise.audio, "video_sigma": level, "audio_sigma": level}
    with torch.no_grad():
        null = network(**shared, text=conditions.null_text)
        voice = network(**shared, text=conditions.null_text, reference=conditions.reference)
        both = network(**shared, text=conditions.text, reference=conditions.reference)
    result = sample_latents(network, TASKS["tr2av"], noise, conditions, steps=1, guidance=GUIDED)
    for stream in ("video", "audio"):
        a, b, c = (getattr(velocity, stream) for velocity in (null, voice, both))
        scales = getattr(GUIDED, stream)
        velocity = a + scales.reference * (b - a) + scales.text * (c - b)
        expected = getattr(noise, stream) - wan_sigmas(1, 5.0)[0] * velocity
        torch.testing.assert_close(getattr(result, stream), expected, atol=2e-5, rtol=0)


def test_skipped_layers_are_those_of_the_weaker_passes(network):
    recorder = Recorder(network)
    guidance = GUIDED.model_copy(update={"skip_layers": (1,)})
    skipping = sample(recorder, "tr2av", steps=1, guidance=guidance)
    assert [(len(call["audio"]), call["skip_blocks"]) for call in recorder.calls] == [(2, (1,)), (1, ())]
    assert not torch.allclose(skipping.audio, sample(network, "tr2av", steps=1, guidance=GUIDED).audio, atol=1e-3)
    with pytest.raises(ValueError, match="skip_layers needs a text scale other than 1"):
        Guidance(video=Scales(image=3.0), skip_layers=(1,))


def test_noise_depends_on_seed_and_stream_alone():
    shape = (CONFIG.audio_channels, LENGTH)
    both = initial_noise([5, 6], "audio", shape)
    assert torch.equal(both[1:], initial_noise([6], "audio", shape))
    assert not torch.equal(both[0], both[1])
    assert not torch.equal(initial_noise([5], "video", shape), both[:1])
    assert abs(initial_noise([1], "video", (100_000,)).std() - 1) < 0.02


def test_half_precision_keeps_the_solver_in_float32(network):
    half = UniTalking(CONFIG).to(torch.bfloat16)
    half.load_state_dict(network.state_dict())
    exact, rough = sample(network, "ti2av"), sample(half.eval(), "ti2av")
    assert rough.video.dtype == rough.audio.dtype == torch.float32
    assert 0 < (exact.audio - rough.audio).abs().mean() < 0.1


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("ti2av", {"image": None}, "ti2av needs image"),
        ("t2av", {"image": torch.zeros(1)}, "t2av takes no image"),
        ("tts_ref", {"reference": None}, "tts_ref needs reference"),
        ("tv2a", {"video": None}, "tv2a needs video"),
    ],
)
def test_what_is_given_must_fit_the_task(network, name, change, message):
    noise, conditions = setting(name)
    with pytest.raises(ValueError, match=message):
        sample_latents(network, TASKS[name], noise, dataclasses.replace(conditions, **change))
