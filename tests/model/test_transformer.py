from __future__ import annotations

import copy

import pytest
import torch
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from model.config import ModelConfig
from model.transformer import UniTalking
from model.video_cache import VideoCache
from tests.model.helpers import CONFIG, batch, difference, random_model


@pytest.fixture(scope="module")
def model() -> UniTalking:
    return random_model()


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


def rows(inputs: dict, index: int) -> dict:
    return {name: value[index : index + 1] for name, value in inputs.items()}


def test_shapes_and_dtypes(model):
    inputs = batch()
    out = model(**inputs)
    assert out.video.shape == inputs["video"].shape and out.audio.shape == inputs["audio"].shape
    half = copy.deepcopy(model).bfloat16()(**inputs)
    assert half.video.dtype == half.audio.dtype == torch.float32
    assert difference(half.video, out.video) < 0.1 * out.video.abs().max()


def test_streams_hear_each_other(model):
    inputs = batch()
    out = model(**inputs)
    assert difference(model(**{**inputs, "audio": 2 * inputs["audio"]}).video, out.video) > 1e-3
    assert difference(model(**{**inputs, "video": 2 * inputs["video"]}).audio, out.audio) > 1e-3


def test_a_clean_frame_has_its_own_time(model):
    """Where all frames are clean, the noise level is that of clean data; where none is, the flags change nothing."""
    inputs = batch()
    clean = torch.ones(2, 3, dtype=torch.bool)
    zero = {**inputs, "video_sigma": torch.zeros(2)}
    assert difference(model(**inputs, clean_frames=clean).video, model(**zero).video) < 1e-5
    assert difference(model(**inputs, clean_frames=~clean).video, model(**inputs).video) < 1e-5
    first = torch.tensor([True, False, False])
    mixed = model(**inputs, clean_frames=first)
    assert difference(mixed.video, model(**inputs).video) > 1e-3
    assert torch.equal(mixed.video, model(**inputs, clean_frames=first.expand(2, -1)).video)


@pytest.mark.parametrize(("audio_input", "sees_ends"), [("linear", False), ("conv_mlp", True)])
def test_only_padding_tells_where_speech_ends(audio_input, sees_ends):
    """Rotations tell distances and text has no positions, so a stream's tokens that are alike stay alike: with a linear
    input nothing says which is the first, where the first word belongs."""
    model = random_model(CONFIG.model_copy(update={"audio_input": audio_input}), streams=("audio",))
    inputs = {name: value for name, value in batch().items() if not name.startswith("video")}
    inputs["audio"] = inputs["audio"][:, :, :1].expand_as(inputs["audio"])
    audio = model(**inputs).audio
    change = difference(audio, audio[:, :, :1].expand_as(audio))
    assert change > 1e-3 if sees_ends else change < 1e-5


# Padding and batches


def test_batch_composition_changes_no_sample(model):
    inputs = batch(3)
    clean = torch.tensor([[True, False, False], [False] * 3, [True] * 3])
    together = model(**inputs, clean_frames=clean)
    for index in range(3):
        alone = model(**rows(inputs, index), clean_frames=clean[index : index + 1])
        assert difference(together.video[index : index + 1], alone.video) < 1e-5
        assert difference(together.audio[index : index + 1], alone.audio) < 1e-5


def test_text_and_reference_padding_is_as_given_zeros(model):
    inputs = batch()
    padded = {
        **inputs,
        "text": torch.cat((inputs["text"], torch.zeros(2, 4, CONFIG.text_dim)), 1),
        "reference": torch.cat((inputs["reference"], torch.zeros(2, 2, CONFIG.audio_channels)), 1),
    }
    out, same = model(**inputs), model(**padded)
    assert torch.equal(out.video, same.video) and torch.equal(out.audio, same.audio)


def test_no_reference_is_a_reference_of_zeros(model):
    inputs = batch()
    none = model(**{**inputs, "reference": None})
    zeros = model(**{**inputs, "reference": torch.zeros(2, 1, CONFIG.audio_channels)})
    assert difference(none.video, zeros.video) < 1e-5 and difference(none.audio, zeros.audio) < 1e-5
    assert difference(none.audio, model(**inputs).audio) > 1e-3


@pytest.mark.parametrize("audio_input", ["linear", "conv_mlp"])
@pytest.mark.parametrize(
    ("streams", "blind_video"), [(("video", "audio"), False), (("video", "audio"), True), (("audio",), False)]
)
def test_sequence_padding_changes_no_sample(audio_input, streams, blind_video):
    config = CONFIG.model_copy(update={"audio_input": audio_input})
    model = random_model(config, streams=streams)
    inputs = batch(3, latents=9, config=config)
    if "video" not in streams:
        del inputs["video"], inputs["video_sigma"]
    lengths = torch.tensor([9, 4, 6])
    together = model(**inputs, audio_lengths=lengths, blind_video=blind_video)
    for index, length in enumerate(lengths):
        one = rows(inputs, index)
        alone = model(**{**one, "audio": one["audio"][..., :length]}, blind_video=blind_video)
        assert difference(together.audio[index : index + 1, :, :length], alone.audio) < 1e-5
        if alone.video is not None:
            assert difference(together.video[index : index + 1], alone.video) < 1e-5
    noise = inputs["audio"].clone()
    noise[1, :, 4:] = 100.0
    again = model(**{**inputs, "audio": noise}, audio_lengths=lengths, blind_video=blind_video)
    assert torch.equal(again.audio[1, :, :4], together.audio[1, :, :4])


# One-way attention


def test_blind_video_is_bit_invariant_to_audio(model):
    inputs = batch()
    out = model(**inputs, blind_video=True)
    for audio in (torch.zeros_like(inputs["audio"]), 1000 * inputs["audio"], inputs["audio"][..., :3]):
        assert torch.equal(model(**{**inputs, "audio": audio}, blind_video=True).video, out.video)
    alone = model(**{name: value for name, value in inputs.items() if "audio" not in name})
    assert torch.equal(alone.video, out.video)
    assert difference(out.audio, model(**inputs).audio) > 1e-3


@pytest.mark.parametrize("lengths", [None, torch.tensor([5, 9])])
def test_the_cache_changes_nothing(model, lengths):
    inputs = batch()
    cache = VideoCache(CONFIG.layers)
    for step, sigma in enumerate((0.9, 0.5, 0.1)):
        now = {**inputs, "audio": inputs["audio"] * sigma, "audio_sigma": torch.full((2,), sigma)}
        now["video_sigma"] = torch.zeros(2)
        full = model(**now, blind_video=True, audio_lengths=lengths)
        kept = model(**now, blind_video=True, audio_lengths=lengths, cache=cache)
        valid = 9 if lengths is None else 5
        assert difference(kept.audio[..., :valid], full.audio[..., :valid]) == 0.0
        assert (kept.video is None) == (step > 0)
    assert cache.filled and cache.bytes == 2 * CONFIG.layers * 2 * (3 * 2 * 3 + 9) * CONFIG.dim * 4


def test_a_cache_is_for_one_batch(model):
    cache = VideoCache(CONFIG.layers)
    model(**batch(), blind_video=True, cache=cache)
    with pytest.raises(ValueError, match="another batch"):
        model(**batch(latents=8), blind_video=True, cache=cache)
    with torch.enable_grad(), pytest.raises(ValueError, match="no_grad"):
        model(**batch(), blind_video=True, cache=VideoCache(CONFIG.layers))


# How it starts, and where it must run


def test_the_reference_starts_without_effect_on_any_stream():
    torch.manual_seed(0)
    model = UniTalking(CONFIG)
    for name, parameter in model.named_parameters():
        if "head.head" in name:
            parameter.normal_()
    inputs = batch()
    out, mute = model(**inputs), model(**{**inputs, "reference": None})
    assert torch.equal(out.video, mute.video) and torch.equal(out.audio, mute.audio)
    assert out.audio.abs().max() > 0


def test_a_fresh_model_predicts_zero_and_every_parameter_learns():
    torch.manual_seed(0)
    assert UniTalking(CONFIG)(**batch()).video.abs().max() == 0
    with torch.enable_grad():
        model = random_model()
        out = model(**batch(), clean_frames=torch.tensor([True, False, False]))
        (out.video.square().mean() + out.audio.square().mean()).backward()
    still = [name for name, parameter in model.named_parameters() if not parameter.grad.any()]
    assert not still


@pytest.mark.parametrize("stream", ["video", "audio"])
def test_a_half_is_the_twin_with_the_other_absent(model, stream):
    half = UniTalking(CONFIG, streams=(stream,))
    half.load_state_dict({name: value for name, value in model.state_dict().items() if name in half.state_dict()})
    inputs = {name: value for name, value in batch().items() if name.startswith((stream, "text", "reference"))}
    assert torch.equal(getattr(half(**inputs), stream), getattr(model(**inputs), stream))
    assert all(f".{stream}." in name for name in half.state_dict() if name.startswith("blocks."))


def test_meta_device_gives_shapes():
    with torch.device("meta"):
        model = UniTalking(ModelConfig.preset("small"))
        config = model.config
        video = torch.empty(1, config.video_channels, 2, 8, 8)
        audio, text = torch.empty(1, config.audio_channels, 20), torch.empty(1, config.text_len, config.text_dim)
        sigma = torch.empty(1)
    out = model(video=video, audio=audio, text=text, video_sigma=sigma, audio_sigma=sigma)
    assert out.video.shape == video.shape and out.audio.shape == audio.shape


@pytest.mark.parametrize("wrap", ["checkpoint", "compile"])
def test_checkpointing_and_compiling_a_block_change_nothing(wrap):
    def gradients(model):
        out = model(**batch(), clean_frames=torch.tensor([True, False, False]))
        (out.video.square().mean() + out.audio.square().mean()).backward()
        return [parameter.grad for parameter in model.parameters()]

    with torch.enable_grad():
        config = CONFIG.model_copy(update={"layers": 1})
        plain, wrapped = random_model(config), random_model(config)
        for index, block in enumerate(wrapped.blocks):
            if wrap == "checkpoint":
                wrapped.blocks[index] = checkpoint_wrapper(block)
            else:
                block.compile(fullgraph=True, backend="eager")
        pairs = list(zip(gradients(plain), gradients(wrapped), strict=True))
    assert max(difference(a, b) for a, b in pairs) < 1e-6
    assert max(a.abs().max() for a, _ in pairs) > 1e-3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"video_sigma": None}, "video_sigma"),
        ({"audio_sigma": torch.zeros(3)}, "audio_sigma"),
        ({"video": torch.zeros(2, 6, 3, 5, 6)}, "patches"),
        ({"audio": torch.zeros(2, 4, 9)}, "audio has shape"),
        ({"text": torch.zeros(2, 13, 16)}, "text has shape"),
        ({"reference": torch.zeros(2, 8, 5)}, "reference has shape"),
        ({"clean_frames": torch.zeros(2, 4, dtype=torch.bool)}, "clean_frames"),
        ({"video": None, "audio": None}, "give video"),
        ({"video": None, "blind_video": True}, "blind_video"),
    ],
)
def test_wrong_inputs_are_named(model, change, message):
    with pytest.raises(ValueError, match=message):
        model(**{**batch(), **change})


def test_an_absent_stream_is_named():
    with pytest.raises(ValueError, match="video was given"):
        random_model(streams=("audio",))(**batch())
    with pytest.raises(ValueError, match="name video, audio or both"):
        UniTalking(CONFIG, streams=("sound",))
