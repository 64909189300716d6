"""One shard of latents: each clip's video, audio, reference voices and prompts through the codecs."""

from __future__ import annotations

import heapq
import io
import json
import math
import wave
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import safetensors.torch
import torch
from torch import Tensor, nn

from kit.config import ConfigError
from kit.weights import ModelUse, locate
from media.encode import LAYOUTS
from media.reading import fit
from media.resample import to_mono
from model.codecs.base import AudioCodec, VideoCodec
from model.codecs.build import build_audio_codec, build_text_encoder, build_video_codec
from model.codecs.files import file_values, models_behind
from model.codecs.statistics import LatentStatistics, Moments
from model.text import TextEncoder
from train.config import NULL_TEXT
from train.data import MEMBER, REFERENCE
from train.encode_config import EncodeConfig
from unitalking_data.dataset import ATOM_COLUMNS
from unitalking_data.decoders import decode_audio, decode_video
from unitalking_data.index import ClipPlace, places_of, read_index
from unitalking_data.manifest import ShardEntry, read_manifest
from unitalking_data.meta import MetaRows
from unitalking_data.permutation import hash64
from unitalking_data.prompts import ATOMS, render
from unitalking_data.schema import INDEX_SCHEMA, REFERENCES
from unitalking_data.shard import SampleBlocks, pack, shard_name, unpack, write_shard
from unitalking_data.shard_reader import ShardReader
from unitalking_data.storage import Store

BUILD = "_build"
FORMAT_COLUMNS = ("fps", "audio_rate")  # of ``meta/``: the rates of a clip's mp4 and wav
CLIP_COLUMNS = (*ATOM_COLUMNS, *FORMAT_COLUMNS)
TAKES = (REFERENCE, *(f"{REFERENCE}{take}" for take in range(REFERENCES)))
STATISTICS = {"video": "video_statistics.json", "audio": "audio_statistics.json"}
# Rates closer than this pass for one another, as 23.976 for 24: in ten seconds audio and video drift by 10 ms.
_SAME_RATE = 2e-3
_CUT_S = 0.1  # audio that ends so much before its video is cut off


class UnusableClip(ValueError):
    """A clip without latents; the message says why."""


@dataclass(frozen=True)
class CodecInput:
    """A clip as the codecs take it.

    Attributes:
        video: uint8 ``[frames, height, width, 3]``, of a length that the video codec can hold.
        audio: float32 ``[n]``, as long as the video.
        references: float32 ``[n]`` each, of any length, by name: ``ref0`` … ``ref2``, or ``ref`` for a drawn one.
    """

    video: np.ndarray
    audio: np.ndarray
    references: Mapping[str, np.ndarray]


class Encoder:
    """Codecs for clips; each is built when it is first used, in the process that uses it.

    Args:
        statistics: by stream, in place of those that the configuration names.

    Raises:
        WeightsError: naming all model files that are missing.
    """

    def __init__(self, config: EncodeConfig, statistics: Mapping[str, LatentStatistics] | None = None) -> None:
        self.config, self._statistics = config, dict(statistics or {})
        locate(file_values(config.parts.values()))

    def __reduce__(self) -> tuple[type[Encoder], tuple[EncodeConfig, dict[str, LatentStatistics]]]:
        return Encoder, (self.config, self._statistics)

    @cached_property
    def device(self) -> torch.device:
        if self.config.threads:
            torch.set_num_threads(self.config.threads)
        name, there = self.config.device, torch.cuda.is_available()
        if name.startswith("cuda") and not there:
            raise ConfigError(f"device: {name} is asked for and there is no GPU: set device=cpu, or auto")
        return torch.device(name if name != "auto" else "cuda" if there else "cpu")

    @cached_property
    def video_codec(self) -> VideoCodec:
        return self._placed(build_video_codec(self.config.video_codec, self._statistics.get("video")))

    @cached_property
    def audio_codec(self) -> AudioCodec:
        return self._placed(build_audio_codec(self.config.audio_codec, self._statistics.get("audio")))

    @cached_property
    def text_encoder(self) -> TextEncoder:
        return self._placed(build_text_encoder(self.config.text_encoder))

    def fingerprints(self) -> dict[str, str]:
        return {part: getattr(self, part).fingerprint for part in self.config.PARTS}

    def models(self) -> list[ModelUse]:
        """Models that the latents are made with."""
        return models_behind(self.config.parts)

    def prepare(self, members: Mapping[str, bytes], fps: float | None, rate: int | None) -> CodecInput:
        """A clip's files as the codecs take them; ``fps`` and ``rate`` are those of its mp4 and wav.

        Raises:
            UnusableClip: it has no audio or no video, or fewer frames a second than the model needs, or less audio
                than video, or cannot be decoded.
        """
        for member, what in (("wav", "audio"), ("mp4", "video")):
            if member not in members:
                raise UnusableClip(f"it has no {what}")
        if not fps or not rate:
            raise UnusableClip(f"its row in meta/ has no {'audio_rate' if fps else 'fps'}")
        if abs(fps / self.config.fps - 1) < _SAME_RATE:
            fps = self.config.fps
        if fps < self.config.fps:
            raise UnusableClip(f"it has {fps:g} frames a second; {self.config.fps:g} are needed")
        try:
            video = decode_video(members["mp4"])
            audio = self._mono(members["wav"], rate)
            takes = {name: self._reference(f"{name}.wav", members) for name in TAKES if f"{name}.wav" in members}
        except ValueError as error:
            raise UnusableClip(str(error)) from error
        audio_s, video_s = len(audio) / self.audio_codec.rate, len(video) / fps
        if audio_s < video_s - _CUT_S:
            raise UnusableClip(f"its audio lasts {audio_s:.2f} s, its video {video_s:.2f} s")
        stride = self.video_codec.stride[0]
        frames = int(len(video) / fps * self.config.fps + 1e-3)
        if not frames:
            raise UnusableClip("it is shorter than a frame of the model")
        frames = 1 + (frames - 1) // stride * stride
        video = video[(np.arange(frames) * (fps / self.config.fps) + 1e-3).astype(int)]
        height, width = video.shape[1:3]
        width, height = min(self.config.sizes, key=lambda size: abs(math.log(size[0] / size[1] * height / width)))
        video = np.stack([fit(image, width=width, height=height) for image in video])
        samples = round(frames / self.config.fps * self.audio_codec.rate)
        return CodecInput(video, np.pad(audio[:samples], (0, max(0, samples - len(audio)))), takes)

    @torch.no_grad()
    def encode_video(self, video: np.ndarray) -> Tensor:
        """``[frames, height, width, 3]`` → (C, F, h, w)"""
        video = torch.from_numpy(video).to(self.device).permute(3, 0, 1, 2)[None] / 127.5 - 1
        return self.video_codec.encode(video)[0]

    @torch.no_grad()
    def encode_audio(self, audio: np.ndarray) -> Tensor:
        """``[n]`` → (C, L)"""
        return self.audio_codec.encode(torch.from_numpy(audio).to(self.device)[None])[0]

    def prompts(self, row: Mapping[str, Any]) -> dict[str, str]:
        """Every variant that a row of ``meta/`` allows, and the empty one."""
        variants = {name: render(row, name, self.config.prompt_style) for name in ATOMS if row[ATOMS[name]]}
        return variants | {NULL_TEXT: ""}

    def encode(self, clip: CodecInput, prompts: Mapping[str, str]) -> dict[str, Tensor]:
        """Tensors of ``KEY.latents.safetensors``, on the CPU, see :mod:`train.data`."""
        tensors = {"video": self.encode_video(clip.video), "audio": self.encode_audio(clip.audio)}
        tensors |= {name: self.encode_audio(audio) for name, audio in clip.references.items()}
        with torch.no_grad():
            rows = self.text_encoder.encode(list(prompts.values()))
        for variant, embedding in zip(prompts, rows, strict=True):
            valid = embedding.any(1).nonzero()
            tensors[f"text.{variant}"] = embedding[: int(valid[-1]) + 1 if len(valid) else 0]
        dtype = getattr(torch, self.config.dtype)
        return {name: value.to("cpu", dtype).contiguous() for name, value in tensors.items()}

    def _placed(self, part: Any) -> Any:
        return part.to(self.device) if isinstance(part, nn.Module) else part

    def _mono(self, wav: bytes, rate: int) -> np.ndarray:
        audio = decode_audio(wav)
        return to_mono(audio, rate, LAYOUTS.get(len(audio), "mono"), self.audio_codec.rate)

    def _reference(self, name: str, members: Mapping[str, bytes]) -> np.ndarray:
        try:
            with wave.open(io.BytesIO(members[name])) as file:
                rate = file.getframerate()
            audio = self._mono(members[name], rate) if rate else np.zeros(0, np.float32)
        except (ValueError, EOFError, wave.Error) as error:
            raise ValueError(f"{name}: {error or 'it is cut'}") from error
        if not len(audio):
            raise ValueError(f"{name}: it has no samples")
        return audio[: round(self.config.reference_s * self.audio_codec.rate)]


class ReleaseReader:
    """Reads the clips of a release, one after another.

    Raises:
        ManifestError: there is no release.
    """

    def __init__(self, store: Store) -> None:
        self.store, self.manifest = store, read_manifest(store)

    def read(self, places: Iterable[ClipPlace]) -> Iterator[tuple[str, dict[str, bytes], dict[str, Any]]]:
        """Key, members and row of ``meta/`` of the clips at these places.

        Raises:
            ShardError, ManifestError, FileNotFoundError: the release is damaged.
        """
        reader, meta = ShardReader(self.store), MetaRows(self.store, self.manifest, CLIP_COLUMNS)
        for key, shard, offset, size, crc32 in places:
            members = unpack(reader.read(shard, offset, size, crc32), f"shard {shard.path}")
            yield key, members, meta.row(shard.split, shard.number, key)


def measure(encoder: Encoder, release: ReleaseReader) -> dict[str, LatentStatistics]:
    """The statistics that the configuration asks for.

    Raises:
        ValueError: the release has no such split, or too little to measure.
    """
    wanted = encoder.config.statistics
    moments = {
        stream: Moments(
            components=getattr(wanted, f"{stream}_components"), whitening=getattr(wanted, f"{stream}_whitening")
        )
        for stream in STATISTICS
        if getattr(wanted, stream)
    }
    if not moments:
        return {}
    split = wanted.split
    if split not in release.manifest.splits:
        raise ValueError(f"statistics.split: there is no {split!r} but {', '.join(release.manifest.splits)}")
    index = read_index(release.store, release.manifest, split)
    drawn = heapq.nsmallest(wanted.clips, range(len(index)), lambda n: hash64("statistics", index.keys[n].as_py()))
    reason = ""
    for _, members, row in release.read(index.place(number) for number in sorted(drawn)):
        try:
            clip = encoder.prepare(members, *(row[name] for name in FORMAT_COLUMNS))
        except UnusableClip as error:
            reason = f"; of the last clip: {error}"
            continue
        if "video" in moments:
            moments["video"].add(encoder.encode_video(clip.video)[None].cpu())
        if "audio" in moments:
            moments["audio"].add(encoder.encode_audio(clip.audio)[None].cpu())
    try:
        return {stream: found.statistics() for stream, found in moments.items()}
    except ValueError as error:
        raise ValueError(f"statistics: {error}{reason}") from error


def encode_shard(encoder: Encoder, release: ReleaseReader, out: Store, shard: ShardEntry) -> int:
    """Write the latents of a shard and then its record, with which it is done; gives the number of its clips.

    Raises:
        OSError: the storage failed; the shard is encoded again when the job is.
    """
    rows: dict[str, dict[str, Any]] = {}
    broken: list[dict[str, Any]] = []

    def samples() -> Iterator[SampleBlocks]:
        for key, members, row in release.read(places_of(release.store, release.manifest, shard)):
            prompts = encoder.prompts(row)
            try:
                clip = encoder.prepare(members, *(row[name] for name in FORMAT_COLUMNS))
            except UnusableClip as error:
                broken.append({"key": key, "verdict": "broken", "reasons": [str(error)]})
                continue
            frames, height, width = clip.video.shape[:3]
            seconds = frames / encoder.config.fps
            rows[key] = {"duration_s": seconds, "width": width, "height": height}
            about = {"key": key, "split": shard.split, "frames": frames, "fps": encoder.config.fps, "prompts": prompts}
            tensors = safetensors.torch.save(encoder.encode(clip, prompts))
            yield pack(key, {MEMBER: tensors, "json": json.dumps(about | rows[key], ensure_ascii=False).encode()})

    name = shard_name(shard.split, shard.number)
    written = write_shard(out, name, samples())
    places = [asdict(p) | rows[p.key] | {"shard": shard.number, "fingerprint": ""} for p in written.places]
    entry = None
    if places:
        entry = asdict(
            ShardEntry(name, written.bytes, written.sha256, len(places), places[0]["key"], places[-1]["key"])
        )
    else:
        out.delete([name])
    table = pa.Table.from_pylist(places, schema=INDEX_SCHEMA)
    head = {"split": shard.split, "shard": entry, "broken": broken}
    out.write_table(
        record_name(shard), table.replace_schema_metadata({**table.schema.metadata, b"head": json.dumps(head).encode()})
    )
    return len(places) + len(broken)


def record_name(shard: ShardEntry) -> str:
    return f"{BUILD}/shard-{shard.number:06d}.parquet"
