"""Models behind a run: what its latents were made with, and what its streams started from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from kit.config import load
from kit.weights import ModelUse, is_registered, locate, model_use
from model.codecs.files import models_behind, models_of_kinds
from model.weights.load import open_weights
from model.weights.transformer import CONFIG, layout
from train.config import DataConfig, InitConfig, Recipe
from train.encode_config import EncodeConfig
from unitalking_data.manifest import read_manifest
from unitalking_data.storage import Store

# The registered model that a published layout is of; our own exports say theirs themselves.
LAYOUTS = {"wan": "wan2.2-ti2v-5b", "diffusers": "wan2.2-ti2v-5b", "ovi": "ovi"}


def start_files(init: InitConfig) -> dict[str, Path]:
    """Where the streams' starts lie, by what the recipe calls them.

    Raises:
        WeightsError: one is neither at a path nor in the cache.
    """
    return locate(filter(None, (init.video, init.audio)))


def models_behind_run(recipe: Recipe) -> list[ModelUse]:
    """Each once, those of the latents first.

    Raises:
        ManifestError, FileNotFoundError: no latents as the recipe says. WeightsError: no such start.
    """
    found = [*_of_latents(recipe.data), *_of_start(recipe.init)]
    return [use for place, use in enumerate(found) if use not in found[:place]]


def _of_latents(data: DataConfig) -> list[ModelUse]:
    if data.encode is not None:
        config = load(data.encode, EncodeConfig, [f"release={data.release}"])
        return models_behind(config.parts)
    process = read_manifest(Store(f"{data.release.rstrip('/')}/latents/{data.latents}")).process
    if "models" in process:
        return [ModelUse.model_validate(use) for use in process["models"]]
    settings = process.get("origin", {}).get("settings", {})  # older latents know the kinds of their codecs alone
    return models_of_kinds({part: settings[part] for part in EncodeConfig.PARTS if part in settings})


def _of_start(init: InitConfig) -> Iterator[ModelUse]:
    files = start_files(init)
    for stream in ("video", "audio"):
        if value := getattr(init, stream):
            yield from _of_file(value, files[value], f"init.{stream}")


def _of_file(value: str, path: Path, kind: str) -> list[ModelUse]:
    """An export of ours passes on what stands behind it."""
    if is_registered(value) and path != Path(value).expanduser():
        return [model_use(value, kind)]
    if (config := path / CONFIG).is_file() and "models" in (stored := json.loads(config.read_text("utf-8"))):
        return [ModelUse.model_validate(use) for use in stored["models"]]
    try:
        stands_for = LAYOUTS.get(layout(open_weights(path), path))
    except ValueError:  # not readable, or nobody's layout: the load that follows says so
        stands_for = None
    return [model_use(path, kind, stands_for=stands_for)]
