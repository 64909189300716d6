"""Training prompts, rendered from a clip's caption atoms when it is read.

UniTalking (section 4.1 of the paper) trains on three formats, one drawn at random for each clip and step: a detailed
video caption with an audio caption, a short one with an audio caption, and a fused caption that was written from video
and audio together. The paper does not give the shares, the tags and the place of the transcript. The tags here are
Ovi's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from unitalking_data.permutation import hash64
from unitalking_data.strict import Strict

Format = Literal["detailed", "short", "fused"]
ATOMS: dict[Format, str] = {"detailed": "video_detailed", "short": "video_short", "fused": "fused"}
TAGS = re.compile(r"</?\s*(S|E|AUDCAP|ENDAUDCAP)\s*>")
QUOTES = {"ovi10": ("<S>", "<E>"), "ovi11": ("<S>", "<E>"), "plain": ('"', '"')}


class PromptConfig(Strict):
    """How prompts are rendered.

    Attributes:
        shares: weight of each format; a format is never drawn for a clip that lacks its atom.
        style: ``ovi11`` marks speech with ``<S>…<E>`` and ends with ``Audio: …``, ``ovi10`` puts the audio caption
            between ``<AUDCAP>`` and ``<ENDAUDCAP>``, ``plain`` quotes speech and has no tags.
    """

    shares: dict[Format, float] = Field(default={"detailed": 1.0, "short": 1.0, "fused": 1.0})
    style: Literal["ovi10", "ovi11", "plain"] = "ovi11"


def draw_format(
    atoms: Mapping[str, str | None], shares: Mapping[Format, float], *, key: str, epoch: int, seed: int
) -> Format | None:
    """The format of a clip's prompt in an epoch, drawn by hash among those whose atom it has; None if it has none."""
    weights = {name: shares.get(name, 0.0) for name, atom in ATOMS.items() if atoms.get(atom)}
    weights = {name: weight for name, weight in weights.items() if weight > 0}
    threshold = hash64("format", key, epoch, seed) / 2**64 * sum(weights.values())
    for name, weight in weights.items():
        threshold -= weight
        if threshold < 0:
            return name
    return next(reversed(weights), None)


def draw_take(takes: int, *, key: str, epoch: int, seed: int) -> int:
    """Which of a clip's ``takes`` reference recordings accompanies it in an epoch, 0…takes−1."""
    return hash64("take", key, epoch, seed) % takes


def render(atoms: Mapping[str, str | None], form: Format | None, style: str = "ovi11") -> str:
    """The prompt of a clip.

    The transcript is in it once, word for word. A fused caption that quotes it gets tags around the quotation; any
    other text is followed by the transcript.

    Args:
        atoms: ``video_detailed``, ``video_short``, ``fused``, ``audio_caption``, ``transcript``; what is missing or
            empty is left out.
        form: format whose description it begins with; None begins with none, so transcript and audio caption remain.
        style: of :class:`PromptConfig`.
    """
    text = {name: TAGS.sub("", atoms.get(name) or "").strip() for name in (*ATOMS.values(), "audio_caption")}
    opening, closing = QUOTES[style]
    description = text[ATOMS[form]] if form else ""
    parts = [description]
    if speech := TAGS.sub("", atoms.get("transcript") or "").strip():
        quoted = f"{opening}{speech}{closing}"
        said = re.compile(r"[\"“”']?" + r"\s+".join(map(re.escape, speech.split())) + r"[\"“”']?", re.IGNORECASE)
        if form == "fused" and said.search(description):
            parts = [said.sub(lambda _: quoted, description, count=1)]
        else:
            parts.append(f"Someone says: {quoted}")
    if text["audio_caption"] and form != "fused":
        audio = text["audio_caption"]
        parts.append(f"<AUDCAP>{audio}<ENDAUDCAP>" if style == "ovi10" else f"Audio: {audio}")
    return " ".join(part for part in parts if part)
