"""A small release with latents of noise around a clip's own mean, and a recipe that fits them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
import torch.distributed.checkpoint as dcp
import yaml

from media.encode import write_video
from tests.unitalking_data.releases import write_release
from train.config import Recipe

MODEL = {
    "layers": 2,
    "dim": 24,
    "heads": 2,
    "ffn_dim": 48,
    "freq_dim": 16,
    "video_channels": 4,
    "audio_channels": 3,
    "text_len": 6,
    "text_dim": 8,
    "reference_len": 9,
    "fps": 10.0,
    "temporal_stride": 1,
    "clip_frames": 5,
    "audio_latent_rate": 20.0,
}


def latents(key: str, number: int, rng: random.Random, *, audio: int = 10) -> dict[str, bytes]:
    generator = torch.Generator().manual_seed(number)
    mean = torch.randn((), generator=generator)
    tensors = {
        "video": mean + 0.3 * torch.randn(4, 5, 4, 4, generator=generator),
        "audio": mean + 0.3 * torch.randn(3, audio, generator=generator),
        "text.detailed": torch.randn(4, 8, generator=generator),
        "text.short": torch.randn(2, 8, generator=generator),
        "text.null": torch.ones(1, 8),
    }
    tensors |= {f"ref{take}": torch.randn(3, 7 + take, generator=generator) for take in range(3)}
    return {"latents.safetensors": safetensors.torch.save(tensors)}


def write_world(root: str, *, make_latents=latents) -> str:
    write_release(root, {"train": [9, 11], "val": [4]}, encoder="tiny", make_latents=make_latents)
    return root


def write_sampling(folder: Path) -> dict[str, str]:
    """``validation.sample`` and ``validation.requests``: both streams, and audio for a video, with a skipped block."""
    folder.mkdir(parents=True, exist_ok=True)
    guidance = {"text": 2.0}
    config = {
        "model": MODEL,
        "video_codec": {"kind": "linear", "spatial": 2, "temporal": 1, "channels": 4},
        "audio_codec": {
            "kind": "linear",
            "rate": 4000,
            "n_fft": 512,
            "hop": 200,
            "mels": 16,
            "channels": 3,
            "group": 1,
        },
        "text_encoder": {"kind": "words", "length": 6, "width": 8},
        "guidance": {"video": guidance, "audio": guidance, "skip_layers": [0]},
        **{"steps": 2, "seconds": 0.5, "height": 8, "width": 8, "device": "cpu", "dtype": "float32"},
    }
    (folder / "sample.yaml").write_text(yaml.safe_dump(config))
    write_video(folder / "given.mp4", np.full((8, 16, 16, 3), 128, np.uint8), 10.0)
    rows = [{"key": "both", "task": "t2av"}, {"key": "sound", "task": "tv2a", "video": "given.mp4"}]
    (folder / "requests.jsonl").write_text("\n".join(json.dumps(row | {"prompt": "a man speaks"}) for row in rows))
    return {"sample": str(folder / "sample.yaml"), "requests": str(folder / "requests.jsonl")}


def stored(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Weights, moments and averages of a checkpoint."""
    listed = dcp.FileSystemReader(checkpoint).read_metadata().state_dict_metadata
    tensors = {
        name: torch.empty(about.size, dtype=about.properties.dtype)
        for name, about in listed.items()
        if not name.startswith("rng.")
    }
    dcp.load(tensors, checkpoint_id=checkpoint, no_dist=True)
    return tensors


def recipe(world: str, out: str, *, stage: int = 2, **changes: Any) -> Recipe:
    content = {
        "stage": stage,
        "out": str(out),
        "model": MODEL,
        "trained": "audio_all" if stage == 1 else "all",
        "data": {"release": str(world), "latents": "tiny", "workers": 0},
        "seed": 3,
        "steps": 8,
        "batch": 4,
        "shares": {"tts": 1, "tts_ref": 1} if stage == 1 else {"t2av": 0.4, "tv2a": 0.2, "ti2av": 0.2, "tr2av": 0.2},
        # a large eps: gradients that are zero but for rounding must not become steps of lr
        "optimizer": {"lr": 2e-3, "warmup": 0, "eps": 1e-5},
        "ema": {"decay": 0.9},
        "parallel": {"device": "cpu", "threads": 1},
        "checkpoint": {"every": 4},
        "log": {"every": 1, "tensorboard": False},
    }
    return Recipe.model_validate({**content, **changes})
