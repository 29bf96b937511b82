"""Sheets of samples as pictures: piano rolls of music, heat maps of other arrays; the same samples, the same bytes."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vae import canvas
from vae.canvas import RULE, TEXT
from vae.encoding import HIGHEST_PITCH, LOWEST_PITCH, DataSpec, Notes, decode
from vae.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = npt.NDArray[Any]

PANELS = 16
"""Piano rolls on a sheet, at most: the first ones of the samples, or if some have labels some from first to last."""
ROWS = 100
"""Rows of a heat map, at most."""

_COLUMNS = 4
_ACROSS = 400
"""Pixels of a panel from left to right, about; where there are fewer columns, more."""
_APART = 8
"""Pixels between rules, at least."""
_NOTE, _ONSET = "#8fbbe3", "#174a7c"
_BLACK_KEY, _BEAT = "#f4f5f7", "#e2e5ea"
_BLACK_KEYS = (1, 3, 6, 8, 10)  # pitch classes


def piano_roll_sheet(
    samples: Array, spec: DataSpec, path: Path, title: str = "", labels: Mapping[int, str] | None = None
) -> None:
    """Writes one PNG of samples, [N, T, D]; panels are numbered as the MIDI files are, and some have labels too."""
    write_atomically(path, canvas.png(_draw(samples, spec, title, labels)))


def as_image(samples: Array, spec: DataSpec) -> npt.NDArray[np.uint8]:
    """The same sheet as pixels, [H, W, 3]; without a title."""
    return canvas.pixels(_draw(samples, spec))


def _draw(samples: Array, spec: DataSpec, title: str = "", labels: Mapping[int, str] | None = None) -> "Figure":
    if not spec.is_music and samples.shape[1] == 1:
        return _heat_map(samples[:ROWS, 0], spec, title)
    shown = min(PANELS, len(samples))
    numbers = np.linspace(0, len(samples) - 1, shown).round().astype(int) if labels else np.arange(shown)
    names = [f"{number:03d}  {(labels or {}).get(number, '')}".rstrip() for number in numbers.tolist()]
    return _panels(samples[numbers], spec, title, names)


def _panels(samples: Array, spec: DataSpec, title: str, names: list[str]) -> "Figure":
    """Small multiples, one sample each, on common axes."""
    from matplotlib.figure import Figure

    columns = min(_COLUMNS, len(samples))
    rows = math.ceil(len(samples) / columns)
    figure = Figure(figsize=(0.5 + max(3.2, 7 / columns) * columns, 0.5 + 2.1 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    axes = list(grid.flat)
    for spare in axes[len(samples) :]:
        spare.set_visible(False)
    axes = axes[: len(samples)]
    if spec.is_music:
        _piano_rolls(axes, [decode(sample, spec.encoding) for sample in samples], spec, samples.shape[1])
    else:
        _images(axes, samples, spec)
    for number, panel in enumerate(axes):
        panel.set_title(names[number], loc="left", fontsize=9, fontweight="bold", color=TEXT, pad=3, parse_math=False)
        _label_edges(panel, leftmost=number % columns == 0, lowest=number + columns >= len(samples))
    _finish(figure, axes, title)
    return figure


def _label_edges(panel: "Axes", leftmost: bool, lowest: bool) -> None:
    """Labels pitch at the left and time at the bottom of the sheet, also above spare panels."""
    panel.tick_params(labelleft=leftmost, labelbottom=lowest)
    if not leftmost:
        panel.set_ylabel("")
    if not lowest:
        panel.set_xlabel("")


def _piano_rolls(axes: "list[Axes]", songs: list[Notes], spec: DataSpec, steps: int) -> None:
    low, high = _pitch_range(songs)
    for panel, notes in zip(axes, songs, strict=True):
        _keyboard(panel, low, high)
        _time_grid(panel, spec, steps)
        _notes(panel, notes, steps)
        panel.set_ylim(low - 0.5, high + 0.5)
        panel.set_xlim(0, steps)
    octaves = [pitch for pitch in range(low, high + 1) if pitch % 12 == 0]
    axes[0].set_yticks(octaves, [f"C{pitch // 12 - 1}" for pitch in octaves])


def _pitch_range(songs: list[Notes]) -> tuple[int, int]:
    """The pitches to show: all that sound and a margin; two octaves or more, lest few keys look huge."""
    pitches = np.concatenate([notes[:, 0] for notes in songs])
    low, high = (int(pitches.min()), int(pitches.max())) if len(pitches) else (60, 60)
    margin = max(2, (24 - (high - low)) // 2)
    return max(LOWEST_PITCH, low - margin), min(HIGHEST_PITCH, high + margin)


def _keyboard(panel: "Axes", low: int, high: int) -> None:
    """Shades the rows of black keys and rules a line under each C."""
    for pitch in range(low, high + 1):
        if pitch % 12 in _BLACK_KEYS:
            panel.axhspan(pitch - 0.5, pitch + 0.5, color=_BLACK_KEY, linewidth=0, zorder=0)
        if pitch % 12 == 0:
            panel.axhline(pitch - 0.5, color=_BEAT, linewidth=0.8, zorder=1)


def _time_grid(panel: "Axes", spec: DataSpec, steps: int) -> None:
    """Rules beats and, where the metre is known, bars; labels bars, else beats, counting from 1.

    Rules that would be too close together are left out: those of beats, or all but the labelled ones.
    """
    beat, bar = spec.steps_per_beat, spec.steps_per_bar
    unit, apart = bar or beat, _APART * steps / _ACROSS
    units = math.ceil(steps / unit)
    every = max(1, math.ceil(units / 8))  # so that labels never touch
    if bar and beat >= apart:
        panel.vlines(range(0, steps + 1, beat), 0, 128, color=_BEAT, linewidth=0.6, zorder=1)
    ruled = range(0, steps + 1, unit if unit >= apart else unit * every)
    color, linewidth = (RULE, 0.8) if bar else (_BEAT, 0.6)
    panel.vlines(ruled, 0, 128, color=color, linewidth=linewidth, zorder=1)
    numbers = range(0, units, every)
    panel.set_xticks([number * unit for number in numbers], [str(number + 1) for number in numbers])
    panel.set_xlabel("bar" if bar else "beat", fontsize=8, color=TEXT)


def _notes(panel: "Axes", notes: Notes, steps: int) -> None:
    """Draws notes as bars with a dark head, so that a repeated note differs from a long one."""
    pitch, start, end = notes.T.astype(np.float64)
    pixel = steps / _ACROSS
    gap = np.minimum(pixel, (end - start) / 4)  # a hair of white between a note and the next
    right = np.maximum(end - gap, start + pixel)  # in long pieces a step is narrower than a pixel
    head = np.minimum(right, start + max(0.25, steps / 120))
    _rectangles(panel, pitch, start, right, _NOTE, 2)
    _rectangles(panel, pitch, start, head, _ONSET, 3)


def _rectangles(panel: "Axes", pitch: Array, left: Array, right: Array, color: str, zorder: int) -> None:
    from matplotlib.collections import PolyCollection

    x = np.stack([left, right, right, left], axis=1)
    y = pitch[:, None] + np.array([-0.42, -0.42, 0.42, 0.42])
    corners = list(np.stack([x, y], axis=2))
    # Snapped to whole pixels, notes of one height would look 3 pixels high here and 5 there.
    panel.add_collection(PolyCollection(corners, facecolor=color, linewidth=0, zorder=zorder, snap=False))


def _images(axes: "list[Axes]", samples: Array, spec: DataSpec) -> None:
    """Arrays that are not keys: features upwards, steps to the right."""
    for panel, sample in zip(axes, samples, strict=True):
        panel.imshow(sample.T, aspect="auto", origin="lower", interpolation="nearest", **_scale(samples, spec))
        panel.set_xlabel("step", fontsize=8, color=TEXT)
        panel.set_ylabel("feature", fontsize=8, color=TEXT)


def _heat_map(rows: Array, spec: DataSpec, title: str) -> "Figure":
    """All samples in one picture, [N, D]: a row is a sample."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, min(8, 1.6 + 0.12 * len(rows))), layout="constrained")
    panel = figure.subplots()
    image = panel.imshow(rows, aspect="auto", interpolation="nearest", **_scale(rows, spec))
    panel.set_ylabel("sample", fontsize=8, color=TEXT)
    panel.set_xlabel("feature", fontsize=8, color=TEXT)
    panel.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    panel.yaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    bar = figure.colorbar(image, ax=panel, pad=0.01, fraction=0.03)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, labelcolor=TEXT, color=RULE)
    _finish(figure, [panel], title)
    return figure


def _scale(values: Array, spec: DataSpec) -> dict[str, Any]:
    """Colours that mean the same in every panel of a sheet."""
    if spec.is_binary:
        return {"cmap": "Blues", "vmin": 0, "vmax": 1}
    low, high = (0.0, 1.0) if spec.unit_interval else (float(values.min()), float(values.max()))
    return {"cmap": "viridis", "vmin": low, "vmax": high}


def _finish(figure: "Figure", axes: "list[Axes]", title: str) -> None:
    for panel in axes:
        canvas.tidy(panel)
    if title:
        canvas.entitle(figure, title)
