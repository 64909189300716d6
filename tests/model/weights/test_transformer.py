"""Published layouts against the implementations that they come from."""

from __future__ import annotations

import pytest
import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import load_file, save_file

from model.config import ModelConfig
from model.init import initialise
from model.transformer import UniTalking
from model.weights import diffusers, ovi
from model.weights.export import ModelCard, export_model
from model.weights.load import TensorsError
from model.weights.transformer import load_model, start_model
from tests.model.helpers import CONFIG, batch, difference, random_model

TINY = ModelConfig(
    layers=3, dim=96, heads=4, ffn_dim=160, video_channels=16, audio_channels=8, text_len=32, text_dim=48
)


def empty(config: ModelConfig = TINY, **arguments) -> UniTalking:
    with torch.device("meta"):
        return UniTalking(config, **arguments)


@pytest.fixture(scope="module")
def reference() -> WanTransformer3DModel:
    """diffusers' Wan with random weights, norms and biases included."""
    torch.manual_seed(0)
    model = WanTransformer3DModel(
        num_attention_heads=TINY.heads,
        attention_head_dim=TINY.head_dim,
        in_channels=TINY.video_channels,
        out_channels=TINY.video_channels,
        text_dim=TINY.text_dim,
        freq_dim=TINY.freq_dim,
        ffn_dim=TINY.ffn_dim,
        num_layers=TINY.layers,
        eps=TINY.eps,
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape)
    return model.eval()


@pytest.fixture(scope="module")
def diffusers_folder(reference, tmp_path_factory):
    folder = tmp_path_factory.mktemp("diffusers")
    reference.save_pretrained(folder, max_shard_size="300KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    return folder


@pytest.fixture(scope="module")
def native_file(reference, tmp_path_factory):
    path = tmp_path_factory.mktemp("wan") / "native.safetensors"
    save_file({diffusers.to_wan(name): value for name, value in reference.state_dict().items()}, path)
    return path


@pytest.mark.parametrize("streams", [("video",), ("video", "audio")])
@pytest.mark.parametrize("layout", ["diffusers_folder", "native_file"])
@pytest.mark.parametrize(("times", "bound"), [((437.0, 901.0), 1e-5), ((1.0, 9.0), 2e-6)])
@torch.no_grad()
def test_video_equals_diffusers(reference, layout, streams, times, bound, request):
    """Audio absent, one time a sample or one a token: the same velocities.

    diffusers takes the sinusoids' angles in float32, we in float64 as Wan does: at small angles the two agree better.
    """
    model = empty(streams=streams)
    (report,) = start_model(model, video=request.getfixturevalue(layout))
    assert report.loaded == len(reference.state_dict()) and not report.extra
    assert all("audio" in key or "ref" in key for key in report.missing)
    random = torch.Generator().manual_seed(1)
    video = torch.randn(2, 16, 5, 8, 12, generator=random)
    text = torch.randn(2, 32, 48, generator=random)
    time = torch.tensor(times)
    clean = torch.tensor([[True, False, False, False, False], [False, False, True, False, True]])

    ours = model(video=video, text=text, video_sigma=time.double() / 1000).video
    theirs = reference(video, time, text, return_dict=False)[0]
    assert theirs.abs().max() > 0.5
    assert difference(ours, theirs) <= bound

    per_token = (time[:, None] * ~clean).repeat_interleave(4 * 6, 1)
    ours = model(video=video, text=text, video_sigma=time.double() / 1000, clean_frames=clean).video
    theirs = reference(video, per_token, text, return_dict=False)[0]
    assert difference(ours, theirs) <= bound


@torch.no_grad()
def test_video_equals_wans_own_code(shared, tmp_path):
    golden = load_file(shared / "golden" / "wan_native_transformer.safetensors")
    weights = {name.removeprefix("weights/"): value for name, value in golden.items() if name.startswith("weights/")}
    save_file(weights, tmp_path / "wan.safetensors")
    model = empty(TINY.model_copy(update={"layers": 2}), streams=("video",))
    start_model(model, video=tmp_path / "wan.safetensors")
    inputs = {"video": golden["io/x"][None], "text": golden["io/text"][None]}
    sigma = golden["io/t_uniform"].max()[None].double() / 1000
    clean = golden["io/t_first_frame_clean"].view(1, 5, -1)[..., 0] == 0
    assert clean.tolist() == [[True, False, False, False, False]]
    uniform = model(**inputs, video_sigma=sigma).video[0]
    assert difference(uniform, golden["io/y_uniform"]) <= 2e-6
    first = model(**inputs, video_sigma=sigma, clean_frames=clean).video[0]
    assert difference(first, golden["io/y_first_frame_clean"]) <= 2e-6


def test_one_key_more_or_less_stops_the_load(native_file, tmp_path):
    weights = load_file(native_file)
    save_file({**weights, "blocks.0.img.weight": torch.zeros(1)}, tmp_path / "more.safetensors")
    with pytest.raises(TensorsError, match=r"extra: blocks\.0\.img\.weight"):
        start_model(empty(), video=tmp_path / "more.safetensors")
    weights.pop("blocks.2.ffn.0.bias")
    save_file(weights, tmp_path / "less.safetensors")
    with pytest.raises(TensorsError, match=r"missing: blocks\.2\.video\.ffn\.0\.bias"):
        start_model(empty(), video=tmp_path / "less.safetensors")


@pytest.mark.parametrize("layout", ["diffusers_folder", "native_file"])
def test_audio_takes_wans_conditioning(reference, layout, request):
    """Stage 1: the audio half alone, with Wan's embeddings of text and time and nothing else of it."""
    model = empty(streams=("audio",))
    (report,) = start_model(model, audio=request.getfixturevalue(layout))
    assert report.loaded == 10
    state = reference.state_dict()
    assert torch.equal(model.audio.time_projection[1].weight, state["condition_embedder.time_proj.weight"])
    assert torch.equal(model.audio.text_embedding[2].bias, state["condition_embedder.text_embedder.linear_2.bias"])
    assert not any(parameter.is_meta for parameter in model.parameters())


def ovi_checkpoint(channels: int) -> dict[str, torch.Tensor]:
    """A twin with Ovi's names: ours renamed, its own fusion layers, and a video half of no use here."""
    config = CONFIG.model_copy(update={"audio_input": "conv_mlp", "audio_channels": channels})
    weights = {}
    for name, value in random_model(config, streams=("audio",)).state_dict().items():
        if "ref" not in name:
            name = name.replace(".audio.", ".").removeprefix("audio.")
            if name.startswith("blocks."):
                name = name.replace(".modulation", ".modulation.modulation")
            weights[f"audio_model.{name}"] = value
    for name in ("k_fusion.weight", "v_fusion.bias", "pre_attn_norm_fusion.weight", "norm_k_fusion.weight"):
        weights[f"audio_model.blocks.0.cross_attn.{name}"] = torch.zeros(1)
    return weights | {"video_model.head.modulation": torch.zeros(1)}


@pytest.mark.parametrize(
    ("channels", "audio_input", "fresh"), [(5, "conv_mlp", 0), (3, "conv_mlp", 4), (3, "linear", 4)]
)
def test_ovis_twin_starts_the_audio(tmp_path, channels, audio_input, fresh):
    weights = ovi_checkpoint(channels)
    save_file(weights, tmp_path / "ovi.safetensors")
    model = empty(CONFIG.model_copy(update={"audio_input": audio_input}))
    (report,) = start_model(model, audio=tmp_path / "ovi.safetensors")
    ends = [key for key in report.missing if key.startswith(("audio.patch_embedding", "audio.head.head"))]
    assert len(ends) == fresh
    assert sum("fusion" in key for key in report.extra) == 4 and "video_model.head.modulation" in report.extra
    assert torch.equal(model.blocks[1].audio.modulation, weights["audio_model.blocks.1.modulation.modulation"])
    assert torch.equal(model.blocks[0].audio.ffn[0].weight, weights["audio_model.blocks.0.ffn.0.weight"])
    assert model.blocks[0].audio.cross_attn.v_ref.weight.abs().max() == 0
    assert ovi.to_wan("video_model.head.modulation") is None


def test_strange_files_are_refused(tmp_path, native_file):
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(TensorsError, match="no transformer of"):
        start_model(empty(), video=tmp_path / "x.safetensors")
    with pytest.raises(TensorsError, match="the model has none"):
        start_model(empty(streams=("audio",)), video=native_file)
    save_file(ovi_checkpoint(5), tmp_path / "ovi.safetensors")
    with pytest.raises(TensorsError, match="audio stream alone"):
        start_model(empty(CONFIG), video=tmp_path / "ovi.safetensors")
    with pytest.raises(TensorsError, match="does not configure"):
        load_model(tmp_path)


def test_initialise_touches_the_meta_device_alone():
    model = random_model()
    kept = {name: parameter.clone() for name, parameter in model.named_parameters()}
    assert initialise(model) == []
    assert all(torch.equal(parameter, kept[name]) for name, parameter in model.named_parameters())


@torch.no_grad()
def test_two_stages(tmp_path, native_file):
    """Wan's video and our own audio stage join into one model that computes what each does alone."""
    stage1 = random_model(TINY, streams=("audio",))
    export_model(tmp_path / "stage1", TINY, stage1.state_dict(), card=ModelCard(name="stage1", summary="."))
    joint = empty()
    _, audio_report = start_model(joint, video=native_file, audio=tmp_path / "stage1")
    assert not any(parameter.is_meta for parameter in joint.parameters())
    assert audio_report.loaded == len(stage1.state_dict())
    inputs = batch(config=TINY)
    audio = {name: inputs[name] for name in ("audio", "audio_sigma", "text", "reference")}
    assert torch.equal(joint(**audio).audio, stage1(**audio).audio)
