"""SyncNet against an independent reference and against the public code's own numbers.

The golden numbers were measured with SyncNetModel.py and calc_pdist of joonson/syncnet_python at 6efbb1c (and with
SyncNetModel.py of the PyPI package syncnet-python 0.2.3, which gave the same), on the seeded weights and input below;
none of that code is here. ``reference_lips`` and ``reference_audio`` were written from the layer table alone.
"""

from __future__ import annotations

import pickle

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional

from perception.syncnet import SyncNet, compare, crop_track, embed_audio, embed_lips, load_syncnet

# The first window's first four values, the last window's last two, the norm over all.
GOLDEN_LIPS = ([-814.80127, 402.05856, -786.89160, -507.14478], [-178.14268, -495.15970], 32836.08296)
GOLDEN_AUDIO = ([-21.180084, -21.983635, -25.804563, -4.7465472], [11.768269, -4.6667747], 2218.87846)
GOLDEN_DISTANCES = [49.392075, 49.753933, 50.330463, 50.972805, 51.357292, 51.973186, 51.256451, 50.805836]
GOLDEN_SCORE = (-4, 21.343904, 26.262737)


def seeded_state(net: SyncNet) -> dict[str, torch.Tensor]:
    random = np.random.default_rng(5)
    state = {}
    for name, tensor in sorted(net.state_dict().items()):
        if name.endswith("num_batches_tracked"):
            state[name] = torch.zeros_like(tensor)
            continue
        values = random.standard_normal(tuple(tensor.shape))
        if tensor.ndim > 1:
            values *= (2 / tensor[0].numel()) ** 0.5
        elif name.endswith("running_var"):
            values = 0.5 + np.abs(values)
        else:
            values = 0.1 * values + (1 if name.endswith("weight") else 0)
        state[name] = torch.from_numpy(values.astype(np.float32))
    return state


def seeded_input() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(6)
    crops = random.integers(0, 256, (12, 224, 224, 3), dtype=np.uint8)
    return crops, (10 * random.standard_normal((4 * 12 - 1, 13))).astype(np.float32)


def seeded_embeddings() -> tuple[torch.Tensor, torch.Tensor]:
    random = np.random.default_rng(7)
    lips = random.standard_normal((40, 1024)).astype(np.float32)
    audio = np.roll(lips, 4, axis=0) + 0.8 * random.standard_normal((40, 1024)).astype(np.float32)
    return torch.from_numpy(lips), torch.from_numpy(audio)


@pytest.fixture(scope="module")
def net() -> SyncNet:
    torch.set_num_threads(1)
    net = SyncNet()
    net.load_state_dict(seeded_state(net))
    return net.eval()


@pytest.fixture(scope="module")
def embedded(net: SyncNet) -> tuple[torch.Tensor, torch.Tensor]:
    crops, mfcc = seeded_input()
    return embed_lips(net, crops), embed_audio(net, mfcc)


def _batch_norm(x: torch.Tensor, state: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    shape = (1, -1) + (1,) * (x.ndim - 2)
    mean, variance, weight, bias = (
        state[f"{name}.{part}"].reshape(shape) for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / torch.sqrt(variance + 1e-5) * weight + bias


def _head(x: torch.Tensor, state: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    x = x.reshape(len(x), 512) @ state[f"{name}.0.weight"].T + state[f"{name}.0.bias"]
    return _batch_norm(x, state, f"{name}.1").relu() @ state[f"{name}.3.weight"].T + state[f"{name}.3.bias"]


def reference_audio(x: torch.Tensor, state: dict[str, torch.Tensor]) -> torch.Tensor:
    # (index of the convolution, padding, pooling after it)
    for index, padding, pool in ((0, 1, None), (4, 1, (3, (1, 2))), (8, 1, None), (11, 1, None), (14, 1, (3, 2))):
        conv = functional.conv2d(
            x, state[f"netcnnaud.{index}.weight"], state[f"netcnnaud.{index}.bias"], padding=padding
        )
        x = _batch_norm(conv, state, f"netcnnaud.{index + 1}").relu()
        x = functional.max_pool2d(x, *pool) if pool else x
    x = functional.conv2d(x, state["netcnnaud.18.weight"], state["netcnnaud.18.bias"])
    return _head(_batch_norm(x, state, "netcnnaud.19").relu(), state, "netfcaud")


def reference_lips(x: torch.Tensor, state: dict[str, torch.Tensor]) -> torch.Tensor:
    layers = (
        (0, (1, 2, 2), 0, 0),
        (4, (1, 2, 2), (0, 1, 1), (0, 1, 1)),
        (8, 1, (0, 1, 1), None),
        (11, 1, (0, 1, 1), None),
        (14, 1, (0, 1, 1), 0),
        (18, 1, 0, None),
    )
    for index, stride, padding, pool in layers:
        conv = functional.conv3d(
            x, state[f"netcnnlip.{index}.weight"], state[f"netcnnlip.{index}.bias"], stride, padding
        )
        x = _batch_norm(conv, state, f"netcnnlip.{index + 1}").relu()
        x = x if pool is None else functional.max_pool3d(x, (1, 3, 3), (1, 2, 2), pool)
    return _head(x, state, "netfclip")


def test_encoders_equal_the_layer_table(net: SyncNet, embedded: tuple[torch.Tensor, torch.Tensor]) -> None:
    crops, mfcc = seeded_input()
    state = net.state_dict()
    frames = torch.from_numpy(crops[:6]).permute(3, 0, 1, 2).float()
    lips = reference_lips(torch.stack([frames[:, :5], frames[:, 1:]]), state)
    steps = torch.from_numpy(mfcc.T.copy())
    audio = reference_audio(torch.stack([steps[None, :, :20], steps[None, :, 4:24]]), state)
    torch.testing.assert_close(embedded[0][:2], lips, rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(embedded[1][:2], audio, rtol=1e-4, atol=1e-3)


def test_embeddings_are_those_of_the_public_code(embedded: tuple[torch.Tensor, torch.Tensor]) -> None:
    for found, (first, last, norm), count in zip(embedded, (GOLDEN_LIPS, GOLDEN_AUDIO), (7, 7)):
        assert found.shape == (count, 1024)
        np.testing.assert_allclose(found[0, :4], first, rtol=1e-4)
        np.testing.assert_allclose(found[-1, -2:], last, rtol=1e-4)
        assert float(found.double().norm()) == pytest.approx(norm, rel=1e-5)


def test_scores_are_those_of_the_public_code() -> None:
    score = compare(*seeded_embeddings())
    np.testing.assert_allclose(score.distances[10:18], GOLDEN_DISTANCES, rtol=1e-5)
    # The public tool counts the other way round: its offset is how early the audio is.
    assert (-score.offset, score.sync_c, score.sync_d) == pytest.approx(GOLDEN_SCORE, rel=1e-3)
    assert score.confidence.shape == (40,)


@pytest.mark.parametrize("late", [-12, -3, 0, 4, 15])
def test_offset_says_how_late_the_audio_is(late: int) -> None:
    lips = torch.randn(80, 64, generator=torch.Generator().manual_seed(0))
    score = compare(lips, torch.roll(lips, late, 0))
    assert score.offset == late
    assert score.sync_c > 1
    assert score.sync_d == pytest.approx(float(score.distances.min()))


def test_no_window_is_refused() -> None:
    with pytest.raises(ValueError, match="six frames"):
        compare(torch.zeros(0, 1024), torch.zeros(3, 1024))


def test_crops_equal_padding_the_whole_frame() -> None:
    random = np.random.default_rng(1)
    frames = random.integers(0, 256, (30, 120, 160, 3), dtype=np.uint8)
    boxes = np.tile([60.0, 20.0, 130.0, 105.0], (30, 1)) + random.normal(0, 3, (30, 4))
    boxes[:, ::2] += np.linspace(-50, 30, 30)[:, None]
    crops = crop_track(frames, boxes)

    def smooth(values: np.ndarray) -> np.ndarray:
        padded = np.pad(values, 6)
        return np.array([np.median(padded[k : k + 13]) for k in range(len(values))])

    half = smooth(np.maximum(boxes[:, 3] - boxes[:, 1], boxes[:, 2] - boxes[:, 0]) / 2)
    x, y = smooth((boxes[:, 0] + boxes[:, 2]) / 2), smooth((boxes[:, 1] + boxes[:, 3]) / 2)
    for k in range(30):
        border = int(half[k] * 1.8)
        wide = np.pad(frames[k, :, :, ::-1], ((border, border), (border, border), (0, 0)), constant_values=110)
        cx, cy = x[k] + border, y[k] + border
        part = wide[int(cy - half[k]) : int(cy + half[k] * 1.8), int(cx - half[k] * 1.4) : int(cx + half[k] * 1.4)]
        np.testing.assert_array_equal(crops[k], cv2.resize(part, (224, 224)))


def test_weights_load_strictly(tmp_path, net: SyncNet) -> None:
    state = net.state_dict()
    torch.save(state, tmp_path / "whole.model")
    assert torch.equal(load_syncnet(tmp_path / "whole.model").state_dict()["netfclip.3.bias"], state["netfclip.3.bias"])
    del state["netfclip.3.bias"]
    torch.save(state, tmp_path / "part.model")
    with pytest.raises(RuntimeError, match=r"netfclip\.3\.bias"):
        load_syncnet(tmp_path / "part.model")


def test_nothing_is_unpickled(tmp_path) -> None:
    torch.save({"net": SyncNet}, tmp_path / "object.model")
    with pytest.raises(pickle.UnpicklingError):
        load_syncnet(tmp_path / "object.model")
