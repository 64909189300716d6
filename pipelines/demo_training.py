"""Run the demo's talkers the whole way: raw clips, curation, release, latents, both stages of training, samples.

It proves that every seam holds, not that it generates well: a few hundred steps on a few clips teach little. Each step
is the ordinary command with a configuration of ``configs/demo/``; what is finished is not done again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from kit.config import load
from kit.weights import resolve
from media.encode import write_png
from model.generate import Sampler
from model.output import is_done, output_folder
from model.request import make_request
from model.settings import SampleConfig
from perception.speech_synthesis import WEIGHTS, Speech
from pipelines.demo import CONFIG, demo, executor_settings
from pipelines.demo_annotation import annotate
from pipelines.release.job import release
from train.cli import main as train
from train.encode import encode
from train.encode_config import EncodeConfig
from unitalking_data.dataset import ClipDataset
from unitalking_data.decoders import decode_video
from unitalking_data.prompts import PromptConfig

CONFIGS = CONFIG.parents[1]
SAMPLES = ("t2av", "tv2a", "ti2av", "tr2av")


def demo_training(folder: Path, executor: str, overrides: list[str], say: Callable[[str], None]) -> int:
    """Everything under ``folder``: the demo's corpus and run, ``annotation/``, ``release/``, ``stage1/``, ``stage2/``,
    ``samples/``."""
    if code := demo(folder, executor, overrides):
        return code
    annotation = folder / "annotation"
    if not (annotation / "references" / "part.parquet").exists():
        say("captioning what was kept, and speaking references")
        annotate(folder / "run", annotation, Speech(resolve(WEIGHTS)))
    say("publishing it")
    settings = [f"root={folder / 'release'}", "version=demo", f"curation={CONFIG}", "split.shares={train: 1}"]
    curated = ", ".join([f"root={folder / 'run'}", *overrides])
    release(
        str(CONFIGS / "release" / "cpu.yaml"),
        [
            *settings,
            f"curation_set=[{curated}]",
            *(f"{part}={annotation / part}" for part in ("captions", "references")),
            *executor_settings(executor),
        ],
        say,
    )
    return train_release(folder, executor, say)


def train_release(folder: Path, executor: str, say: Callable[[str], None], changes: Sequence[str] = ()) -> int:
    """From the release in ``folder`` to samples.

    Args:
        changes: of both stages' recipes.
    """
    say("encoding it")
    published = str(folder / "release" / "demo")
    config = load(
        CONFIGS / "demo" / "encode.yaml", EncodeConfig, [f"release={published}", *executor_settings(executor)]
    )
    encode(config, say)
    for stage in (1, 2):
        out = folder / f"stage{stage}"
        if (out / "export").exists():
            say(f"stage {stage} is trained")
            continue
        say(f"training stage {stage}")
        arguments = ["--config", str(CONFIGS / "demo" / f"stage{stage}.yaml"), "--resume"]
        settings = [f"out={out}", f"data.release={published}", *changes]
        if stage == 2:
            settings.append(f"init.audio={folder / 'stage1' / 'export'}")
        for setting in settings:
            arguments += ["--set", setting]
        if code := train(stage, arguments):
            return code
    say("sampling")
    for path in _sample(folder, published, Path(config.folder)):
        print(f"sample: {path.resolve()}")
    return 0


def _sample(folder: Path, published: str, latents: Path) -> list[Path]:
    """One sample a task; what is given comes from the first published clip that has all of it."""
    config = load(CONFIGS / "demo" / "sample.yaml", SampleConfig, [f"weights={folder / 'stage2' / 'export'}"])
    statistics = {
        f"{stream}_codec": getattr(config, f"{stream}_codec").model_copy(
            update={"statistics": latents / f"{stream}_statistics.json"}
        )
        for stream in ("video", "audio")
    }
    sampler = Sampler(config.model_copy(update=statistics))
    out = folder / "samples"
    with output_folder(out):
        video, image, reference = out / "given.mp4", out / "given.png", out / "given.wav"
        clips = ClipDataset(published, "train", prompts=PromptConfig(shares={"detailed": 1}))
        number = next(n for n in range(len(clips)) if clips.clip(n, 0)["take"] is not None)
        clip = clips.clip(number, 0)
        video.write_bytes(clip["mp4"])
        write_png(image, decode_video(clip["mp4"])[0])
        reference.write_bytes(clip["ref.wav"])
        given = {"tv2a": {"video": str(video)}, "ti2av": {"image": str(image)}, "tr2av": {"reference": str(reference)}}
        half_latent_s = sampler.video_codec.stride[0] / config.model.fps / 2  # the sampler rounds to whole latents
        seconds = min(config.seconds, float(clips.index.duration_s[number]) - half_latent_s)
        for task in SAMPLES:
            row = {"key": task, "task": task, "prompt": clip["prompt"], "seconds": seconds, **given.get(task, {})}
            request = make_request(row, config.request_defaults())
            made_by = sampler.made_by(request)
            if not is_done(out, task, made_by["fingerprint"]):
                (sample,) = sampler.generate([request])
                sample.save(out, made_by)
    return [out / f"{task}.mp4" for task in SAMPLES]
