"""``python -m model.sample``: frames and audio from prompts, one sample by flags or many from a JSONL file.

Writes ``KEY.mp4`` (not for ``tts``), ``KEY.wav`` and ``KEY.json`` for each sample. One with a ``KEY.json`` is done, and
an interrupted run is continued by the same command. With ``--batch`` every line is an object with the fields of
:class:`model.request.Request`, and the flags are what lines leave out.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from kit import cli
from kit.cli import Argument, Command, ConfigFile, Program, argument
from kit.config import load
from kit.progress import Progress
from model.generate import Sampler
from model.output import Sample, is_done, output_folder
from model.request import Request, make_request, read_requests
from model.settings import SampleConfig
from model.tasks import TASKS

_logger = logging.getLogger("model.sample")


def main(arguments: Sequence[str] | None = None) -> int:
    return cli.run(PROGRAM, arguments)


def _sample(options: argparse.Namespace) -> int:
    config = load(options.config, SampleConfig, options.overrides)
    sampler = Sampler(config, random_init=options.random_init)
    flags = {name: getattr(options, name) for name in Request.model_fields if name != "key"}
    defaults = config.request_defaults() | {name: value for name, value in flags.items() if value is not None}
    if options.batch:
        requests = read_requests(options.batch, defaults, sampler.shape)
    else:
        requests = [make_request({"key": options.key}, defaults)]
        sampler.shape(requests[0])
    with output_folder(options.out):
        make(sampler, requests, options.out)
    return 0


def make(sampler: Sampler, requests: Sequence[Request], folder: Path) -> None:
    """Write the samples that ``folder`` lacks.

    A batch that lacks a sample is generated whole, so that batches are those of an undisturbed run and the files are
    the same to the byte.
    """
    made_by = {request.key: sampler.made_by(request) for request in requests}
    done = {key for key, made in made_by.items() if is_done(folder, key, made["fingerprint"])}
    _logger.info(f"{folder}: {len(done)} of {len(requests)} samples done already")
    for batch in sampler.batches(requests):
        if all(request.key in done for request in batch):
            continue
        for sample in _generate(sampler, batch):
            key = sample.request.key
            if key not in done:
                sample.save(folder, made_by[key])
                done.add(key)
                print(f"[{len(done)}/{len(requests)}] wrote {folder / key}.json and its media", flush=True)


def _generate(sampler: Sampler, batch: Sequence[Request]) -> list[Sample]:
    others = f" and {len(batch) - 1} more" if len(batch) > 1 else ""
    progress = Progress(f"{batch[0].key}{others}, steps", sampler.config.steps)
    samples = sampler.generate_batch(batch, on_step=lambda step: progress.add(1))
    progress.finish()
    return samples


def _request(*flags: str, help: str, **settings: object) -> Argument:
    return argument(*flags, help=help, group="the request", **settings)


PROGRAM = Program(
    "python -m model.sample",
    "Sample frames and audio from prompts, one sample by flags or many from a JSONL file. What is done is not done "
    "again, so the same command continues an interrupted run.",
    Command(
        _sample,
        "sample",
        [
            "python -m model.sample --config configs/sample/tiny.yaml --random-init 0 --out samples \\",
            '    --task t2av --prompt "a woman says hello" --seconds 2',
            "python -m model.sample --config configs/sample/paper.yaml --out samples --batch prompts.jsonl",
            "python -m model.sample --config configs/sample/paper.yaml --weights runs/stage2/export --set steps=20 \\",
            '    --out samples --task tts --prompt "a man says good morning"',
        ],
        [
            argument("--out", help="folder of the samples", type=Path, required=True),
            argument("--batch", help="one request a line; flags fill what lines leave out", type=Path, metavar="JSONL"),
            argument(
                "--weights",
                help="the network's safetensors file or folder; the same as --set weights=PATH",
                metavar="PATH",
                action="append",
                dest="overrides",
                type=lambda path: f"weights={json.dumps(path, ensure_ascii=False)}",
            ),
            argument("--random-init", help="random weights, to try out the rest", type=int, metavar="SEED"),
            _request("--key", help="name of the files", default="sample"),
            _request("--task", help="what is made of what", choices=list(TASKS)),
            _request("--prompt", help="caption, in the form the model was trained on"),
            _request("--negative-prompt", help="what to move away from"),
            _request("--image", help="first frame, for ti2av"),
            _request("--video", help="to be given sound, for tv2a"),
            _request("--reference", help="voice to follow, for tr2av and tts_ref"),
            _request("--seconds", help="length", type=float),
            _request("--height", help="of the frames, in pixels", type=int),
            _request("--width", help="of the frames, in pixels", type=int),
            _request("--seed", help="of the noise", type=int),
        ],
        ConfigFile(SampleConfig, "configs/sample/*.yaml"),
    ),
)

if __name__ == "__main__":
    sys.exit(main())
