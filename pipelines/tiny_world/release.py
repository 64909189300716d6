"""The tiny world as an ordinary release: mp4, wav, three reference takes and caption atoms of every clip."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow as pa

from kit.progress import Progress
from media.encode import write_video, write_wav
from pipelines.release.card import write_documents
from pipelines.tiny_world.captions import atoms
from pipelines.tiny_world.face import FPS, SIDE, draw
from pipelines.tiny_world.voice import RATE, speak
from pipelines.tiny_world.world import SECONDS, WorldClip, make_clip
from unitalking_data.layout import ShardLayout
from unitalking_data.manifest import Manifest
from unitalking_data.schema import REFS_SCHEMA, meta_schema
from unitalking_data.writer import ClipFiles, ReleaseWriter

VERSION = "tiny-world-1"
CRF = 4  # close to lossless, which costs nothing at 32 × 32
LICENCE = "CC0-1.0"


def write_release(
    root: str,
    clips: Mapping[str, int],
    *,
    seed: int = 0,
    fps: float = FPS,
    shard_clips: int = 256,
    workers: int = 1,
    report: Callable[[str], None] = lambda line: None,
) -> Manifest:
    """Generate a world into a folder, or go on with one that was stopped.

    Args:
        clips: how many of each split, in the order of their shards.
        fps: frames a second; the world's time does not depend on it.
        workers: processes.

    Raises:
        ReleaseError: another release stands there.
        ValueError: not one frame a clip, or a split without clips.
    """
    if not round(SECONDS * fps) > 0:
        raise ValueError(f"fps: {fps:g} leaves no picture of {SECONDS:g} s")
    if empty := [split for split, count in clips.items() if count < 1]:
        raise ValueError(f"{empty[0]}: {clips[empty[0]]} clips; a split needs one")
    world = {
        clip.key: clip for split, count in clips.items() for clip in (make_clip(seed, split, n) for n in range(count))
    }
    writer = ReleaseWriter(root, meta_schema())
    todo = writer.begin(
        VERSION,
        pa.table(
            {
                "key": list(world),
                "split": [clip.split for clip in world.values()],
                "fingerprint": [_hash(clip, fps) for clip in world.values()],
            }
        ),
        splits=list(clips),
        shard_clips=shard_clips,
        process={
            "title": "The tiny world",
            "description": "Generated talking faces of 32 × 32 pixels. Captions tell who is seen, whose voice it is, "
            "and what is said; when it is said is in picture and sound alone.",
            "world": {"seed": seed, "clips": dict(clips), "fps": fps},
        },
    )
    report(f"{len(world)} clips, {len(todo)} shards to write")
    progress = Progress("clips", sum(len(shard.clips) for shard in todo))
    jobs = [(writer, shard, [world[key] for key in shard.keys], seed, fps) for shard in todo]
    if workers == 1:
        for job in jobs:
            progress.add(_write(*job))
    else:
        with ProcessPoolExecutor(workers, get_context("forkserver")) as pool:
            for count in pool.map(_write, *zip(*jobs)):
                progress.add(count)
    if todo:
        progress.finish()
    return writer.finish(documents=write_documents)


def _write(writer: ReleaseWriter, shard: ShardLayout, clips: Sequence[WorldClip], seed: int, fps: float) -> int:
    rows = pa.Table.from_pylist([_row(clip, seed) for clip in clips])
    refs = pa.Table.from_pylist([row for clip in clips for row in _references(clip, seed)], schema=REFS_SCHEMA)
    writer.write(shard, rows, partial(_make, {clip.key: clip for clip in clips}, fps), refs)
    return len(clips)


def _row(clip: WorldClip, seed: int) -> dict[str, Any]:
    return {
        "key": clip.key,
        "source": _hash(clip),
        "start_s": 0.0,
        "end_s": clip.speech.seconds,
        "speaker": clip.look.name,
        "licence": LICENCE,
        "provenance": json.dumps({"generator": VERSION, "seed": seed}),
        "verdict": "kept",
        **atoms(clip),
    }


def _references(clip: WorldClip, seed: int) -> Iterator[dict[str, Any]]:
    for take, utterance in enumerate(clip.references):
        text = " ".join(utterance.words)
        made = {"seed": seed, "duration_s": utterance.seconds, "tries": 1, "model": VERSION, "licence": LICENCE}
        yield {"key": clip.key, "take": take, "text": text, **made}


def _make(clips: Mapping[str, WorldClip], fps: float, keys: Sequence[str]) -> Iterator[ClipFiles]:
    with tempfile.TemporaryDirectory() as folder:
        mp4, wav = Path(folder) / "clip.mp4", Path(folder) / "speech.wav"
        for key in keys:
            clip = clips[key]
            frames = draw(clip.look, clip.speech, fps=fps)
            write_video(mp4, frames, fps, crf=CRF)
            members = {"mp4": mp4.read_bytes()}
            spoken = {"wav": clip.speech} | {f"ref{take}.wav": said for take, said in enumerate(clip.references)}
            for name, utterance in spoken.items():
                write_wav(wav, speak(utterance, clip.voice), RATE)
                members[name] = wav.read_bytes()
            yield ClipFiles(
                members,
                {
                    "duration_s": len(frames) / fps,
                    "frames": len(frames),
                    "fps": fps,
                    "width": SIDE,
                    "height": SIDE,
                    "audio_rate": RATE,
                    "audio_channels": 1,
                    "video_cut": "generated",
                    "audio_shift_s": 0.0,
                },
            )


def _hash(clip: WorldClip, *how: object) -> str:
    """Of the truth, whose floats Python writes exactly."""
    return hashlib.sha256(repr((VERSION, clip, *how)).encode()).hexdigest()
