"""What to sample: one strict row a sample, from a JSONL file or from flags, checked before any work is done."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from kit.config import Strict
from kit.errors import UserError
from media.open import is_url
from model.tasks import TASKS

FILES = ("image", "video", "reference")


class RequestError(UserError):
    """A sample that cannot be made as asked; the message names it and says what to do."""


class Request(Strict, strict=True):
    """One sample.

    Attributes:
        key: name of its files; letters, digits, ``.``, ``_`` and ``-``.
        task: of :data:`model.tasks.TASKS`.
        prompt: caption, in the form the model was trained on.
        negative_prompt: what to move away from; the empty prompt is the null of training.
        image: file of the first frame, for ``ti2av``; scaled and cropped about its centre to the size asked for.
        video: file to give audio to, for ``tv2a``; its first ``seconds`` at the model's frame rate.
        reference: file with the voice to follow, for ``tr2av`` and ``tts_ref``; its first six seconds in ``paper``.
        seconds: length; that of a video is the nearest its codec can hold.
        height, width: of the video in pixels.
        seed: of the noise.
    """

    key: str = Field("sample", pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$")
    task: Literal["tts", "tts_ref", "t2av", "ti2av", "tr2av", "tv2a"]
    prompt: str
    negative_prompt: str = ""
    image: str | None = None
    video: str | None = None
    reference: str | None = None
    seconds: float = Field(5.0, gt=0, le=600)
    height: int | None = Field(None, gt=0)
    width: int | None = Field(None, gt=0)
    seed: int = 0

    @model_validator(mode="after")
    def _fits_its_task(self) -> Request:
        task = TASKS[self.task]
        wanted = {"image": task.video == "first_frame", "video": task.video == "given", "reference": task.reference}
        for name, needed in wanted.items():
            if needed != (getattr(self, name) is not None):
                raise ValueError(f"task {self.task} {'needs' if needed else 'takes no'} {name}")
        sized = self.height is not None and self.width is not None
        if task.video == "absent" and (self.height or self.width):
            raise ValueError(f"task {self.task} has no video: leave height and width away")
        if task.video != "absent" and not sized:
            raise ValueError(f"task {self.task} needs height and width")
        return self


def read_requests(path: Path, defaults: dict[str, Any], check: Callable[[Request], object]) -> list[Request]:
    """The rows of a JSONL file, with ``defaults`` for what they leave out; a row without a key gets its line's number.

    Relative file names are relative to the folder of the JSONL file and may not leave it; absolute ones and URLs are
    taken as they are. ``check`` raises RequestError for what only the model knows, sizes for one.

    Raises:
        RequestError: any bad row; all of them are named by their line number.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"cannot read {path}: {error}") from None
    requests, problems, keys = [], [], Counter()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise RequestError(f"expected an object, found {type(row).__name__}")
            row = {name: _resolved(name, value, path.parent) for name, value in row.items()}
            request = make_request({"key": f"{number:06}"} | row, defaults)
            check(request)
        except json.JSONDecodeError as error:
            problems.append(f"  line {number}: not JSON: {error}")
        except RequestError as error:
            problems.append(f"  line {number}: {error}")
        else:
            keys[request.key] += 1
            if keys[request.key] > 1:
                problems.append(f"  line {number}: key {request.key!r} is in an earlier line")
            requests.append(request)
    if problems:
        raise RequestError(f"{path}: {len(problems)} bad rows\n" + "\n".join(problems))
    if not requests:
        raise RequestError(f"{path} holds no rows")
    return requests


def make_request(row: dict[str, Any], defaults: dict[str, Any]) -> Request:
    """A request of ``row`` on top of ``defaults``.

    Raises:
        RequestError: what is wrong with it, by field.
    """
    filled = {**defaults, **row}
    task = TASKS.get(filled.get("task"))
    if task is not None and task.video == "absent":  # default sizes are for tasks with video
        filled = {k: v for k, v in filled.items() if k in row or k not in ("height", "width")}
    try:
        request = Request.model_validate(filled)
    except ValidationError as error:
        raise RequestError("; ".join(_complaint(e) for e in error.errors())) from None
    for name in FILES:
        file = getattr(request, name)
        if file is not None and not is_url(file) and not Path(file).is_file():
            raise RequestError(f"{name}: no such file: {file}")
    return request


def _complaint(error: Any) -> str:
    where = ".".join(map(str, error["loc"]))
    message = error["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else message


def _resolved(name: str, value: Any, folder: Path) -> Any:
    if name not in FILES or not isinstance(value, str) or is_url(value) or Path(value).is_absolute():
        return value
    inside = folder.resolve()
    target = (inside / value).resolve()
    if not target.is_relative_to(inside):
        raise RequestError(f"{name}: {value} leaves the folder of the JSONL file; give an absolute path")
    return str(target)
