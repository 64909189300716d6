"""Weights of the transformer: our own checkpoints, and the published ones that it can start from."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from pydantic import ValidationError
from torch import Tensor

from model.config import ModelConfig, Stream
from model.init import initialise
from model.transformer import UniTalking
from model.weights import diffusers, ovi, wan
from model.weights.load import LoadReport, TensorsError, Weights, load_strict, open_weights

CONFIG = "config.json"
CONDITIONING = ("text_embedding", "time_embedding", "time_projection")

Layout = Literal["unitalking", "wan", "diffusers", "ovi"]


def load_model(
    folder: str | Path,
    *,
    streams: tuple[Stream, ...] | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> UniTalking:
    """The model of a folder that :func:`model.weights.export.export_model` wrote, its parameters mapped from the files.

    Args:
        streams: which to load, for instance ``("audio",)``; None means all that the folder has.
        dtype: converts the parameters, which then no longer share the files' memory.

    Raises:
        TensorsError: no configuration, one that is not valid, keys that do not fit it, a stream that it lacks.
    """
    path = Path(folder) / CONFIG
    try:
        stored = json.loads(path.read_text("utf-8"))
        config = ModelConfig.model_validate(stored["model"])
    except (OSError, KeyError, ValueError) as error:
        reason = "; ".join(e["msg"] for e in error.errors()) if isinstance(error, ValidationError) else error
        raise TensorsError(f"{path} does not configure a UniTalking: {reason}") from None
    if absent := {*(streams or ())} - {*stored["streams"]}:
        raise TensorsError(f"{folder} has no {' or '.join(absent)} stream; it has {', '.join(stored['streams'])}")
    with torch.device("meta"):
        model = UniTalking(config, streams=streams or tuple(stored["streams"]))
    unasked = _of_streams([stream for stream in stored["streams"] if stream not in model.streams], "not asked for")
    if not hasattr(model, "reference_embedding"):
        unasked["reference_embedding.*"] = "of the streams asked for, none hears a reference"
    load_strict(model, Weights(folder), may_drop=unasked, dtype=dtype, device=device)
    return model


def start_model(
    model: UniTalking,
    *,
    video: str | Path | None = None,
    audio: str | Path | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> list[LoadReport]:
    """Give a model built on the meta device its start; what no file has is initialised. A sharded one takes its shards.

    Args:
        video: the video stream's start: Wan2.2-TI2V-5B as Wan or diffusers publish it, or a checkpoint of ours.
        audio: the audio stream's start: a checkpoint of ours (stage 1), with its reference embedding; Ovi's, its audio
            twin; or Wan in either layout, of which the embeddings of text and time are taken (UniTalking's stage 1).
        dtype, device: of all parameters; None keeps the files' dtype, and float32 for what is initialised.

    Returns:
        A report for each file, in the order video, audio.

    Raises:
        TensorsError: a layout that cannot start that stream, keys that do not fit.
    """
    reports = []
    for stream, path in (("video", video), ("audio", audio)):
        if path is None:
            continue
        if stream not in model.streams:
            raise TensorsError(f"{path} cannot start the {stream} stream: the model has none")
        weights = open_weights(path)
        rules = _key_rules(layout(weights, path), weights, model.config, stream)
        others = _of_streams([other for other in model.streams if other != stream], f"no start for the {stream} stream")
        reports.append(
            load_strict(
                model,
                weights,
                rename=rules.rename,
                may_miss=rules.may_miss | others,
                may_drop=rules.may_drop,
                dtype=dtype,
                device=device,
            )
        )
    if dtype is not None:
        model.to(dtype)
    initialise(model, device)
    return reports


def layout(weights: Mapping[str, Tensor], path: str | Path) -> Layout:
    """Whose names the keys are.

    Raises:
        TensorsError: nobody's that we know.
    """
    if "blocks.0.video.modulation" in weights or "blocks.0.audio.modulation" in weights:
        return "unitalking"
    if "text_embedding.0.weight" in weights:
        return "wan"
    if "condition_embedder.text_embedder.linear_1.weight" in weights:
        return "diffusers"
    if f"{ovi.PREFIX}text_embedding.0.weight" in weights:
        return "ovi"
    raise TensorsError(f"{path} holds no transformer of UniTalking, Wan, diffusers or Ovi: {sorted(weights)[:3]} …")


class _KeyRules(NamedTuple):
    """Arguments of ``load_strict`` for one file: key map, what it need not have, what of it is not used."""

    rename: Callable[[str], str | None]
    may_miss: dict[str, str]
    may_drop: dict[str, str]


def _key_rules(kind: Layout, weights: Mapping[str, Tensor], config: ModelConfig, stream: Stream) -> _KeyRules:
    fresh_reference = {
        f"blocks.*.{stream}.cross_attn.*_ref.*": "reference keys are UniTalking's own",
        "reference_embedding.*": "the reference is UniTalking's own",
    }
    if kind == "unitalking":
        other = "audio" if stream == "video" else "video"
        drop = _of_streams([other], f"only the {stream} stream is a start")
        if stream == "audio":
            return _KeyRules(lambda key: key, {}, drop)
        reference = {"reference_embedding.*": "comes with the audio stream"}
        return _KeyRules(lambda key: key, reference, drop | reference)
    if kind == "ovi":
        if stream == "video":
            raise TensorsError("Ovi's checkpoint is a start for the audio stream alone")
        foreign = ovi.foreign(weights, config)
        miss = {wan.to_stream(key, stream): reason for key, reason in foreign.items()}
        drop = {f"{ovi.PREFIX}{key}": reason for key, reason in foreign.items()}
        return _KeyRules(lambda key: wan.to_stream(ovi.to_wan(key), stream), fresh_reference | miss, ovi.UNUSED | drop)
    spelt = diffusers.to_wan if kind == "diffusers" else lambda key: key

    def rename(key: str) -> str | None:
        return wan.to_stream(spelt(key), stream)

    if stream == "video":
        return _KeyRules(rename, fresh_reference, {})
    part = "of Wan, the audio stream takes only the embeddings of text and time"
    drop = {key: part for key in weights if (spelt(key) or "").split(".")[0] not in CONDITIONING}
    miss = dict.fromkeys(("blocks.*.audio.*", "audio.patch_embedding.*", "audio.head.*"), "starts fresh")
    return _KeyRules(rename, fresh_reference | miss, drop)


def _of_streams(streams: Iterable[str], reason: str) -> dict[str, str]:
    return {pattern: reason for stream in streams for pattern in (f"{stream}.*", f"blocks.*.{stream}.*")}
