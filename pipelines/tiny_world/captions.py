"""Write the caption atoms of a clip.

Its three prompts have the spoken words at the same places, because the `words` text encoder tells words by their
places. They differ in what they name:

- ``detailed``: who is seen, what is said, whose voice it is;
- ``short``: not who is seen, so that TI2AV must look at its image;
- ``fused``: not whose voice it is, so that TR2AV must listen to its reference.
"""

from __future__ import annotations

from pipelines.tiny_world.world import WorldClip


def atoms(clip: WorldClip) -> dict[str, str]:
    """Columns of ``meta/``, see :data:`unitalking_data.schema.ATOM_FIELDS`."""
    look, (pitch, timbre) = clip.look, clip.voice.words
    seen = f"{look.skin.capitalize()} {look.head} face {look.hair} hair {look.wall} wall"
    return {
        "video_detailed": seen,
        "video_short": "Some other face some hair some wall",
        "audio_caption": f"{pitch} {timbre}",
        "fused": f'{seen} Someone says: "{clip.transcript}"',
        "transcript": clip.transcript,
    }
