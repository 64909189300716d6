"""The arithmetic of ``--dry-run``, against sums by hand and against what autograd keeps."""

from __future__ import annotations

import pytest
import torch

from kit.config import ConfigError, load
from model.config import ModelConfig
from model.transformer import UniTalking
from tests.conftest import REPOSITORY
from train.config import Recipe
from train.dryrun import KEPT, describe, estimate

STAGE_2 = REPOSITORY / "configs/train/stage2.yaml"


@pytest.fixture(scope="module")
def paper():
    return load(STAGE_2, Recipe)


def test_the_papers_numbers_by_hand(paper):
    found = estimate(paper, 64)
    # Wan's 4,999,787,712; k_ref, v_ref and norm_k_ref of 30 blocks; for audio 40 channels instead of 192 both ways
    reference = 30 * (2 * (3072**2 + 3072) + 3072)
    assert found.parameters["video"] == 4_999_787_712 + reference
    embedding = (40 + 1) * 3072 + (3072 + 1) * 3072
    assert found.parameters["audio"] == 4_999_787_712 + reference + embedding - 2 * 3072 * (192 - 40) - (192 - 40)
    assert found.trained == sum(found.parameters.values())
    # weights, gradients, two moments, average: 20 bytes a parameter over 64 GPUs
    assert found.states == 20 * found.trained / 64
    # 31 x 22 x 40 video and 218 audio tokens; linear 2 FLOP a weight and token, joint attention 4 L^2 dim a layer
    tokens = 31 * 22 * 40 + 218
    linear = 2 * 30 * (6 * 3072**2 + 2 * 3072 * 14_336) * tokens
    attention = 4 * 30 * tokens**2 * 3072
    assert 3 * (linear + attention) * 64 == pytest.approx(found.step_flops, rel=0.03)
    assert found.hardware == pytest.approx(found.step_flops * 4 / 3)
    assert found.step_s == pytest.approx(found.step_flops / (64 * 0.4 * 989e12))
    # 30 block inputs in bfloat16, and a block that is computed again
    assert found.activations == tokens * (30 * 2 * 3072 + 75 * 3072 + 4 * 14_336)


def test_more_gpus_share_states_and_time_until_the_batch_is_used_up(paper):
    one, eight = estimate(paper, 8), estimate(paper, 64)
    assert one.states == 8 * eight.states and one.step_s == pytest.approx(8 * eight.step_s)
    with pytest.raises(ConfigError, match="512 GPUs"):
        estimate(paper, 512)
    split = load(STAGE_2, Recipe, ["parallel.sequence=8", "parallel.replicate=64"])
    many = estimate(split, 512)
    assert many.states == one.states and many.activations == one.activations / 8
    assert "DOES NOT FIT" in describe(load(STAGE_2, Recipe, ["parallel.checkpointing=none"]), 64)


@pytest.mark.parametrize(("gpus", "sequence"), [(0, 1), (-8, 1), (16, 16)])
def test_gpus_that_cannot_be_are_refused(gpus, sequence):
    with pytest.raises(ConfigError, match="heads"):
        describe(load(STAGE_2, Recipe, [f"parallel.sequence={sequence}"]), gpus)


def test_a_recipe_without_shapes_is_refused(paper):
    with pytest.raises(ConfigError, match="estimate"):
        describe(load(STAGE_2, Recipe, ["estimate=null"]), 8)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize(("dim", "ffn"), [(96, 448), (192, 384)])
def test_activations_are_what_autograd_keeps(dtype, dim, ffn):
    """Of one more layer and more tokens, so that what does not grow with both cancels."""

    def kept(layers: int, side: int) -> int:
        config = ModelConfig(
            layers=layers, dim=dim, heads=4, ffn_dim=ffn, text_len=4, text_dim=8, video_channels=4, audio_channels=4
        )
        model = UniTalking(config).to(getattr(torch, dtype))
        weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        found: dict[int, torch.Tensor] = {}

        def pack(x: torch.Tensor) -> torch.Tensor:
            if x.untyped_storage().data_ptr() not in weights:
                found[x.untyped_storage().data_ptr()] = x
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            model(
                video=torch.randn(1, 4, 2, side, side),
                audio=torch.randn(1, 4, 3),
                text=torch.randn(1, 4, 8),
                video_sigma=torch.rand(1),
                audio_sigma=torch.rand(1),
            )
        return sum(x.untyped_storage().nbytes() for x in found.values())

    measured = (kept(2, 16) - kept(1, 16)) - (kept(2, 8) - kept(1, 8))
    per_dim, per_ffn = KEPT[dtype]
    assert measured / (128 - 32) == pytest.approx(per_dim * dim + per_ffn * ffn, rel=0.03)
