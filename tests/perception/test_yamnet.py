from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from media.decode import decode_clip
from perception.yamnet import Yamnet, patches


@pytest.mark.parametrize(("seconds", "count"), [(0.1, 1), (0.96, 1), (1.0, 2), (1.44, 2), (5.0, 10)])
def test_audio_is_padded_to_whole_patches(seconds: float, count: int):
    made = patches(np.ones(round(seconds * 16_000), np.float32))
    assert made.shape == (count, 96, 64)
    assert np.isfinite(made).all()


def test_a_tone_lies_in_its_mel_band():
    for hertz, band in ((440, 8), (1000, 20), (3000, 42)):
        spectrum = patches(np.sin(2 * np.pi * hertz * np.arange(32_000) / 16_000).astype(np.float32))[0].mean(0)
        assert abs(int(spectrum.argmax()) - band) <= 1


def test_the_int8_export_agrees_with_the_published_float_model(shared: Path, weights: Callable[..., dict[str, Path]]):
    reference = Interpreter(str(shared / "weights" / "yamnet_classification.tflite"), num_threads=1)
    reference.allocate_tensors()
    (source,), (target,) = reference.get_input_details(), reference.get_output_details()[:1]
    tagger = Yamnet(weights("yamnet")["yamnet"], weights("yamnet_classes")["yamnet_classes"])
    for name in ("vr2__keep.mp4", "night__music.mp4"):
        audio = decode_clip(str(shared / "bench" / "clips" / name), 0, 4, needs=frozenset({"audio"})).speech
        expected = []
        for start in range(0, len(audio) - 15_600, 7680):
            reference.set_tensor(source["index"], audio[start : start + 15_600])
            reference.invoke()
            expected.append(reference.get_tensor(target["index"])[0].copy())
        scores = tagger(audio)[: len(expected)]
        assert np.corrcoef(scores.ravel(), np.ravel(expected))[0, 1] > 0.98
