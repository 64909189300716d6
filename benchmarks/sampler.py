"""What sampling costs beside the network.

Times ``sample_latents`` whole and the network's forward calls inside it, on latents of the shapes it prints. The rest
is the sampler's own: solver, guidance, building of inputs, clean frame. The bar is under 3 %. The cache of a given
video (TV2A) is measured against the same run without it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.machine import headline
from kit import cli
from kit.cli import Command, Program, argument
from model.config import ModelConfig
from model.guidance import Guidance, Scales
from model.sampler import Conditions, Latents, initial_noise, sample_latents
from model.tasks import TASKS
from model.transformer import UniTalking

BAR = 0.03
# Other processes on the machine must not count; a GPU works beside the process, so there it is the wall's time.
CLOCK = time.perf_counter if torch.cuda.is_available() else time.process_time
BOTH = Guidance(video=Scales(text=4, reference=4), audio=Scales(text=3, reference=3))
RUNS = (("t2av", BOTH), ("ti2av", BOTH), ("tr2av", BOTH), ("tts", BOTH), ("tv2a", BOTH), ("t2av", Guidance()))


class NetworkTimer:
    """The network with a stopwatch; without a cache where ``cached`` is off."""

    def __init__(self, model: UniTalking, *, cached: bool = True) -> None:
        self._model, self._cached = model, cached
        self.config, self.seconds, self.calls = model.config, 0.0, 0

    def __call__(self, **inputs: Any) -> Any:
        if not self._cached:
            inputs["cache"] = None
        _wait()
        began = CLOCK()
        velocity = self._model(**inputs)
        _wait()
        self.seconds += CLOCK() - began
        self.calls += 1
        return velocity


def main(arguments: Sequence[str] | None = None) -> int:
    return cli.run(PROGRAM, arguments)


def _benchmark(options: argparse.Namespace) -> int:
    torch.set_num_threads(options.threads)
    config = ModelConfig.preset(options.preset)
    torch.manual_seed(0)
    dtype = torch.float32 if options.device == "cpu" else torch.bfloat16
    model = UniTalking(config).to(options.device, dtype).eval().requires_grad_(False)
    print(headline("benchmarks.sampler"))
    print(
        f"{options.preset}, {dtype}, batch 1, {options.steps} steps; latents: video {config.video_channels} ×"
        f" {' × '.join(map(str, options.video))}, audio {config.audio_channels} × {options.audio}\n"
    )
    print("task   passes  calls  total s  network s  outside")
    worst = 0.0
    for name, guidance in RUNS:
        passes = 1 if guidance == Guidance() else 2
        total, timed = measure(NetworkTimer(model), name, guidance, options)
        outside = 1 - timed.seconds / total
        worst = max(worst, outside)
        print(f"{name:6} {passes:6} {timed.calls:6} {total:8.2f} {timed.seconds:10.2f} {outside:8.2%}")
    uncached, _ = measure(NetworkTimer(model, cached=False), "tv2a", BOTH, options)
    cached, _ = measure(NetworkTimer(model), "tv2a", BOTH, options)
    print(f"\ntv2a with the video's keys and values kept {cached:.2f} s, without {uncached:.2f} s")
    print(f"largest share outside the network: {worst:.2%} (bar {BAR:.0%}): {'reached' if worst < BAR else 'missed'}")
    return 0


def measure(
    timed: NetworkTimer, name: str, guidance: Guidance, options: argparse.Namespace
) -> tuple[float, NetworkTimer]:
    """Seconds of one whole run after a short one to warm up, and the stopwatch of the network's part."""
    task, config, device = TASKS[name], timed.config, options.device
    size = (config.video_channels, *options.video)
    noise = Latents(
        initial_noise([0], "video", size).to(device) if "video" in task.generated else None,
        initial_noise([0], "audio", (config.audio_channels, options.audio)).to(device),
    )
    text = torch.randn(2, 1, config.text_len, config.text_dim, device=device)
    given = Conditions(
        *text,
        image=torch.randn(1, size[0], 1, *size[2:], device=device) if task.video == "first_frame" else None,
        video=torch.randn(1, *size, device=device) if task.video == "given" else None,
        reference=torch.randn(1, config.reference_len, config.audio_channels, device=device)
        if task.reference
        else None,
    )
    sample_latents(timed, task, noise, given, steps=2, guidance=guidance)
    timed.seconds, timed.calls = 0.0, 0
    _wait()
    began = CLOCK()
    sample_latents(timed, task, noise, given, steps=options.steps, guidance=guidance)
    _wait()
    return CLOCK() - began, timed


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


PROGRAM = Program(
    "python -m benchmarks.sampler",
    "Measure what sampling costs beside the network. The bar is 3 %.",
    Command(
        _benchmark,
        "measure",
        ["python -m benchmarks.sampler", "python -m benchmarks.sampler --preset small --device cuda"],
        [
            argument("--preset", help="of the model", default="tiny"),
            argument("--video", help="latent shape", type=int, nargs=3, default=(31, 16, 16), metavar=("F", "H", "W")),
            argument("--audio", help="latents", type=int, default=218, metavar="L"),
            argument("--steps", help="of the solver", type=int, default=8),
            argument("--threads", help="of the CPU", type=int, default=1),
            argument("--device", help="torch device", default="cpu"),
        ],
    ),
)

if __name__ == "__main__":
    sys.exit(main())
