"""What a sampler makes of the unseen clips of a tiny world, measured on decoded frames and audio.

Requests go to the ordinary sampler, as files and prompts. Nothing is compared with a clip's own times but where the
task gave them: T2AV and TTS are judged by what they made alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from media.encode import write_png
from model.generate import Sampler
from model.output import Sample
from model.request import Request
from model.tasks import TASKS
from pipelines.tiny_world import measure
from pipelines.tiny_world.face import SIDE
from pipelines.tiny_world.world import SECONDS, WorldClip, make_clip
from unitalking_data.dataset import ATOM_COLUMNS, ClipDataset
from unitalking_data.decoders import decode_audio, decode_video
from unitalking_data.manifest import read_manifest
from unitalking_data.prompts import ATOMS, render
from unitalking_data.storage import Store

STYLE = "plain"  # of prompts, as configs/train/encode_tiny.yaml says
FORMS = {"ti2av": "short", "tr2av": "fused"}  # what a task's input is to tell, its prompt does not
OTHER_DRAW = 100_000
# Raised when a measure means something else than before.
VERSION = 2


@dataclass(frozen=True)
class UnseenClip:
    """A clip with its truth and the files that requests name.

    Attributes:
        video, audio: uint8 ``[frames, SIDE, SIDE, 3]``, float32 ``[n]``, as decoded from the release.
        prompts: by form.
    """

    truth: WorldClip
    video: np.ndarray
    audio: np.ndarray
    prompts: dict[str, str]
    files: dict[str, Path]


def unseen_clips(release: str, folder: Path, count: int, *, split: str = "test") -> list[UnseenClip]:
    """The first clips of a split of a world's release; their video, first frame and reference go to ``folder``.

    Raises:
        ValueError: the release is of no tiny world, or has fewer clips.
    """
    clips = ClipDataset(release, split, prompts=None, columns=ATOM_COLUMNS)
    world = read_manifest(Store(release)).process.get("world")
    if world is None or len(clips) < count:
        raise ValueError(f"{release} is no tiny world with {count} clips of {split}")
    truths = {clip.key: clip for clip in (make_clip(world["seed"], split, n) for n in range(len(clips)))}
    folder.mkdir(parents=True, exist_ok=True)
    return [_unseen(clips.clip(number, 0), truths, folder) for number in range(count)]


def _unseen(content: dict, truths: dict[str, WorldClip], folder: Path) -> UnseenClip:
    key, video = content["key"], decode_video(content["mp4"])
    files = {"video": folder / f"{key}.mp4", "reference": folder / f"{key}.wav", "image": folder / f"{key}.png"}
    files["video"].write_bytes(content["mp4"])
    files["reference"].write_bytes(content["ref.wav"])
    write_png(files["image"], video[0])
    prompts = {form: render(content, form, STYLE) for form in ATOMS}
    return UnseenClip(truths[key], video, decode_audio(content["wav"])[0], prompts, files)


def sample_clips(
    sampler: Sampler, clips: Sequence[UnseenClip], name: str, *, form: str | None = None, draw: int = 0
) -> list[Sample]:
    """What the ordinary sampler makes of each clip in a task; another ``draw`` starts from other noise."""
    task = TASKS[name]
    wanted = {"video": task.video == "given", "image": task.video == "first_frame", "reference": task.reference}
    size = {} if task.video == "absent" else {"height": SIDE, "width": SIDE}
    return sampler.generate(
        [
            Request(
                key=f"{number:06d}",
                task=name,
                prompt=clip.prompts[form or FORMS.get(name, "detailed")],
                seconds=SECONDS,
                seed=number + draw,
                **size,
                **{what: str(clip.files[what]) for what, needed in wanted.items() if needed},
            )
            for number, clip in enumerate(clips)
        ]
    )


class Judge:
    """Measures of samples of ``clips``, which are real: they give the ceiling and the mean course in time."""

    def __init__(self, clips: Sequence[UnseenClip]) -> None:
        self.clips = clips
        self._envelopes = _envelopes([clip.audio for clip in clips])
        self._openings = _openings([clip.video for clip in clips])
        self._profile = measure.Profile.of(self._envelopes, self._openings)

    def ceiling(self, sampler: Sampler) -> dict[str, float]:
        """Of the clips themselves, and of what the codecs leave of them."""
        videos = [_through(sampler.video_codec, sampler.encode_frames(clip.video)) for clip in self.clips]
        videos = [((video + 1) * 127.5).clip(0, 255).round().astype(np.uint8).transpose(1, 2, 3, 0) for video in videos]
        waveforms = [_through(sampler.audio_codec, sampler.encode_audio(clip.audio)) for clip in self.clips]
        return {
            "real.sync": self._sync(self._envelopes, self._openings),
            "real.shuffled": self._sync(self._envelopes, np.roll(self._openings, 1, 0)),
            "codec.sync": self._sync(_envelopes(waveforms), _openings(videos)),
            "codec.words": self._word_error(waveforms),
            "codec.identity": self._identity(videos)[0],
            "codec.flicker": float(np.mean([measure.flicker(video) for video in videos])),
            **self._voice(waveforms, "codec"),
        }

    def judge(self, sampler: Sampler, *, references: bool = True) -> dict[str, float]:
        """Every measure of the table in docs/results.md.

        Args:
            references: whether the model has learned to hear them; one that has not is asked T2AV with TR2AV's prompts.
        """
        found = self._t2av(sampler)
        waveforms = [sample.audio for sample in sample_clips(sampler, self.clips, "tv2a")]
        found |= {
            "tv2a.sync": self._sync(_envelopes(waveforms), self._openings),
            "tv2a.shuffled": self._sync(_envelopes(waveforms), np.roll(self._openings, 1, 0)),
            "tv2a.words": self._word_error(waveforms),
        }
        samples = sample_clips(sampler, self.clips, "ti2av")
        videos = [sample.video for sample in samples]
        found |= self._together(_envelopes([sample.audio for sample in samples]), _openings(videos), "ti2av")
        found["ti2av.identity"] = self._identity([video[1:] for video in videos])[0]  # the first frame was given
        samples = sample_clips(sampler, self.clips, "tr2av" if references else "t2av", form=FORMS["tr2av"])
        found |= self._voice([sample.audio for sample in samples], "tr2av")
        found["tts.words"] = self._word_error([sample.audio for sample in sample_clips(sampler, self.clips, "tts")])
        return found

    def _t2av(self, sampler: Sampler) -> dict[str, float]:
        samples = sample_clips(sampler, self.clips, "t2av")
        videos, waveforms = [sample.video for sample in samples], [sample.audio for sample in samples]
        envelopes, openings = _envelopes(waveforms), _openings(videos)
        other = _envelopes([sample.audio for sample in sample_clips(sampler, self.clips, "t2av", draw=OTHER_DRAW)])
        identity, distance = self._identity(videos)
        return {
            **self._together(envelopes, openings, "t2av"),
            "t2av.other_draw": self._sync(other, openings),
            "t2av.lag_s": self._profile.lag_s(envelopes, openings),
            "t2av.words": self._word_error(waveforms),
            "t2av.words_seen": self._seen_error(videos, envelopes),
            "t2av.identity": identity,
            "t2av.colour_error": distance,
            "t2av.flicker": float(np.mean([measure.flicker(video) for video in videos])),
        }

    def _sync(self, envelopes: np.ndarray, openings: np.ndarray) -> float:
        return float(self._profile.correlations(envelopes, openings).mean())

    def _together(self, envelopes: np.ndarray, openings: np.ndarray, task: str) -> dict[str, float]:
        """How mouths and audio that were made together agree, each with another's, and how much the mouths move."""
        return {
            f"{task}.sync": self._sync(envelopes, openings),
            f"{task}.shuffled": self._sync(envelopes, np.roll(openings, 1, 0)),
            f"{task}.motion": float(openings.std(1).mean() / self._openings.std(1).mean()),
        }

    def _word_error(self, waveforms: Sequence[np.ndarray]) -> float:
        """Levenshtein distance of the words heard and those prompted, over the latter's number."""
        pairs = zip(waveforms, self.clips, strict=True)
        rates = [measure.edit_rate(measure.hear(audio).words, clip.truth.speech.words) for audio, clip in pairs]
        return float(np.mean(rates))

    def _seen_error(self, videos: Sequence[np.ndarray], envelopes: np.ndarray) -> float:
        """The same of the words that the mouth forms when the audio has a syllable."""
        rates = []
        for clip, video, envelope in zip(self.clips, videos, envelopes, strict=True):
            times = (measure.syllables(envelope) + 0.5) / measure.ENVELOPE_HZ
            rates.append(measure.edit_rate(measure.words_seen(video, times.tolist()), clip.truth.speech.words))
        return float(np.mean(rates))

    def _identity(self, videos: Sequence[np.ndarray]) -> tuple[float, float]:
        """Share of videos that show who they should in all of skin, hair, wall and head; error of the colours."""
        seen = [measure.look(video) for video in videos]
        right = [look == clip.truth.look for (look, _), clip in zip(seen, self.clips, strict=True)]
        return float(np.mean(right)), float(np.mean([distance for _, distance in seen]))

    def _voice(self, waveforms: Sequence[np.ndarray], task: str) -> dict[str, float]:
        """Distance to the voice of the reference, and to that of another clip's, of 0…1."""
        heard = [measure.hear(audio).voice for audio in waveforms]
        own = [clip.truth.voice for clip in self.clips]
        found = {}
        for name, voices in (("", own), ("_other", [*own[1:], own[0]])):
            for part in ("pitch", "timbre"):
                errors = [abs(getattr(a, part) - getattr(b, part)) for a, b in zip(heard, voices, strict=True)]
                found[f"{task}.{part}{name}"] = float(np.mean(np.nan_to_num(errors, nan=1.0)))
        return found


def _envelopes(waveforms: Sequence[np.ndarray]) -> np.ndarray:
    frames = round(SECONDS * measure.ENVELOPE_HZ)
    found = [measure.envelope(audio)[:frames] for audio in waveforms]
    return np.stack([np.pad(envelope, (0, frames - len(envelope))) for envelope in found])


def _openings(videos: Sequence[np.ndarray]) -> np.ndarray:
    frames = round(SECONDS * measure.ENVELOPE_HZ)
    return np.stack([measure.opening(video, frames, len(video) / SECONDS) for video in videos])


def _through(codec, latents) -> np.ndarray:
    return codec.decode(latents)[0].float().cpu().numpy()
