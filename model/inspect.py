"""``python -m model.inspect KEY.json``: what a finished sample's network attends to, and its sound beside its frames.

Writes ``KEY.mel.png``, and for samples with pictures ``KEY.attention_time.png`` and ``KEY.attention_pictures.png``: the
joint attention of every block in one pass over the sample, noised to ``--sigma``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from media.clip import MediaError
from media.reading import read_frames, read_sound
from model.attention_maps import BlockMaps, attention_maps
from model.figures import attention_over_pictures, attention_over_time, pictures_and_mel
from model.generate import Sampler
from model.request import Request, RequestError
from model.sampler import Latents
from model.settings import SampleConfig
from model.tasks import TASKS
from model.weights.load import WeightsError


def inspect(
    record: Path, folder: Path, *, sigma: float, device: str = "auto", weights: str | None = None
) -> list[Path]:
    """Write the figures of the sample that ``record``, a ``KEY.json``, describes; returns their paths.

    ``weights`` are the network's, where they are no longer at their place or were in a trainer's memory.

    Raises:
        RequestError: no such record, or its media files are gone.
        WeightsError: the weights that made it are.
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
        wave = read_sound(f"{stem}.wav", rate=rate)
        frames = list(read_frames(f"{stem}.mp4", fps=fps, frames=shape["frames"])) if shape["frames"] else None
    except (MediaError, OSError) as error:
        raise RequestError(str(error)) from None
    written = [folder / f"{request.key}.mel.png"]
    folder.mkdir(parents=True, exist_ok=True)
    pictures = None if frames is None else np.stack(frames)
    pictures_and_mel(written[0], pictures, wave, rate)
    if pictures is not None:
        maps = _maps(Sampler(config, random_init=start), request, pictures, wave, sigma)
        written += [folder / f"{request.key}.attention_{view}.png" for view in ("time", "pictures")]
        attention_over_time(written[1], maps, seconds=len(wave) / rate)
        attention_over_pictures(written[2], maps, pictures, seconds=len(wave) / rate)
    return written


def _maps(sampler: Sampler, request: Request, pictures: np.ndarray, wave: np.ndarray, sigma: float) -> list[BlockMaps]:
    """Of the decoded sample, encoded again."""
    given = sampler.given([request], [sampler.pictures(request)])
    latents = Latents(sampler.encode_pictures(pictures), sampler.encode_sound(wave))
    noise = Latents(sampler.noise([request], "video"), sampler.noise([request], "audio"))
    with sampler.placed(sampler.model):
        return attention_maps(sampler.model, TASKS[request.task], latents, noise, given, sigma)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 when the figures stand, 2 for a mistake of the user's."""
    parser = argparse.ArgumentParser(prog="python -m model.inspect", description="Figures of a finished sample.")
    parser.add_argument("record", type=Path, metavar="KEY.json", help="written by python -m model.sample")
    parser.add_argument("--out", type=Path, help="folder of the figures; the sample's by default")
    parser.add_argument("--sigma", type=float, default=0.5, help="noise level of the pass, 0 to 1 (default 0.5)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--weights", help="the network's, where they are no longer those of the record")
    options = parser.parse_args(arguments)
    try:
        if not 0 <= options.sigma <= 1:
            raise RequestError(f"--sigma {options.sigma} is not in 0 to 1")
        out = options.out or options.record.parent
        for path in inspect(options.record, out, sigma=options.sigma, device=options.device, weights=options.weights):
            print(path)
    except (RequestError, WeightsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
