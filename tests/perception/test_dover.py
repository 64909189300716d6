from __future__ import annotations

import numpy as np
import pytest

from perception.dover import Dover, pieces_view, whole_view


@pytest.mark.parametrize("shape", [(40, 96, 160, 3), (100, 360, 640, 3)])
def test_dover_views(shape):
    frames = np.random.default_rng(4).integers(0, 255, shape).astype(np.uint8)
    assert whole_view(frames).shape == (1, 3, 32, 224, 224)
    views = pieces_view(frames, 4)
    assert views.shape == (4, 3, 32, 224, 224) and views.dtype == np.float32
    if shape[1] > 224:
        # The first piece is the middle of the first cell of the first frame, untouched.
        top, left = (360 // 7 - 32) // 2, (640 // 7 - 32) // 2
        expected = (frames[0, top, left] - np.array([123.675, 116.28, 103.53])) / [58.395, 57.12, 57.375]
        np.testing.assert_allclose(views[0, :, 0, 0, 0], expected, rtol=1e-5)


def test_dover_answers_its_columns(monkeypatch):
    class Session:
        def get_inputs(self):
            return [
                type("Input", (), {"name": name, "shape": [2, 3, 32, 224, 224]}) for name in ("aes_view", "tech_view")
            ]

        def run(self, _, views):
            assert views["tech_view"].shape[0] == 2
            return [np.array([0.08285]), np.array([0.1107])]

    monkeypatch.setattr("perception.dover.open_model", lambda *_: Session())
    values = Dover("dover.onnx", ["CPUExecutionProvider"])(np.zeros((50, 90, 160, 3), np.uint8))
    assert values == {"vqa": 0.5, "vqa_technical": pytest.approx(0.1107), "vqa_aesthetic": pytest.approx(0.08285)}
    assert tuple(values) == Dover.columns
