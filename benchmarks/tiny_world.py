"""Proof that training works: learns the tiny world and measures what was learned.

Writes a world as a release, encodes it, trains stage 1 and stage 2 by the ordinary recipes and measures what the
ordinary sampler makes of unseen clips, for each of ``--seeds``. ``--ablations`` trains the arms of the paper's
ablations instead; ``--minutes 30`` and the recipes' ``--set1``, ``--set2`` are other budgets, ``--fps`` makes another
world, each in a ``--folder`` of its own. What is finished is not done again, so a stopped run goes on by the same
command; a folder with models of another world or budget is refused, and what was measured in another way is measured
again.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import shutil
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import yaml

from benchmarks.machine import headline
from kit import cli
from kit.cli import Argument, Command, Program, argument
from kit.config import ConfigError, differences, load
from kit.errors import Fault
from model.generate import Sampler
from model.settings import SampleConfig
from model.weights.transformer import load_model
from pipelines.tiny_world.evaluate import VERSION, Judge, UnseenClip, sample_clips, unseen_clips
from pipelines.tiny_world.release import write_release
from pipelines.tiny_world.sheet import draw_sheet
from train.build import take_streams_apart
from train.cli import main as train
from train.config import Recipe
from train.encode import encode
from train.encode_config import EncodeConfig
from unitalking_data.manifest import Manifest, read_manifest
from unitalking_data.storage import Store

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
ENCODE, SAMPLE = CONFIGS / "train" / "encode_tiny.yaml", CONFIGS / "sample" / "tiny_world.yaml"
RECIPES = {1: CONFIGS / "train" / "tiny_stage1.yaml", 2: CONFIGS / "train" / "tiny_stage2.yaml"}
# Large tensors come and go every step; without these, a third of the time goes into asking the kernel for memory.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "1000000000", "MALLOC_TRIM_THRESHOLD_": "4000000000"}
SHOWN = 4  # clips whose samples are kept
_logger = logging.getLogger("benchmarks.tiny_world")


@dataclass(frozen=True)
class Arm:
    """Changes of the recipes.

    Attributes:
        both, second: overrides of both stages' recipes, of the second's.
        first: whether there is a first stage; without one, the second has its steps as well.
        references: whether the model hears them.
    """

    both: tuple[str, ...] = ()
    second: tuple[str, ...] = ()
    first: bool = True
    references: bool = True


ARMS = {
    "full": Arm(),
    "streams apart": Arm(second=("streams_apart=true",)),
    "literal RoPE": Arm(both=("model.audio_rope=literal",)),
    "without TV2A": Arm(second=("shares.tv2a=0",)),
    "without stage 1": Arm(first=False),
    "without reference": Arm(both=("drop={text: 0, reference: 0.8, both: 0.2}",), references=False),
    "independent noise": Arm(second=("noise.independent=true",)),
}
# Measures with their bars, which every seed of the proof has to meet.
BARS = {
    "t2av.sync": ("T2AV, mouth and sound", ">=", 0.75),
    "t2av.shuffled": ("shuffled pairs", "<", 0.12),
    "t2av.other_draw": ("another draw of the prompt", "<", 0.15),
    "t2av.lag_s": ("lag, s", "within", 0.05),
    "t2av.motion": ("mouths' motion / real", ">=", 0.5),
    "t2av.words": ("T2AV, word errors heard", "<=", None),
    "t2av.words_seen": ("T2AV, word errors seen", "", None),
    "t2av.identity": ("T2AV, identity", "", None),
    "t2av.flicker": ("flicker of the wall", "<=", None),
    "tv2a.sync": ("TV2A, mouth and sound", ">=", 0.85),
    "tv2a.shuffled": ("shuffled pairs", "<", 0.12),
    "tv2a.words": ("TV2A, word errors", "<=", None),
    "ti2av.sync": ("TI2AV, mouth and sound", "", None),
    "ti2av.shuffled": ("shuffled pairs", "<", 0.12),
    "ti2av.motion": ("mouths' motion / real", ">=", 0.5),
    "ti2av.identity": ("TI2AV, identity", ">=", 0.95),
    "tr2av.pitch": ("TR2AV, pitch error", "<=", 0.04),
    "tr2av.pitch_other": ("to another's reference", "", None),
    "tr2av.timbre": ("TR2AV, timbre error", "", None),
    "tr2av.timbre_other": ("to another's reference", "", None),
    "tts.words": ("TTS, word errors", "<=", None),
    "cpu_s": ("training, CPU s", "", None),
    "wall_s": ("training, wall s", "<=", 600.0),
}
# With thirty minutes words get their order, for which a sound's tokens must know their place and noise be high often
# enough; docs/results.md tells why. A wall may flicker by a fifth of what the prototype's did, 2.5 of 255 grey levels.
LONGER = {
    1: ["model.audio_input=conv_mlp", "noise.shift=5", "steps=600"],
    2: ["model.audio_input=conv_mlp", "noise.shift=4", "steps=3600"],
}
LONGER_BARS = {
    "t2av.sync": 0.9,
    "t2av.words": 0.2,
    "tv2a.words": 0.2,
    "tts.words": 0.2,
    "t2av.flicker": 0.01,
    "wall_s": 1800.0,
}
# Measures that tell the arms apart.
ABLATED = {
    "t2av.sync": "T2AV",
    "t2av.shuffled": "shuffled",
    "tv2a.sync": "TV2A",
    "tr2av.pitch": "TR2AV pitch error",
    "tr2av.timbre": "timbre error",
    "tv2a.words": "TV2A word errors",
}


def main(arguments: Sequence[str] | None = None) -> int:
    return cli.run(PROGRAM, arguments)


def run(options: argparse.Namespace) -> int:
    """Make the world, train and measure; 0 if all bars are met, or there are none.

    Raises:
        ConfigError: the folder has models of another world or budget.
        ValueError, FileNotFoundError: the world cannot be made or encoded so.
        Fault, OSError: training or the storage failed; what was finished stays.
    """
    apply_minutes(options)
    if options.clips > options.test:
        raise ConfigError(f"--clips: the world has --test {options.test}, fewer than {options.clips}")
    os.environ |= MALLOC
    print(headline("benchmarks.tiny_world"), flush=True)
    release = str(options.release)
    write_release(
        release,
        {"train": options.train, "val": 64, "test": options.test},
        fps=options.fps,
        workers=options.jobs,
        report=_logger.info,
    )
    encode(load(ENCODE, EncodeConfig, [f"release={release}", "executor.kind=local", *options.set_encode]), _logger.info)
    arms = {name: ARMS[name] for name in (options.arms if options.ablations else ["full"])}
    jobs = [(name, seed) for seed in options.seeds for name in arms]
    for job in jobs:
        refuse_other_budgets(options, *job)
    with ProcessPoolExecutor(options.jobs, get_context("spawn"), max_tasks_per_child=1) as pool:
        running = {pool.submit(learn, options, *job): job for job in jobs}
        try:
            for done in as_completed(running):
                name, seed = running[done]
                _logger.info(f"{name}, seed {seed}: {json.dumps(done.result())}")
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    measured = {job: done.result() for done, job in running.items()}
    found = {name: [measured[name, seed] for seed in options.seeds] for name in arms}
    if options.ablations:
        print_ablations(found)
        return 0
    bars = {key: bar for key, (_, _, bar) in BARS.items()} | (LONGER_BARS if options.minutes == 30 else {})
    return 0 if print_bars(found["full"], _ceiling(options), bars) else 1


def learn(options: argparse.Namespace, name: str, seed: int) -> dict[str, float]:
    """Train an arm with a seed, measure it, and keep what was measured."""
    folder, arm = folder_of(options, name, seed), ARMS[name]
    recipes, origin = recipes_of(options, arm, seed, folder), origin_of(options, name, seed)
    trained, result = folder / "trained.json", folder / "measured.json"
    if not trained.exists():
        shutil.rmtree(folder, ignore_errors=True)
        began, cpu = time.perf_counter(), _cpu_s()
        for recipe in recipes.values():
            _train(recipe, folder)
        spent = {"wall_s": time.perf_counter() - began, "cpu_s": _cpu_s() - cpu}
        trained.write_text(json.dumps({"origin": origin, "spent": spent}, indent=1))
    spent = json.loads(trained.read_text())["spent"]
    sampling = load(SAMPLE, SampleConfig, options.set_sample).content()
    way = {"trained": origin, "clips": options.clips, "sampler": sampling, "measures": VERSION}
    if result.exists() and (kept := json.loads(result.read_text()))["way"] == way:
        return kept["found"]
    judge = Judge(unseen_clips(str(options.release), folder / "given", options.clips))
    sampler = open_sampler(folder / "stage2" / "export", options, arm, recipes[2])
    found = {key: round(value, 4) for key, value in (judge.judge(sampler, references=arm.references) | spent).items()}
    _show(judge.clips, sampler, folder)
    result.write_text(json.dumps({"way": way, "found": found}, indent=1))
    return found


def refuse_other_budgets(options: argparse.Namespace, name: str, seed: int) -> None:
    """
    Raises:
        ConfigError: the folder of this arm and seed has a model of another world or budget.
    """
    trained = folder_of(options, name, seed) / "trained.json"
    if trained.exists():
        there = json.loads(trained.read_text())["origin"]
        if different := differences(there, origin_of(options, name, seed)):
            raise ConfigError(
                f"{trained.parent} was trained otherwise ({'; '.join(different)}): give another --folder, or delete it"
            )


def folder_of(options: argparse.Namespace, name: str, seed: int) -> Path:
    return options.folder / name.replace(" ", "-") / f"seed-{seed}"


def origin_of(options: argparse.Namespace, name: str, seed: int) -> dict[str, Any]:
    """All that decides a trained model, as JSON; of the world and its codecs, the latents' build tells."""
    recipes = recipes_of(options, ARMS[name], seed, folder_of(options, name, seed))
    contents = {f"stage{number}": _content(recipe) for number, recipe in recipes.items()}
    return {"arm": name, "latents": _latents(options).build, **contents}


def recipes_of(options: argparse.Namespace, arm: Arm, seed: int, folder: Path) -> dict[int, Recipe]:
    """Of the stages that an arm has; the only one has the steps of both."""
    common = [f"data.release={options.release}", f"seed={seed}", "log.tensorboard=false", *arm.both]
    first = load(RECIPES[1], Recipe, [*common, f"out={folder / 'stage1'}", *options.set1])
    second = [*common, f"out={folder / 'stage2'}", *options.set2, *arm.second]
    if arm.first:
        return {1: first, 2: load(RECIPES[2], Recipe, [*second, f"init.audio={folder / 'stage1' / 'export'}"])}
    steps = first.steps + load(RECIPES[2], Recipe, second).steps
    return {2: load(RECIPES[2], Recipe, [*second, "init={}", f"steps={steps}"])}


def _content(recipe: Recipe) -> dict[str, Any]:
    """What decides a run, wherever it and its world lie."""
    content = recipe.decisive()
    del content["data"]["release"]
    content["init"] = {stream: path is not None for stream, path in content["init"].items()}
    return content


def _latents(options: argparse.Namespace) -> Manifest:
    return read_manifest(Store(options.release / "latents" / load(ENCODE, EncodeConfig, options.set_encode).name))


def open_sampler(weights: Path, options: argparse.Namespace, arm: Arm, recipe: Recipe) -> Sampler:
    """The ordinary sampler, for the recipe's model and the encoder's codecs."""
    config = load(SAMPLE, SampleConfig, options.set_sample)
    encoder = load(ENCODE, EncodeConfig, options.set_encode)
    latents = options.release / "latents" / encoder.name
    content = config.model_dump(mode="json") | {
        "model": recipe.model.model_dump(mode="json"),
        "shift": recipe.noise.shift,
        "video_codec": {**encoder.video_codec.model_dump(), "statistics": latents / "video_statistics.json"},
        "audio_codec": {**encoder.audio_codec.model_dump(), "statistics": latents / "audio_statistics.json"},
        "weights": None,
    }
    if not arm.references:
        content["guidance"] = {
            stream: scales | {"reference": 0.0}
            for stream, scales in config.guidance.model_dump(include={"video", "audio"}).items()
        }
    model = load_model(weights).eval()
    if recipe.streams_apart:
        take_streams_apart(model)
    return Sampler(SampleConfig.model_validate(content), model=model)


def _show(clips: Sequence[UnseenClip], sampler: Sampler, folder: Path) -> None:
    """A contact sheet and the files of a few samples."""
    rows = []
    for task in ("t2av", "tv2a", "ti2av", "tr2av"):
        for number, sample in enumerate(sample_clips(sampler, clips[:SHOWN], task)):
            sample.save(folder / "samples" / task, sampler.made_by(sample.request))
            if number < 2:
                rows.append((f"{task.upper()}: {sample.request.prompt}", sample))
    draw_sheet(folder / "sheet.png", rows)


def _train(recipe: Recipe, folder: Path) -> None:
    """By the ordinary command, whose recipe is kept beside what it made."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"stage{recipe.stage}.yaml"
    path.write_text(yaml.safe_dump(recipe.content(), sort_keys=False))
    if code := train(recipe.stage, ["--config", str(path)]):
        raise Fault(f"stage {recipe.stage} ended with {code}, see above; its recipe is {path}; run again to go on")


def _cpu_s() -> float:
    """Of this process and of the readers it has waited for."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def _ceiling(options: argparse.Namespace) -> dict[str, float]:
    judge = Judge(unseen_clips(str(options.release), options.folder / "given", options.clips))
    folder, arm = folder_of(options, "full", options.seeds[0]), ARMS["full"]
    recipe = recipes_of(options, arm, options.seeds[0], folder)[2]
    return judge.ceiling(open_sampler(folder / "stage2" / "export", options, arm, recipe))


def print_bars(
    runs: Sequence[Mapping[str, float]], ceiling: Mapping[str, float], bars: Mapping[str, float | None]
) -> bool:
    """The table of the proof; whether every seed passes every bar."""
    print("\nof the world itself: " + ", ".join(f"{name} {value:.3f}" for name, value in ceiling.items()))
    print(f"\n{'measure':30}" + "".join(f"{f'run {n + 1}':>10}" for n in range(len(runs))) + f"{'bar':>16}")
    passed = True
    for key, (title, sign, _) in BARS.items():
        values, bar = [run[key] for run in runs], bars[key]
        ok = bar is None or all(_passes(value, sign, bar) for value in values)
        passed &= ok
        told = "" if bar is None else f"{sign} {bar:g}{'' if ok else ' MISSED'}"
        print(f"{title:30}" + "".join(f"{value:10.3f}" for value in values) + f"{told:>16}")
    return passed


def _passes(value: float, sign: str, bar: float) -> bool:
    return {">=": value >= bar, "<=": value <= bar, "<": abs(value) < bar, "within": abs(value) <= bar}[sign]


def print_ablations(found: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    """A Markdown table: mean and standard deviation over seeds, of each arm."""
    print(f"\n| arm | seeds | {' | '.join(ABLATED.values())} | TV2A of each seed | CPU s |")
    print("|---|" + "---:|" * (len(ABLATED) + 3))
    for name, runs in found.items():
        cells = [_spread([run[key] for run in runs]) for key in ABLATED]
        cells += [
            ", ".join(f"{run['tv2a.sync']:.2f}" for run in runs),
            f"{statistics.mean(r['cpu_s'] for r in runs):.0f}",
        ]
        print(f"| {name} | {len(runs)} | {' | '.join(cells)} |")


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.3f}" + (f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else "")


def apply_minutes(options: argparse.Namespace) -> None:
    """Set what follows from ``--minutes``: the changes of the recipes, and the folder where none is given."""
    longer = options.minutes == 30
    if longer:
        options.set1, options.set2 = [*LONGER[1], *options.set1], [*LONGER[2], *options.set2]
    options.folder = options.folder or Path("runs/tiny30" if longer else "runs/tiny")


def _changes(name: str, what: str) -> Argument:
    return argument(f"--{name}", help=f"changes of {what}", nargs="+", default=[], metavar="KEY=VALUE")


PROGRAM = Program(
    "python -m benchmarks.tiny_world",
    "Learn the tiny world by the ordinary commands and measure what was learned. The exit code says whether every seed "
    "meets every bar. What is finished is not done again, so a stopped run goes on by the same command.",
    Command(
        run,
        "learn and measure",
        [
            "python -m benchmarks.tiny_world --jobs 2",
            "python -m benchmarks.tiny_world --minutes 30 --jobs 2",
            "python -m benchmarks.tiny_world --ablations --set1 steps=200 --set2 steps=1000 --folder runs/ablations",
        ],
        [
            argument("--folder", help="of the runs, one for each budget; runs/tiny or runs/tiny30", type=Path),
            argument("--release", help="the world; made if it is not", type=Path, default=Path("runs/tiny/release")),
            argument("--minutes", help="of training", type=int, choices=(10, 30), default=10),
            argument("--seeds", help="of training, a run each", type=int, nargs="+", default=[1, 2, 3]),
            argument("--ablations", help="every arm, and no bars", action="store_true"),
            argument(
                "--arms", help="of the ablations", nargs="+", choices=list(ARMS), default=list(ARMS), metavar="ARM"
            ),
            argument("--jobs", help="runs at a time", type=int, default=1),
            argument("--train", help="clips to train on", type=int, default=8192),
            argument("--test", help="unseen clips in the world", type=int, default=256),
            argument("--clips", help="of those to measure", type=int, default=256),
            argument("--fps", help="frames a second of the world", type=float, default=10.0),
            _changes("set1", "stage 1's recipe"),
            _changes("set2", "stage 2's recipe"),
            _changes("set-encode", "the encoder's configuration"),
            _changes("set-sample", "the sampler's configuration"),
        ],
    ),
)

if __name__ == "__main__":
    sys.exit(main())
