"""The transformer's speed and memory beside diffusers' Wan, and what joining the streams costs.

Forward and backward, random weights, float32 on a CPU and bfloat16 on a GPU. Both sides have the same weights, run by
turns in one process, and are compared by the median of the rounds' ratios: seconds of CPU time on a CPU, so that
neighbours count less, of wall time on a GPU. Memory is the peak of live tensors, parameters and gradients included,
exact, counted in a round of its own. What the sampler adds to the network is ``benchmarks.sampler``'s to say.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn
from torch.distributed._tools.mem_tracker import MemTracker

from benchmarks.machine import headline
from kit import cli
from kit.cli import Command, Program, argument
from model.config import ModelConfig
from model.flops import forward_flops
from model.transformer import UniTalking
from model.weights import diffusers, wan
from model.weights.load import load_strict

Step = Callable[[], Tensor]


def clock() -> float:
    """Seconds of CPU time; with a GPU, of wall time once it has nothing left to do."""
    if not torch.cuda.is_available():
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def measured(
    steps: dict[str, Step], modules: dict[str, nn.Module], rounds: int
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds of every round and peak GiB of each step: a forward pass to a scalar, then its backward, by turns."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 1):
        for name, step in steps.items():
            modules[name].zero_grad(set_to_none=True)
            begin = clock()
            step().backward()
            if turn:  # the first round warms up
                seconds[name].append(clock() - begin)
    peaks = {}
    for name, step in steps.items():
        modules[name].zero_grad(set_to_none=True)
        tracker = MemTracker()
        tracker.track_external(modules[name])
        with tracker:
            step().backward()
        peaks[name] = sum(sizes["Total"] for sizes in tracker.get_tracker_snapshot("peak").values()) / 2**30
        modules[name].zero_grad(set_to_none=True)
    return seconds, peaks


def beside_diffusers(config: ModelConfig, grid: tuple[int, int, int], rounds: int, place: dict) -> None:
    """One noise level a sample, then the first frame clean, which to diffusers is a time for every token."""
    torch.manual_seed(0)
    theirs = WanTransformer3DModel(
        num_attention_heads=config.heads,
        attention_head_dim=config.head_dim,
        in_channels=config.video_channels,
        out_channels=config.video_channels,
        text_dim=config.text_dim,
        ffn_dim=config.ffn_dim,
        num_layers=config.layers,
    ).to(**place)
    with torch.device("meta"):
        ours = UniTalking(config, streams=("video",))
    load_strict(
        ours,
        {name: value.clone() for name, value in theirs.state_dict().items()},
        rename=lambda key: wan.to_stream(diffusers.to_wan(key), "video"),
        device=place["device"],
    )
    video, text = torch.randn(1, config.video_channels, *grid), torch.randn(1, config.text_len, config.text_dim)
    video, text = video.to(**place), text.to(**place)
    level = torch.tensor([0.437], device=place["device"], dtype=torch.float64)
    clean = torch.zeros(1, grid[0], dtype=torch.bool, device=place["device"])
    clean[:, 0] = True
    tokens = grid[1] * grid[2] // (config.patch[1] * config.patch[2])
    per_token = (1000 * level[:, None].float() * ~clean).repeat_interleave(tokens, 1)

    print(f"\nvideo stream beside diffusers: {config.layers} blocks, {config.dim} wide, {grid[0] * tokens} tokens")
    print(
        f"{'':28}{'ours s':>9}{'theirs s':>10}{'ratio':>8}{'ours GiB':>10}{'theirs GiB':>12}{'ratio':>8}{'differs':>10}"
    )
    for case, flags, times in (
        ("one noise level", None, 1000 * level.float()),
        ("first frame clean", clean, per_token),
    ):

        def our_pass(flags: Tensor | None = flags) -> Tensor:
            return ours(video=video, text=text, video_sigma=level, clean_frames=flags).video

        def their_pass(times: Tensor = times) -> Tensor:
            return theirs(video, times, text, return_dict=False)[0]

        with torch.no_grad():
            apart = (our_pass() - their_pass().float()).abs().max().item()
        seconds, peaks = measured(
            {"ours": lambda: our_pass().square().mean(), "theirs": lambda: their_pass().float().square().mean()},
            {"ours": ours, "theirs": theirs},
            rounds,
        )
        ratio = statistics.median(a / b for a, b in zip(seconds["ours"], seconds["theirs"]))
        print(
            f"{case:28}{statistics.median(seconds['ours']):9.3f}{statistics.median(seconds['theirs']):10.3f}{ratio:8.3f}"
            f"{peaks['ours']:10.3f}{peaks['theirs']:12.3f}{peaks['ours'] / peaks['theirs']:8.3f}{apart:10.1e}"
        )


def joined(config: ModelConfig, grid: tuple[int, int, int], latents: int, rounds: int, place: dict) -> None:
    """Both streams in one pass against each of them alone, time beside operations."""
    torch.manual_seed(0)
    model = UniTalking(config).to(**place)
    sigma = torch.tensor([0.437], device=place["device"])
    text = torch.randn(1, config.text_len, config.text_dim).to(**place)
    reference = torch.randn(1, config.reference_len, config.audio_channels).to(**place)
    video = {"video": torch.randn(1, config.video_channels, *grid).to(**place), "video_sigma": sigma}
    audio = {"audio": torch.randn(1, config.audio_channels, latents).to(**place), "audio_sigma": sigma}

    def step(**inputs: Tensor) -> Step:
        def run() -> Tensor:
            out = model(**inputs, text=text, reference=reference)
            return sum(x.square().mean() for x in out if x is not None)

        return run

    steps = {"video alone": step(**video), "audio alone": step(**audio), "joined": step(**video, **audio)}
    seconds, peaks = measured(steps, dict.fromkeys(steps, model), rounds)
    flops = {
        "video alone": forward_flops(config, video=grid).total,
        "audio alone": forward_flops(config, audio=latents).total,
        "joined": forward_flops(config, video=grid, audio=latents).total,
    }
    print(f"\njoining the streams: {latents} audio tokens beside the video's")
    print(f"{'':28}{'s':>9}{'GFLOP fwd':>12}{'GFLOP/s':>10}{'GiB':>8}")
    for name, of_rounds in seconds.items():
        middle = statistics.median(of_rounds)
        rate = 3 * flops[name] / middle / 1e9
        print(f"{name:28}{middle:9.3f}{flops[name] / 1e9:12.1f}{rate:10.1f}{peaks[name]:8.3f}")
    times = statistics.median(both / (v + a) for v, a, both in zip(*seconds.values()))
    operations = flops["joined"] / (flops["video alone"] + flops["audio alone"])
    print(f"joined over the sum of its parts: {times:.3f} x time, {operations:.3f} x operations")


def main(arguments: Sequence[str] | None = None) -> int:
    return cli.run(PROGRAM, arguments)


def _benchmark(arguments: argparse.Namespace) -> int:
    torch.set_num_threads(arguments.threads)
    gpu = torch.cuda.is_available()
    place = {"device": "cuda" if gpu else "cpu", "dtype": torch.bfloat16 if gpu else torch.float32}
    config = ModelConfig.preset(
        "paper",
        layers=arguments.layers,
        dim=arguments.dim,
        heads=max(1, arguments.dim // 128),
        ffn_dim=arguments.dim * 14 // 3,
        reference_streams="audio",
    )
    frames, rows, columns = (int(part) for part in arguments.video.split(","))
    print(headline("benchmarks.model"))
    print(f"device:   {place['device']}, {place['dtype']}, {arguments.threads} threads, {arguments.rounds} rounds")
    with torch.device("meta"):
        counts = UniTalking(ModelConfig.preset("paper")).parameter_counts()
    print("paper:    " + ", ".join(f"{name} {count:,}" for name, count in counts.items()) + " parameters")
    beside_diffusers(config, (frames, rows, columns), arguments.rounds, place)
    joined(config, (frames, rows, columns), arguments.audio, arguments.rounds, place)
    return 0


PROGRAM = Program(
    "python -m benchmarks.model",
    "Measure the transformer's speed and memory: the video stream beside diffusers' Wan, and what joining the streams "
    "costs.",
    Command(
        _benchmark,
        "measure",
        [
            "python -m benchmarks.model",
            "python -m benchmarks.model --layers 2 --dim 768 --video 5,24,40 --audio 44 --rounds 9",
        ],
        [
            argument("--layers", help="blocks", type=int, default=2),
            argument("--dim", help="width of both streams", type=int, default=768),
            argument("--video", help="latent frames, rows and columns", default="5,24,40"),
            argument("--audio", help="audio latents", type=int, default=44),
            argument("--rounds", help="that medians are taken over", type=int, default=7),
            argument("--threads", help="of the CPU", type=int, default=1),
        ],
    ),
)

if __name__ == "__main__":
    sys.exit(main())
