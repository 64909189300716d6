"""The configuration of a release."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints, field_validator

from engine.config import ExecutorConfig, Pool
from kit.config import ConfigError, Strict, load
from media.encode import AAC_RATES

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
SplitName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]+$")]


class MediaConfig(Strict):
    """How clips are cut.

    Attributes:
        fps: frames per second; null keeps each source's rate.
        audio_rate: sampling rate of the audio in Hz; null keeps each source's.
        copy_video: publish the source's own packets where a cut falls on a keyframe and nothing else asks for encoding.
        crf: quality of x264 where a clip has to be encoded, 0 (lossless) to 51.
        preset: speed of x264 where a clip has to be encoded, ``ultrafast`` to ``veryslow``.
        time_limit_s: for cutting one clip, after which it is given up as broken.
    """

    fps: float | None = Field(None, gt=0)
    audio_rate: int | None = None
    copy_video: bool = True
    crf: float = Field(18, ge=0, le=51)
    preset: str = "medium"
    time_limit_s: float = Field(300.0, gt=0)

    @field_validator("audio_rate")
    @classmethod
    def _known(cls, rate: int | None) -> int | None:
        if rate is not None and rate not in AAC_RATES:
            raise ValueError(f"{rate} Hz is not a rate of AAC: {', '.join(map(str, AAC_RATES))}")
        return rate


class SyncConfig(Strict):
    """Whether the audio is moved into sync with the lips.

    Attributes:
        correct: move it, where the stage ``lip_sync`` trusts its own answer.
        min_s: smallest measured offset, without sign, at which it is moved, in seconds.
        max_s: largest measured offset, without sign, at which it is moved, in seconds.
    """

    correct: bool = False
    min_s: float = Field(0.1, ge=0)
    max_s: float = Field(0.6, gt=0)


class SplitConfig(Strict):
    """Which clip is in which split.

    Attributes:
        shares: weight of each split; the first one takes groups that new clips join across splits.
        speaker: column of the listing that names the speaker; the release publishes it.
        together: further columns of the listing whose values must not be in two splits: the recording, the show.
    """

    shares: dict[SplitName, float] = Field({"train": 0.98, "val": 0.01, "test": 0.01}, min_length=1)
    speaker: str | None = None
    together: tuple[str, ...] = ()

    @field_validator("shares")
    @classmethod
    def _positive(cls, shares: dict[str, float]) -> dict[str, float]:
        if any(share <= 0 for share in shares.values()):
            raise ValueError("shares must be positive; leave out a split that is not wanted")
        return shares


class ReleaseConfig(Strict):
    """A release.

    Attributes:
        version: name of this release: letters, digits, ``.``, ``_`` and ``-``.
        root: folder or fsspec URL of all releases; this one goes to ``<root>/<version>``.
        previous: version in ``root`` that this one is built over, or null.
        curation: configuration of the curation run, a file as ``python -m curation`` takes it.
        curation_set: settings changed on top of it, ``key=value``.
        captions: folder of Parquet with ``key`` and caption atoms; null where there are none yet.
        references: folder of Parquet with ``key``, ``take``, ``audio`` (a wav's bytes) and the columns of ``refs/``.
        licences: what may be published, as the listing names it; null publishes all.
        takedown: file with a key, a source's sha256, a source's URI or a speaker a line; none of their clips is
            published. What earlier versions withdrew stays withdrawn.
        shard_clips: most clips of a shard; 500 clips of five seconds make about 1 GB.
        workers: shards at once, and what building one takes.
        title: heading of the dataset card.
        description: first paragraph of the dataset card.
    """

    version: Name
    root: str
    previous: Name | None = None
    curation: str
    curation_set: tuple[str, ...] = ()
    captions: str | None = None
    references: str | None = None
    media: MediaConfig = MediaConfig()
    sync: SyncConfig = SyncConfig()
    split: SplitConfig = SplitConfig()
    licences: tuple[str, ...] | None = None
    takedown: str | None = None
    shard_clips: int = Field(500, ge=1)
    workers: Pool = Pool(max_actors=4)
    executor: ExecutorConfig = ExecutorConfig()
    title: str = "Talking portraits"
    description: str = ""

    @property
    def folder(self) -> str:
        return f"{self.root.rstrip('/')}/{self.version}"

    @property
    def previous_folder(self) -> str | None:
        return f"{self.root.rstrip('/')}/{self.previous}" if self.previous else None


def read_config(path: str, overrides: list[str]) -> ReleaseConfig:
    """Raises ConfigError as :func:`kit.config.load`, and where a release is to be built over itself."""
    config = load(path, ReleaseConfig, overrides)
    if config.previous == config.version:
        raise ConfigError(f"version {config.version} cannot be built over itself: give the new one another name")
    return config
