"""The scorers by name, and the tier that each belongs to."""

from __future__ import annotations

SOURCE = "source"

STAGES = {
    SOURCE: "curation.ingest.source:SourceStage",
    "static": "curation.video.static:Static",
    "text_overlay": "curation.video.text_overlay:TextOverlay",
    "quality": "curation.video.quality:Quality",
    "loudness": "curation.audio.loudness:Loudness",
    "events": "curation.audio.events:Events",
    "sentences": "curation.audio.sentences:Sentences",
    "snr": "curation.audio.snr:Snr",
    "faces": "curation.av.faces:Faces",
    "active_speaker": "curation.av.active_speaker:ActiveSpeaker",
    "mouth_motion": "curation.av.mouth_motion:MouthMotion",
    "lip_sync": "curation.av.lip_sync:LipSync",
}

TIERS = {"ingest": "source", "video": "video", "audio": "audio", "av": "audio-video"}


def tier(stage: str) -> str:
    """``source``, ``video``, ``audio`` or ``audio-video``: the tier of the paper that a stage belongs to."""
    return TIERS[STAGES[stage].split(".")[1]]
