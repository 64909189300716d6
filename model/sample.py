"""``python -m model.sample``: pictures and sound from prompts, one sample by flags or many from a JSONL file.

    python -m model.sample --config configs/sample/tiny.yaml --random-init 0 --out samples \\
        --task t2av --prompt "a woman says hello" --seconds 2

Writes ``KEY.mp4`` (not for ``tts``), ``KEY.wav`` and ``KEY.json`` for each sample. One with a ``KEY.json`` is done, and
an interrupted run is continued by the same command. With ``--batch`` every line is an object with the fields of
:class:`model.request.Request`, and the flags are what lines leave out.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from model.generate import Sampler
from model.output import is_done, output_folder
from model.request import Request, RequestError, make_request, read_requests
from model.settings import SampleConfig
from model.tasks import TASKS
from model.weights.load import WeightsError

REPORT_S = 10.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 when every sample stands, 2 for a mistake of the user's."""
    options = _parser().parse_args(arguments)
    try:
        run(options)
    except (RequestError, WeightsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def run(options: argparse.Namespace) -> None:
    changes = {name: getattr(options, name) for name in ("weights", "steps", "device", "batch_size")}
    config = SampleConfig.read(options.config, **{name: value for name, value in changes.items() if value is not None})
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


def make(sampler: Sampler, requests: Sequence[Request], folder: Path) -> None:
    """Write the samples that ``folder`` lacks.

    A batch with a sample missing runs whole: its other samples are the same company as at first, and what is written is
    the same to the byte.
    """
    made_by = {request.key: sampler.made_by(request) for request in requests}
    done = {key for key, made in made_by.items() if is_done(folder, key, made["fingerprint"])}
    print(f"{folder}: {len(done)} of {len(requests)} samples done already", flush=True)
    for batch in sampler.batches(requests):
        missing = [request for request in batch if request.key not in done]
        if not missing:
            continue
        for sample in sampler.generate_batch(batch, on_step=_Steps(batch, sampler.config.steps)):
            key = sample.request.key
            if key not in done:
                sample.save(folder, made_by[key])
                done.add(key)
                print(f"[{len(done)}/{len(requests)}] wrote {folder / key}.json and its media", flush=True)


class _Steps:
    """Prints a line for the first step, the last, and one in ten seconds between."""

    def __init__(self, batch: Sequence[Request], steps: int) -> None:
        self._name = batch[0].key + (f" and {len(batch) - 1} more" if len(batch) > 1 else "")
        self._steps = steps
        self._began = self._last = time.monotonic()

    def __call__(self, step: int) -> None:
        now = time.monotonic()
        if step in (1, self._steps) or now - self._last >= REPORT_S:
            self._last = now
            print(f"{self._name}: step {step} of {self._steps}, {(now - self._began) / step:.2f} s each", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m model.sample", description="Sample pictures and sound from prompts."
    )
    parser.add_argument("--config", type=Path, required=True, help="YAML, see configs/sample/")
    parser.add_argument("--out", type=Path, required=True, help="folder of the samples")
    parser.add_argument(
        "--batch", type=Path, metavar="JSONL", help="one request a line; flags fill what lines leave out"
    )
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--weights", help="the network's safetensors file or folder, instead of the configuration's")
    start.add_argument("--random-init", type=int, metavar="SEED", help="random weights, to try out the rest")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--device", help="auto, cpu, cuda, cuda:1 …")
    parser.add_argument("--batch-size", type=int)
    request = parser.add_argument_group("the request")
    request.add_argument("--key", default="sample", help="name of the files")
    request.add_argument("--task", choices=list(TASKS))
    request.add_argument("--prompt")
    request.add_argument("--negative-prompt")
    request.add_argument("--image", help="first frame, for ti2av")
    request.add_argument("--video", help="to be given sound, for tv2a")
    request.add_argument("--reference", help="voice to follow, for tr2av and tts_ref")
    request.add_argument("--seconds", type=float)
    request.add_argument("--height", type=int)
    request.add_argument("--width", type=int)
    request.add_argument("--seed", type=int)
    return parser


if __name__ == "__main__":
    sys.exit(main())
