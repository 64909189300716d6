"""One shard of latents: each clip's video, sound, reference voices and prompts through the codecs."""

from __future__ import annotations

import io
import json
import math
import wave
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import safetensors.torch
import torch
from torch import Tensor, nn

from corpus.captions import MetaRows
from corpus.decoders import decode_sound, decode_video
from corpus.index import read_index
from corpus.loader import ATOM_COLUMNS
from corpus.manifest import Manifest, ShardEntry, read_manifest
from corpus.permutation import hash64
from corpus.prompts import ATOMS, render
from corpus.reading import ShardReader
from corpus.schema import INDEX_SCHEMA, REFERENCES
from corpus.shard import Packed, pack, shard_name, unpack, write_shard
from corpus.storage import Store
from media.encode import LAYOUTS
from media.reading import fit
from media.resample import to_mono
from model.codecs.base import AudioCodec, VideoCodec
from model.codecs.build import build_audio_codec, build_text_encoder, build_video_codec
from model.codecs.statistics import LatentStatistics
from model.text import TextEncoder
from train.config import NULL_TEXT
from train.data import MEMBER
from train.encode_config import EncodeConfig

BUILD = "_build"
STATISTICS = {"video": "video_statistics.json", "audio": "audio_statistics.json"}
_SAME_RATE = 2e-4  # of two rates closer than this, one is the other rounded


class UnusableClip(ValueError):
    """A clip without latents; the message says why."""


@dataclass(frozen=True)
class Prepared:
    """A clip as the codecs take it.

    Attributes:
        film: uint8 ``[frames, height, width, 3]``, of a length that the video codec can hold.
        sound: float32 ``[n]``, as long as the film.
        references: float32 ``[n]`` each, of any length.
    """

    film: np.ndarray
    sound: np.ndarray
    references: tuple[np.ndarray, ...]


class Encoder:
    """Codecs for the clips of a release; each is built when it is first used, in the process that uses it.

    Args:
        statistics: by stream, in place of those that the configuration names.
    """

    def __init__(self, config: EncodeConfig, statistics: Mapping[str, LatentStatistics] | None = None) -> None:
        self.config, self._statistics = config, dict(statistics or {})
        self.store = Store(config.release)

    def __reduce__(self) -> tuple[type[Encoder], tuple[EncodeConfig, dict[str, LatentStatistics]]]:
        return Encoder, (self.config, self._statistics)

    @cached_property
    def manifest(self) -> Manifest:
        return read_manifest(self.store)

    @cached_property
    def device(self) -> torch.device:
        if self.config.threads:
            torch.set_num_threads(self.config.threads)
        name = self.config.device
        return torch.device(name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu")

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
        return {part: getattr(self, part).fingerprint for part in ("video_codec", "audio_codec", "text_encoder")}

    def prepare(self, members: Mapping[str, bytes], fps: float, rate: int) -> Prepared:
        """A clip's files as the codecs take them; ``fps`` and ``rate`` are those of its mp4 and wav.

        Raises:
            UnusableClip: it has no sound or no pictures, or fewer a second than the model needs, or cannot be decoded.
        """
        for member, what in (("wav", "sound"), ("mp4", "pictures")):
            if member not in members:
                raise UnusableClip(f"it has no {what}")
        if fps < self.config.fps * (1 - _SAME_RATE):
            raise UnusableClip(f"it has {fps:g} pictures a second; {self.config.fps:g} are needed")
        try:
            film = decode_video(members["mp4"])
            sound = self._mono(members["wav"], rate)
            takes = [self._reference(members[f"ref{k}.wav"]) for k in range(REFERENCES) if f"ref{k}.wav" in members]
        except (ValueError, EOFError, wave.Error) as error:
            raise UnusableClip(str(error) or "a sound of it is cut") from error
        stride = self.video_codec.stride[0]
        frames = int(len(film) / fps * self.config.fps + 1e-3)
        if not frames:
            raise UnusableClip("it is shorter than a picture of the model")
        frames = 1 + (frames - 1) // stride * stride
        film = film[(np.arange(frames) * (fps / self.config.fps) + 1e-3).astype(int)]
        height, width = film.shape[1:3]
        width, height = min(self.config.sizes, key=lambda size: abs(math.log(size[0] / size[1] * height / width)))
        film = np.stack([fit(picture, width=width, height=height) for picture in film])
        samples = round(frames / self.config.fps * self.audio_codec.rate)
        return Prepared(film, np.pad(sound[:samples], (0, max(0, samples - len(sound)))), tuple(takes))

    @torch.no_grad()
    def encode_film(self, film: np.ndarray) -> Tensor:
        """``[frames, height, width, 3]`` → (C, F, h, w)"""
        video = torch.from_numpy(film).to(self.device).permute(3, 0, 1, 2)[None] / 127.5 - 1
        return self.video_codec.encode(video)[0]

    @torch.no_grad()
    def encode_sound(self, sound: np.ndarray) -> Tensor:
        """``[n]`` → (C, L)"""
        return self.audio_codec.encode(torch.from_numpy(sound).to(self.device)[None])[0]

    def prompts(self, row: Mapping[str, Any]) -> dict[str, str]:
        """Every variant that a row of ``meta/`` allows, and the empty one."""
        variants = {name: render(row, name, self.config.prompt_style) for name in ATOMS if row[ATOMS[name]]}
        return variants | {NULL_TEXT: ""}

    def encode(self, clip: Prepared, prompts: Mapping[str, str]) -> dict[str, Tensor]:
        """Tensors of ``KEY.latents.safetensors``, on the CPU, see :mod:`train.data`."""
        tensors = {"video": self.encode_film(clip.film), "audio": self.encode_sound(clip.sound)}
        tensors |= {f"ref{take}": self.encode_sound(sound) for take, sound in enumerate(clip.references)}
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
        sound = decode_sound(wav)
        return to_mono(sound, rate, LAYOUTS.get(len(sound), "mono"), self.audio_codec.rate)

    def _reference(self, wav: bytes) -> np.ndarray:
        with wave.open(io.BytesIO(wav)) as file:
            rate = file.getframerate()
        return self._mono(wav, rate)[: round(self.config.reference_s * self.audio_codec.rate)]


def measure(encoder: Encoder) -> dict[str, LatentStatistics]:
    """The statistics that the configuration asks for.

    Raises:
        ValueError: the release has no such split, or too little to measure.
    """
    wanted = encoder.config.statistics
    streams = [stream for stream in STATISTICS if getattr(wanted, stream)]
    if not streams:
        return {}
    split = wanted.split
    if split not in encoder.manifest.splits:
        raise ValueError(f"statistics.split: there is no {split!r} but {', '.join(encoder.manifest.splits)}")
    keys = read_index(encoder.store, encoder.manifest, split).keys.to_pylist()
    drawn = set(sorted(keys, key=lambda key: hash64("statistics", key))[: wanted.clips])
    reasons = []

    def latents(stream: str) -> Iterator[Tensor]:
        for shard in encoder.manifest.shards_of(split):
            for _, members, row in clips_of(encoder, shard, drawn):
                try:
                    clip = encoder.prepare(members, row["fps"], row["audio_rate"])
                except UnusableClip as error:
                    reasons.append(str(error))
                    continue
                latent = encoder.encode_film(clip.film) if stream == "video" else encoder.encode_sound(clip.sound)
                yield latent[None].cpu()

    try:
        return {
            stream: LatentStatistics.measure(
                latents(stream),
                components=getattr(wanted, f"{stream}_components"),
                whitening=getattr(wanted, f"{stream}_whitening"),
            )
            for stream in streams
        }
    except ValueError as error:
        raise ValueError(f"statistics: {'; '.join([str(error), *reasons[-1:]])}") from error


def clips_of(
    encoder: Encoder, shard: ShardEntry, keys: Collection[str] | None = None
) -> Iterator[tuple[str, dict[str, bytes], dict[str, Any]]]:
    """Key, members and row of ``meta/`` of a shard's clips; of those in ``keys`` if given.

    Raises:
        ShardError, ManifestError, FileNotFoundError: the release is damaged.
    """
    store, manifest = encoder.store, encoder.manifest
    index = store.read_table([manifest.splits[shard.split].index])
    reader, meta = ShardReader(store), MetaRows(store, manifest, (*ATOM_COLUMNS, "fps", "audio_rate"))
    for place in index.filter(pc.equal(index["shard"], shard.number)).to_pylist():
        key = place["key"]
        if keys is None or key in keys:
            run = reader.read(shard, place["offset"], place["size"], place["crc32"])
            yield key, unpack(run, f"shard {shard.path}"), meta.row(shard.split, shard.number, key)


def encode_shard(encoder: Encoder, out: Store, shard: ShardEntry) -> int:
    """Write the latents of a shard and then its record, with which it is done; gives the number of its clips.

    Raises:
        OSError: the storage failed; the shard is encoded again when the job is.
    """
    rows: dict[str, dict[str, Any]] = {}
    broken: list[dict[str, Any]] = []

    def samples() -> Iterator[Packed]:
        for key, members, row in clips_of(encoder, shard):
            prompts = encoder.prompts(row)
            try:
                clip = encoder.prepare(members, row["fps"], row["audio_rate"])
            except UnusableClip as error:
                broken.append({"key": key, "verdict": "broken", "reasons": [str(error)]})
                continue
            frames, height, width = clip.film.shape[:3]
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
