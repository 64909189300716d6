"""The whole corpus, of short tones in place of speech and small frames so that it is built in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from curation.accuracy import Truth, read_labels
from media.clip import MediaError
from media.decode import decode_clip
from media.probe import content_hash, probe
from perception import speech_synthesis
from pipelines import demo_corpus

FAULTS = {"static", "text", "quality", "muted", "no_speech", "noisy", "unsynced", "no_speaker", "cut", "broken"}
SECONDS = 1.2


class Syllables:
    """In place of a voice: another rhythm of vowels for each."""

    def __init__(self, weights) -> None:
        pass

    def say(self, text: str, voice: str) -> np.ndarray:
        times = np.arange(round(SECONDS * speech_synthesis.RATE)) / speech_synthesis.RATE
        random = np.random.default_rng(len(text))
        rhythm = np.interp(times, np.linspace(0, SECONDS, 12), random.random(12))
        return (rhythm * np.sin(2 * np.pi * 700 * times)).astype(np.float32)


@pytest.fixture(scope="module")
def labels(tmp_path_factory, weights) -> Path:
    weights(*demo_corpus.WEIGHTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speech_synthesis, "Speech", Syllables)
        patch.setattr(demo_corpus, "SIDE", 224)
        return demo_corpus.build(tmp_path_factory.mktemp("corpus") / "not yet there")


@pytest.fixture(scope="module")
def truths(labels: Path) -> dict[str, Truth]:
    return {truth.file: truth for truth in read_labels(labels)}


def opened(labels: Path, name: str, *needs: str):
    path = str(labels.parent / name)
    return decode_clip(path, 0, min(probe(path).duration_s, 2 * SECONDS), needs=frozenset(needs))


def test_every_text_can_be_pronounced_by_its_voice(weights) -> None:
    voice = speech_synthesis.Speech(weights(*speech_synthesis.WEIGHTS))
    for person in demo_corpus.PEOPLE:
        assert voice.phonemes(person.text)
        assert person.voice in voice.voices


def test_every_file_is_labelled_once_and_no_two_are_the_same(labels: Path, truths: dict[str, Truth]) -> None:
    files = [path for path in labels.parent.iterdir() if path != labels]
    assert {path.name for path in files} == set(truths)
    assert len({content_hash(str(path)) for path in files}) == len(files) == len(read_labels(labels))


def test_there_are_keeps_and_every_fault(truths: dict[str, Truth]) -> None:
    found = [truth.label for truth in truths.values()]
    assert set(found) == FAULTS | {"keep"}
    assert found.count("keep") >= 4
    assert 20 <= len(found) <= 32


def test_one_name_is_awkward(truths: dict[str, Truth]) -> None:
    assert any({" ", "'", '"'} <= set(name) for name in truths)


def test_all_but_the_broken_can_be_decoded(labels: Path, truths: dict[str, Truth]) -> None:
    for truth in truths.values():
        if truth.label == "broken":
            with pytest.raises(MediaError):
                opened(labels, truth.file, "frames", "audio")
        else:
            assert len(opened(labels, truth.file, "frames").frames) > 0


def test_the_real_clips_are_the_packages_own_bytes(labels: Path, truths: dict[str, Truth], weights) -> None:
    real = [name for name, truth in truths.items() if truth.params.get("origin") == "package"]
    sources = weights(*demo_corpus.REAL)
    assert {(labels.parent / name).read_bytes() for name in real} == {path.read_bytes() for path in sources.values()}


def test_the_muted_talker_is_silent_and_the_static_one_is_still(labels: Path) -> None:
    assert np.abs(opened(labels, "bea__muted.mp4", "audio").audio).max() < 1e-4
    still, alive = (opened(labels, f"ada__{kind}.mp4", "frames").frames.astype(int) for kind in ("static", "keep"))
    assert np.abs(np.diff(still, axis=0)).mean() < 0.3 * np.abs(np.diff(alive, axis=0)).mean()


def test_shifted_audio_is_late_by_what_the_label_says(labels: Path, truths: dict[str, Truth]) -> None:
    shifted = {truth.file: float(truth.params["shift_s"]) for truth in truths.values() if "shift_s" in truth.params}
    assert min(shifted.values()) < 0 < max(shifted.values())
    for name, seconds in shifted.items():
        person = name.split("__")[0]
        whole = next(n for n, truth in truths.items() if truth.label == "keep" and n.startswith(person))
        late, own = (opened(labels, n, "audio").speech for n in (name, whole))
        match = np.correlate(late, own, mode="full")
        assert (int(match.argmax()) - (len(own) - 1)) / 16_000 == pytest.approx(seconds, abs=0.02)


def test_the_cut_is_where_the_label_says(labels: Path, truths: dict[str, Truth]) -> None:
    (cut,) = (truth for truth in truths.values() if truth.label == "cut")
    frames = opened(labels, cut.file, "frames").frames.astype(int)
    change = np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3))
    assert (int(change.argmax()) + 1) / 25 == pytest.approx(float(cut.params["cut_s"]))
