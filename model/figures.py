"""The figures of ``python -m model.inspect``; arrays in, PNG files out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from media.encode import replacing
from media.mel import log_mel
from model.attention_maps import BlockMaps

FRAMES_SHOWN = 10
LAYERS_SHOWN = 6
COLUMNS = 6
MEL_RANGE = 14.0  # natural logarithm of power, 60 dB
FACE = "#faf9f7"


def attention_over_time(path: Path, maps: Sequence[BlockMaps], *, seconds: float) -> None:
    """A small heat map for every block and direction: time of what looks down, time of what is looked at across.

    Rows are scaled to their own sum, so that a map tells where in the other stream a moment looks, not how much.
    """
    rows = -(-len(maps) // COLUMNS)
    figure = Figure(figsize=(2.0 * min(COLUMNS, len(maps)) + 0.6, 2 * (2.2 * rows + 0.5)), facecolor=FACE)
    halves = figure.subfigures(2, 1)
    views = (
        ("audio attends to video", "video s", "audio s", [m.audio_to_video.sum((2, 3)) for m in maps]),
        ("video attends to audio", "audio s", "video s", [m.video_to_audio.mean((1, 2)) for m in maps]),
    )
    for half, (title, across, down, arrays) in zip(halves, views, strict=True):
        half.suptitle(title, fontsize=10)
        axes = half.subplots(rows, min(COLUMNS, len(maps)), squeeze=False)
        for index, axis in enumerate(axes.flat):
            if index >= len(maps):
                axis.set_axis_off()
                continue
            shares = arrays[index] / arrays[index].sum(1, keepdim=True).clamp(min=1e-12)
            axis.imshow(shares.numpy(), aspect="auto", cmap="magma", extent=(0, seconds, seconds, 0), vmin=0)
            axis.set_title(f"block {index}", fontsize=7, pad=2)
            axis.tick_params(labelsize=6)
            if index % COLUMNS == 0:
                axis.set_ylabel(down, fontsize=7)
            axis.set_xlabel(across, fontsize=7)
        half.subplots_adjust(left=0.07, right=0.98, top=0.86, bottom=0.14, wspace=0.3, hspace=0.55)
    _write(figure, path)


def attention_over_frames(path: Path, maps: Sequence[BlockMaps], frames: np.ndarray, *, seconds: float) -> None:
    """Where in a frame the audio of that moment attends: heat over grey frames, time across, blocks down.

    Args:
        frames: uint8 ``(T, H, W, 3)``.
    """
    blocks = np.unique(np.linspace(0, len(maps) - 1, min(LAYERS_SHOWN, len(maps))).round().astype(int))
    latent_frames = maps[0].audio_to_video.shape[1]
    shown = np.unique(np.linspace(0, latent_frames - 1, min(FRAMES_SHOWN, latent_frames)).round().astype(int))
    ratio = frames.shape[1] / frames.shape[2]
    figure = Figure(figsize=(1.3 * len(shown) + 0.6, 1.3 * ratio * len(blocks) + 0.4), facecolor=FACE)
    axes = figure.subplots(len(blocks), len(shown), squeeze=False)
    for line, block in zip(axes, blocks, strict=True):
        weights = maps[block].audio_to_video
        for axis, k in zip(line, shown, strict=True):
            moment = round(k / max(latent_frames - 1, 1) * (len(weights) - 1))
            heat = weights[moment, k].numpy()
            image = frames[round(k / max(latent_frames - 1, 1) * (len(frames) - 1))]
            axis.imshow(image.mean(2), cmap="gray", vmin=0, vmax=255, extent=(0, 1, 1, 0), aspect=ratio)
            axis.imshow(heat, cmap="magma", alpha=0.6, extent=(0, 1, 1, 0), aspect=ratio, interpolation="bilinear")
            axis.set_xticks([])
            axis.set_yticks([])
        line[0].set_ylabel(f"block {block}", fontsize=7)
    for axis, k in zip(axes[0], shown, strict=True):
        axis.set_title(f"{k / max(latent_frames - 1, 1) * seconds:.2f} s", fontsize=7, pad=2)
    figure.subplots_adjust(left=0.05, right=0.99, top=0.94, bottom=0.02, wspace=0.04, hspace=0.06)
    _write(figure, path)


def frames_and_mel(path: Path, frames: np.ndarray | None, audio: np.ndarray, rate: int) -> None:
    """A strip of frames over the mel spectrogram and loudness of their audio, on one clock.

    Args:
        frames: uint8 ``(T, H, W, 3)`` evenly over the audio, None without video.
        audio: float32 ``(S,)`` at ``rate`` Hz.
    """
    seconds = len(audio) / rate
    shown = np.zeros((0, 1, 1, 3), np.uint8)
    if frames is not None:
        count = min(FRAMES_SHOWN, len(frames))
        shown = frames[((np.arange(count) + 0.5) / count * len(frames)).astype(int)]
    strip = [9.2 / len(shown) * shown.shape[1] / shown.shape[2]] if len(shown) else []
    figure = Figure(figsize=(10, 3.4 + sum(strip)), facecolor=FACE)
    axes = list(figure.subplots(len(strip) + 2, 1, height_ratios=[*strip, 2.2, 0.8], sharex=True))
    if strip:
        strip_axis, width = axes.pop(0), seconds / len(shown)
        for place, image in enumerate(shown):
            strip_axis.imshow(image, extent=((place + 0.02) * width, (place + 0.98) * width, 0, 1), aspect="auto")
        strip_axis.set_ylim(0, 1)
        strip_axis.set_axis_off()
    padded = np.pad(audio, 1024, mode="reflect" if len(audio) > 1024 else "constant")
    mel = log_mel(padded, rate, n_fft=2048, hop=512, n_mels=128)
    axes[0].imshow(
        mel.T, origin="lower", aspect="auto", cmap="magma", extent=(0, seconds, 0, 128), vmin=mel.max() - MEL_RANGE
    )
    axes[0].set_ylabel("mel band")
    hop = max(1, rate // 100)
    blocks = audio[: len(audio) // hop * hop].reshape(-1, hop)
    axes[1].plot(
        (np.arange(len(blocks)) + 0.5) * hop / rate, np.sqrt((blocks**2).mean(1)), color="#5b2a86", linewidth=0.8
    )
    axes[1].set(ylabel="rms", xlabel="s", xlim=(0, seconds), ylim=(0, None))
    figure.subplots_adjust(left=0.07, right=0.99, top=0.97, bottom=0.12, hspace=0.08)
    _write(figure, path)


def _write(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)
