"""Small stages with every kind of behaviour, for the engine's tests. The licence field scripts an item."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from engine.items import Source
from engine.stage import Failure, NotApplicable, Outcome, Stage, StageConfig, Value, field
from media.clip import MediaError


class Length(Stage[Source]):
    """Answers the length of the URI; ``bad`` fails for good, ``none`` does not apply, ``raise`` throws."""

    name = "length"
    version = "1"
    values = pa.schema([field("letters", pa.int64(), "characters in the URI")])

    def score(self, items: Sequence[Source]) -> list[Outcome]:
        return [self._one(item) for item in items]

    def _one(self, item: Source) -> Outcome:
        if item.licence == "raise":
            raise RuntimeError("thrown by the stage")
        if item.licence == "bad":
            return Failure("media", "scripted")
        if item.licence == "none":
            return NotApplicable("scripted")
        return Value({"letters": len(item.uri)})


class FlakyConfig(StageConfig):
    folder: str
    pause_s: float = 0.0


class Flaky(Stage[Source]):
    """Crashes as scripted: ``crash``, ``hang``, ``bloat`` always; ``once`` crashes at the first attempt only."""

    name = "flaky"
    version = "1"
    Config = FlakyConfig
    values = pa.schema([field("vowels", pa.int64(), "vowels in the URI"), field("series", pa.list_(pa.float32()), "")])

    def score(self, items: Sequence[Source]) -> list[Outcome]:
        return [self._one(item) for item in items]

    def _one(self, item: Source) -> Outcome:
        time.sleep(self.config.pause_s)
        marks = Path(self.config.folder)
        with (marks / "calls").open("a") as stream:
            stream.write(item.uri + "\n")
        if item.licence == "crash":
            os.abort()
        if item.licence == "hang":
            time.sleep(3600)
        if item.licence == "bloat":
            hoard = []
            while True:
                hoard.append(b"x" * 2**24)
                time.sleep(0.002)
        if item.licence == "once" and not (marks / item.key).exists():
            (marks / item.key).touch()
            os._exit(3)
        return Value({"vowels": sum(letter in "aeiou" for letter in item.uri), "series": [0.5, 1.5]})


class NoDevice(Length):
    """Cannot be set up."""

    name = "no_device"

    def setup(self, weights: Mapping[str, Path]) -> None:
        raise RuntimeError("no such device")


class Last(Stage[Source]):
    """Comes after a gate."""

    name = "last"
    version = "1"
    values = pa.schema([field("ok", pa.bool_(), "always true")])

    def score(self, items: Sequence[Source]) -> list[Outcome]:
        return [Value({"ok": True}) for _ in items]


def opener(item: Source, needs: frozenset[str]) -> Source:
    if item.licence == "unopenable":
        raise MediaError("scripted: cannot be opened")
    if item.licence == "open-crash":
        os.abort()
    return item
