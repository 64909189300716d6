"""A contact sheet: each sample's frames in a row, and below them its audio's envelope and its mouth's opening."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from model.output import Sample
from pipelines.tiny_world import measure
from pipelines.tiny_world.world import SECONDS

WIDTH_IN = 9.0
ROW_IN = 1.35


def draw_sheet(path: Path, rows: Sequence[tuple[str, Sample]]) -> None:
    """Write a PNG.

    Args:
        rows: title and sample of each.
    """
    figure = Figure(figsize=(WIDTH_IN, ROW_IN * len(rows)), layout="constrained")
    axes = figure.subplots(2 * len(rows), 1, squeeze=False)[:, 0]
    for (title, sample), strip, lines in zip(rows, axes[::2], axes[1::2], strict=True):
        strip.imshow(np.concatenate(list(sample.video), 1), interpolation="nearest", aspect="equal")
        strip.set_axis_off()
        strip.set_title(title, fontsize=8, loc="left")
        envelope = measure.envelope(sample.audio)
        times = (np.arange(len(envelope)) + 0.5) / measure.ENVELOPE_HZ
        opening = measure.opening(sample.video, len(envelope), len(sample.video) / SECONDS)
        lines.fill_between(times, envelope / max(envelope.max(), 1e-6), color="#9db7d5", label="sound")
        lines.plot(times, opening / max(opening.max(), 1e-6), color="#c0392b", linewidth=1, label="mouth")
        lines.set(xlim=(0, SECONDS), ylim=(0, 1.05), yticks=[], xticks=[])
    axes[1].legend(fontsize=6, loc="upper right", ncols=2)
    FigureCanvasAgg(figure).print_png(path)
