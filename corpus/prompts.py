"""Training prompts, rendered from a clip's caption atoms when it is read.

UniTalking (section 4.1 of the paper) trains on three formats, one drawn at random for each clip and step: a detailed
video caption with an audio caption, a short one with an audio caption, and a caption that was written from picture and
sound together. Shares, tags and the place of the transcript are not published; the tags here are Ovi's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from corpus.permutation import hash64

Format = Literal["detailed", "short", "fused"]
ATOMS: dict[Format, str] = {"detailed": "video_detailed", "short": "video_short", "fused": "fused"}
TAGS = re.compile(r"</?\s*(S|E|AUDCAP|ENDAUDCAP)\s*>")
QUOTES = {"ovi10": ("<S>", "<E>"), "ovi11": ("<S>", "<E>"), "plain": ('"', '"')}


class PromptConfig(BaseModel):
    """How prompts are rendered.

    Attributes:
        shares: weight of each format; a format whose atom a clip lacks is drawn for no prompt of that clip.
        style: ``ovi11`` marks speech with ``<S>…<E>`` and ends with ``Audio: …``, ``ovi10`` puts the audio caption
            between ``<AUDCAP>`` and ``<ENDAUDCAP>``, ``plain`` quotes speech and has no tags.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    shares: dict[Format, float] = Field({"detailed": 1.0, "short": 1.0, "fused": 1.0})
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

    The transcript stands in it once, word for word: a fused caption that quotes it has the quotation marked, any other
    text is followed by it.

    Args:
        atoms: ``video_detailed``, ``video_short``, ``fused``, ``audio_caption``, ``transcript``; what is missing or
            empty is left out.
        form: whose description; None has none and leaves speech and sound.
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
        sound = text["audio_caption"]
        parts.append(f"<AUDCAP>{sound}<ENDAUDCAP>" if style == "ovi10" else f"Audio: {sound}")
    return " ".join(part for part in parts if part)
