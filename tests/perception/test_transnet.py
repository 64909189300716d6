from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from perception.transnet import TransNetV2, load_transnet
from tests.media.scenes import small, talking_head


@pytest.fixture(scope="module")
def network(weights: Callable[..., dict[str, Path]]) -> TransNetV2:
    torch.set_num_threads(1)
    return load_transnet(weights("transnetv2")["transnetv2"])


def test_the_network_is_sure_of_a_cut_and_of_its_absence(network: TransNetV2) -> None:
    """Fixed answers on made-up frames, so that a change of the architecture's code shows."""
    frames = np.stack(small(talking_head(1, 50) + talking_head(2, 50)))
    with torch.inference_mode():
        scores = network(torch.from_numpy(frames[None]))[0].numpy()
    assert scores.shape == (100, 2)
    assert scores[:, 0].argmax() == 49 and scores[49, 0] > 0.9
    assert np.delete(scores[:, 0], range(47, 52)).max() < 0.1
