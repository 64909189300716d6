"""``python -m model.inspect KEY.json``: what a finished sample's network attends to, and its audio beside its frames.

Writes ``KEY.mel.png``, and for samples with video ``KEY.attention_time.png`` and ``KEY.attention_frames.png``: the
joint attention of every block in one pass over the sample, with noise of level ``--sigma`` added.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kit import cli
from kit.cli import Command, Program, argument
from kit.errors import UserError
from media.clip import MediaError
from media.reading import read_audio, read_frames
from model.attention_maps import BlockMaps, attention_maps
from model.figures import attention_over_frames, attention_over_time, frames_and_mel
from model.generate import Sampler
from model.request import Request, RequestError
from model.sampler import Latents
from model.settings import SampleConfig
from model.tasks import TASKS


def inspect(
    record: Path, folder: Path, *, sigma: float, device: str = "auto", weights: str | None = None
) -> list[Path]:
    """Write the figures of the sample that ``record``, a ``KEY.json``, describes; returns their paths.

    ``weights`` are the network's, where they are no longer at their place or were in a trainer's memory.

    Raises:
        RequestError: no such record, or its media files are gone.
        TensorsError: the weights that made it are.
    """
    try:
        made_by = json.loads(record.read_text("utf-8"))
        request = Request.model_validate(made_by["request"] | made_by["files_given"])
        changes = {"device": device, "compile": False} | ({"weights": weights} if weights else {})
        config = SampleConfig.model_validate(made_by["config"] | changes)
        start = made_by["weights"]["network"].get("random_init") if config.weights is None else None
        shape, fps, rate = made_by["shape"], made_by["fps"], made_by["rate"]
    except (OSError, ValueError, KeyError) as error:
        raise RequestError(f"{record} is not the record of a sample: {error!r}") from None
    stem = record.with_suffix("")
    try:
        audio = read_audio(f"{stem}.wav", rate=rate)
        frames = list(read_frames(f"{stem}.mp4", fps=fps, frames=shape["frames"])) if shape["frames"] else None
    except (MediaError, OSError) as error:
        raise RequestError(str(error)) from None
    written = [folder / f"{request.key}.mel.png"]
    folder.mkdir(parents=True, exist_ok=True)
    video = None if frames is None else np.stack(frames)
    frames_and_mel(written[0], video, audio, rate)
    if video is not None:
        maps = _maps(Sampler(config, random_init=start), request, video, audio, sigma)
        written += [folder / f"{request.key}.attention_{view}.png" for view in ("time", "frames")]
        attention_over_time(written[1], maps, seconds=len(audio) / rate)
        attention_over_frames(written[2], maps, video, seconds=len(audio) / rate)
    return written


def _maps(sampler: Sampler, request: Request, video: np.ndarray, audio: np.ndarray, sigma: float) -> list[BlockMaps]:
    """Of the decoded sample, encoded again."""
    conditions = sampler.conditions([request], [sampler.frames(request)])
    latents = Latents(sampler.encode_frames(video), sampler.encode_audio(audio))
    noise = Latents(sampler.noise([request], "video"), sampler.noise([request], "audio"))
    with sampler.placed(sampler.model):
        return attention_maps(sampler.model, TASKS[request.task], latents, noise, conditions, sigma)


def main(arguments: Sequence[str] | None = None) -> int:
    return cli.run(PROGRAM, arguments)


def _inspect(options: argparse.Namespace) -> int:
    if not 0 <= options.sigma <= 1:
        raise UserError(f"--sigma {options.sigma} is not in 0 to 1")
    out = options.out or options.record.parent
    for path in inspect(options.record, out, sigma=options.sigma, device=options.device, weights=options.weights):
        print(path)
    return 0


PROGRAM = Program(
    "python -m model.inspect",
    "Draw figures of a finished sample: its sound beside its frames, and where the network looks.",
    Command(
        _inspect,
        "draw figures of a sample",
        ["python -m model.inspect samples/sample.json", "python -m model.inspect samples/sample.json --sigma 0.8"],
        [
            argument("record", help="written by python -m model.sample", type=Path, metavar="KEY.json"),
            argument("--out", help="folder of the figures; the sample's by default", type=Path),
            argument("--sigma", help="noise level of the pass, 0 to 1", type=float, default=0.5),
            argument("--device", help="torch device; auto takes a GPU where there is one", default="auto"),
            argument("--weights", help="the network's, where they are no longer those of the record"),
        ],
    ),
)

if __name__ == "__main__":
    sys.exit(main())
