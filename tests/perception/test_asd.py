"""Light-ASD and LR-ASD against the public code's numbers.

``GOLDEN`` was measured with Encoder.py and Classifier.py of Junhua-Liao/Light-ASD and of Junhua-Liao/LR-ASD on the
seeded weights and input below; none of that code is here.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from perception.asd import ASD_MODELS, ActiveSpeakerNet, face_crops, load_asd, speaking_scores, speech_cepstra

FRAMES = 30
# The first four and the last two logits, the norm over all.
GOLDEN = {
    "light_asd": ([-0.520494, -0.602062, -0.635162, -0.648038], [-0.320092, -0.073451], 3.461893),
    "lr_asd": ([0.270881, 0.350815, 0.029289, -0.222593], [-0.127056, -0.030611], 0.830839),
}


def published_state(model: str) -> dict[str, torch.Tensor]:
    """A state dict of the published names and shapes with seeded values."""
    shapes: dict[str, tuple[int, ...]] = {}

    def layer(prefix: str, conv: str, norm: str, outputs: int, *shape: int) -> None:
        shapes[f"{prefix}{conv}.weight"] = (outputs, *shape)
        for term in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{prefix}{norm}.{term}"] = (outputs,)
        shapes[f"{prefix}{norm}.num_batches_tracked"] = ()

    def block(prefix: str, letter: str, a: int, b: int) -> None:
        def across(k: int) -> tuple[int, ...]:
            return (1, k, k) if letter == "s" else (k, 1)

        def time(k: int) -> tuple[int, ...]:
            return (k, 1, 1) if letter == "s" else (1, k)

        if model == "light_asd":
            for k in (3, 5):
                layer(prefix, f"{letter}_{k}", f"bn_{letter}_{k}", b, a, *across(k))
                layer(prefix, f"t_{k}", f"bn_t_{k}", b, b, *time(k))
            layer(prefix, "last", "bn_last", b, b, *across(1))
        else:
            for n, (k, inputs, outputs) in enumerate(((5, a, b // 2), (3, b // 2, b)), start=1):
                layer(prefix, f"{letter}_{n}", f"{letter}_norm_{n}", outputs, inputs, *across(k))
                layer(prefix, f"t_{n}", f"t_norm_{n}", b, b, *time(k))

    for encoder, letter in (("visualEncoder", "s"), ("audioEncoder", "m")):
        for number, (a, b) in enumerate(((1, 32), (32, 64), (64, 128)), start=1):
            block(f"model.{encoder}.block{number}.", letter, a, b)
    reader, size, inputs = ("model.GRU.", 128, 128) if model == "light_asd" else ("model.detector.", 64, 256)
    for way in ("gru_forward", "gru_backward"):
        shapes[f"{reader}{way}.weight_ih_l0"] = (3 * size, inputs)
        shapes[f"{reader}{way}.weight_hh_l0"] = (3 * size, size)
        shapes[f"{reader}{way}.bias_ih_l0"] = shapes[f"{reader}{way}.bias_hh_l0"] = (3 * size,)
    if model == "lr_asd":
        layer("model.fusion.", "attention", "bn", 256, 256, 1)
        layer("model.detector.attention.", "attention", "bn", 128, 128, 1)
    for head in ("lossAV", "lossV"):
        shapes[f"{head}.FC.weight"], shapes[f"{head}.FC.bias"] = (2, 128), (2,)
    random = np.random.default_rng(5)
    return {name: _seeded(random, name, shape) for name, shape in shapes.items()}


def _seeded(random: np.random.Generator, name: str, shape: tuple[int, ...]) -> torch.Tensor:
    if name.endswith("num_batches_tracked"):
        return torch.zeros((), dtype=torch.int64)
    values = random.standard_normal(shape)
    if len(shape) > 1:
        values *= (2 / np.prod(shape[1:])) ** 0.5
    elif name.endswith("running_var"):
        values = 0.5 + np.abs(values)
    else:
        values = 0.1 * values + (1 if name.endswith(".weight") else 0)
    return torch.from_numpy(values.astype(np.float32))


def seeded_input() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(6)
    faces = random.integers(0, 256, (FRAMES, 112, 112), dtype=np.uint8)
    return faces, (10 * random.standard_normal((4 * FRAMES, 13))).astype(np.float32)


@pytest.fixture(scope="module", params=ASD_MODELS)
def model(request: pytest.FixtureRequest) -> str:
    torch.set_num_threads(1)
    return request.param


@pytest.fixture(scope="module")
def net(model: str, tmp_path_factory: pytest.TempPathFactory) -> ActiveSpeakerNet:
    path = tmp_path_factory.mktemp("asd") / "net.model"
    torch.save(published_state(model), path)
    return load_asd(path, model)


def test_forward_is_the_public_code(net: ActiveSpeakerNet, model: str) -> None:
    faces, cepstra = seeded_input()
    scores = speaking_scores(net, faces, cepstra, durations=(2,), encode_once=False)
    first, last, norm = GOLDEN[model]
    np.testing.assert_allclose(scores[:4], first, atol=2e-5)
    np.testing.assert_allclose(scores[-2:], last, atol=2e-5)
    assert np.linalg.norm(scores) == pytest.approx(norm, rel=1e-5)


def test_forward_equals_the_golden_vectors(shared: Path) -> None:
    golden = load_file(shared / "golden" / "light_asd_forward.safetensors")
    light = load_asd(shared / "weights" / "light_asd_ava_cvpr.model", "light_asd")
    with torch.inference_mode():
        video = light.encode_video(golden["io/crops"][0].float())
        audio = light.encode_audio(golden["io/mfcc"][0])
        logits = light.logits(video, audio)
    torch.testing.assert_close(video, golden["io/visual_embedding"], atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(audio, golden["io/audio_embedding"], atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(logits, golden["io/logit"], atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(("name", "file"), [("light_asd", "light_asd_ava_cvpr"), ("lr_asd", "lr_asd_ava")])
def test_published_weights_load_strictly(shared: Path, name: str, file: str) -> None:
    load_asd(shared / "weights" / f"{file}.model", name)


def test_durations_cut_the_track_into_pieces_and_are_averaged(net: ActiveSpeakerNet) -> None:
    faces, cepstra = seeded_input()
    one = speaking_scores(net, faces, cepstra, (1,), False)
    pieces = [speaking_scores(net, faces[a:b], cepstra[4 * a : 4 * b], (1,), False) for a, b in ((0, 25), (25, 30))]
    np.testing.assert_allclose(one, np.concatenate(pieces), atol=1e-5)
    two = speaking_scores(net, faces, cepstra, (2,), False)
    np.testing.assert_allclose(speaking_scores(net, faces, cepstra, (1, 2), False), (one + two) / 2, atol=1e-5)


def test_encoding_once_differs_only_by_the_pieces(net: ActiveSpeakerNet) -> None:
    faces, cepstra = seeded_input()
    exact = speaking_scores(net, faces, cepstra, (2,), False)
    np.testing.assert_allclose(speaking_scores(net, faces, cepstra, (2,), True), exact, atol=1e-4)
    assert not np.allclose(speaking_scores(net, faces, cepstra, (1,), True), exact, atol=1e-4)


def test_chunks_do_not_show(net: ActiveSpeakerNet) -> None:
    faces, cepstra = (np.tile(part, (4, *[1] * (part.ndim - 1))) for part in seeded_input())
    long = (5,)
    exact = speaking_scores(net, faces, cepstra, long, False)
    np.testing.assert_allclose(speaking_scores(net, faces, cepstra, long, True), exact, atol=1e-4)


@pytest.mark.parametrize(("faces", "steps", "scores"), [(30, 116, 29), (20, 120, 20), (5, 3, 0)])
def test_length_is_that_of_the_shorter(net: ActiveSpeakerNet, faces: int, steps: int, scores: int) -> None:
    crops, cepstra = seeded_input()
    assert speaking_scores(net, crops[:faces], cepstra[:steps], (1,), True).shape == (scores,)


def test_other_weights_are_refused(model: str, tmp_path: Path) -> None:
    path = tmp_path / "net.model"
    other = next(name for name in ASD_MODELS if name != model)
    torch.save(published_state(other), path)
    with pytest.raises(RuntimeError, match=f"not the weights of {model}"):
        load_asd(path, model)
    torch.save(published_state(model) | {"model.extra": torch.zeros(1)}, path)
    with pytest.raises(RuntimeError, match=r"model\.extra"):
        load_asd(path, model)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "net.model"
    torch.save({"model": Path("x")}, path)
    with pytest.raises(pickle.UnpicklingError):
        load_asd(path, "light_asd")


def test_crops_are_the_middle_of_a_box_and_a_half() -> None:
    frames = np.zeros((14, 300, 300, 3), np.uint8)
    frames[:, 100:200, 100:200] = 200
    boxes = np.tile([100.0, 100.0, 200.0, 200.0], (14, 1))
    crops = face_crops(frames, boxes)
    assert crops.shape == (14, 112, 112) and crops.dtype == np.uint8
    # 70 pixels wide around the centre, and from 15 above it to 55 below: the face ends at 65 of 70.
    assert (crops[:, :103] == 200).all()
    assert (crops[:, 106:] == 0).all()
    outside = face_crops(frames, boxes - 120)
    assert (outside[:, 0, 0] == 110).all()


def test_cepstra_are_those_of_16_bit_samples() -> None:
    speech = np.random.default_rng(0).uniform(-1.2, 1.2, 16_000).astype(np.float32)
    cepstra = speech_cepstra(speech)
    assert cepstra.shape == (99, 13) and cepstra.dtype == np.float32
    np.testing.assert_array_equal(cepstra, speech_cepstra(np.clip(speech, -1, 32767 / 32768)))
    assert not np.allclose(cepstra[:, 0], speech_cepstra(speech / 2)[:, 0])
