"""Writing a model for others: a folder like those of diffusers' models, with its configuration and a card."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from pydantic import Field
from safetensors.torch import save_file
from torch import Tensor

from kit.config import Strict
from kit.weights import ModelUse
from model.config import ModelConfig
from model.transformer import UniTalking
from model.weights.load import load_strict
from model.weights.transformer import CONFIG

STEM = "diffusion_pytorch_model"


class ModelCard(Strict):
    """What a reader of the folder must know besides its shapes."""

    name: str
    summary: str = Field(description="one paragraph: what it was trained for and how well it does")
    licence: str = Field("apache-2.0", description="identifier of the weights' licence")
    started_from: tuple[str, ...] = Field((), description="published weights that it started from, as hub names")
    trained_on: str = Field("nothing", description="data, stages, steps")
    models: tuple[ModelUse, ...] | None = Field(
        None, description="models behind its latents and its start, with their terms; None is not recorded"
    )
    limits: str = Field("Not assessed.", description="what it does badly, and what it must not be used for")


def export_model(
    folder: str | Path,
    config: ModelConfig,
    tensors: Mapping[str, Tensor],
    *,
    card: ModelCard,
    max_shard_bytes: int = 5_000_000_000,
) -> Path:
    """Write ``README.md``, ``config.json`` and the tensors as sharded safetensors; appears whole or not at all.

    Tensors are written shard by shard as they are, so weights that are mapped from files need no memory of their own.

    Args:
        folder: must not exist.
        tensors: a model's ``state_dict()``, or its moving average, of one or both streams.

    Returns:
        The folder.

    Raises:
        ValueError: the folder exists, or the tensors are not exactly those of a model of this configuration.
    """
    folder = Path(folder)
    if folder.exists():
        raise ValueError(f"{folder} exists; export to a new folder")
    streams = tuple(stream for stream in ("video", "audio") if f"{stream}.head.modulation" in tensors)
    with torch.device("meta"):
        load_strict(UniTalking(config, streams=streams or ("video", "audio")), tensors, device="meta")
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    partial.mkdir(parents=True)
    try:
        stored = {"_class_name": "UniTalking", "streams": streams, "model": config.model_dump(mode="json")}
        metadata = {"format": "pt", CONFIG: json.dumps(stored)}
        groups = list(_shards(tensors, max_shard_bytes))
        placed = {}
        for index, names in enumerate(groups, 1):
            file = f"{STEM}.safetensors" if len(groups) == 1 else f"{STEM}-{index:05}-of-{len(groups):05}.safetensors"
            save_file({name: tensors[name].contiguous() for name in names}, partial / file, metadata)
            placed |= dict.fromkeys(names, file)
        size = sum(tensor.nbytes for tensor in tensors.values())
        if len(groups) > 1:
            index = {"metadata": {"total_size": size}, "weight_map": placed}
            (partial / f"{STEM}.safetensors.index.json").write_text(json.dumps(index, indent=1), "utf-8")
        if card.models is not None:
            stored["models"] = [use.model_dump(mode="json") for use in card.models]
        (partial / CONFIG).write_text(json.dumps(stored, indent=1), "utf-8")
        (partial / "README.md").write_text(_readme(card, config, streams, tensors), "utf-8")
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return folder


def _shards(tensors: Mapping[str, Tensor], limit: int) -> Iterator[list[str]]:
    names: list[str] = []
    size = 0
    for name, tensor in tensors.items():
        if names and size + tensor.nbytes > limit:
            yield names
            names, size = [], 0
        names.append(name)
        size += tensor.nbytes
    yield names


def _readme(card: ModelCard, config: ModelConfig, streams: tuple[str, ...], tensors: Mapping[str, Tensor]) -> str:
    parameters = sum(tensor.numel() for tensor in tensors.values())
    dtypes = ", ".join(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()}))
    base = "".join(f"\n- {name}" for name in card.started_from)
    shapes = "\n".join(f"| {name} | {value} |" for name, value in config.model_dump(mode="json").items())
    return f"""---
{_licence(card)}
library_name: unitalking
pipeline_tag: text-to-video
tags:
- audio-video
- talking-portrait
- flow-matching{f"{chr(10)}base_model:{base}" if base else ""}
---

# {card.name}

{card.summary}

| | |
|---|---|
| streams | {", ".join(streams)} |
| parameters | {parameters:,} |
| dtype | {dtypes} |
| trained on | {card.trained_on} |
| started from | {", ".join(card.started_from) or "random weights"} |

## Use

```python
from model.weights.transformer import load_model

model = load_model("{card.name}")
```

Latents are normalised per channel; noise level sigma mixes them as `(1 - sigma) data + sigma noise`, and the model
predicts `noise - data`.

## Limits

{card.limits}

## Models behind it

{_models(card)}

## Configuration

| field | value |
|---|---|
{shapes}
"""


def _licence(card: ModelCard) -> str:
    """The front matter's; no plain licence where a model behind the weights excludes what it would permit."""
    if not any(use.commercial is False for use in card.models or ()):
        return f"license: {card.licence}"
    return "license: other\nlicense_name: non-commercial-models-behind-it"


def _models(card: ModelCard) -> str:
    """Each with its licence, and what follows for a user."""
    if card.models is None:
        return "Not recorded."
    if not card.models:
        return "None: codecs and a start without published weights."
    lines = [
        "Its latents were made with these models, or it started from their weights. Their terms are their publishers'.",
        "",
        "| model | used as | licence | given by | note |",
        "|---|---|---|---|---|",
        *(f"| {u.name} | {u.kind} | {u.terms} | {u.given} | {u.note} |" for u in card.models),
    ]
    if barred := sorted({f"{use.name} ({use.licence})" for use in card.models if use.commercial is False}):
        lines += [
            "",
            f"No commercial use is permitted of {', '.join(barred)}. The weights' own licence: {card.licence}.",
        ]
    return "\n".join(lines)
