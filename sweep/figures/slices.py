"""What trials were worth against each parameter."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sweep.figures.scale import Scale, scales
from sweep.figures.style import GREY, GRID, HUES, MARKS, label, legend, make_figure, span
from sweep.reading import Reading, Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 5
_FAINT = 0.3
_MOST_WORDS = 3
"""That fit beside each other."""


def draw(reading: Reading) -> "Figure":
    """A panel a parameter: faint marks for the first rung, full ones for the rung that the sampler compares at.

    Raises:
        TooFewError: no trial has a value, or nothing varies.
    """
    axes, limits = scales(reading), span(reading.rank_values())
    epochs = reading.compared_rungs()
    shades = dict.fromkeys(epochs, _FAINT) | {epochs[-1]: 1.0}
    rows = math.ceil(len(axes) / _COLUMNS)
    figure, panels = make_figure(0.6 + 1.8 * rows, rows, _COLUMNS, sharey=True)
    for spare in panels[len(axes) :]:
        spare.set_visible(False)
    for place, (name, scale) in enumerate(axes.items()):
        label(panels[place], y="" if place % _COLUMNS else "nats per time step", title=name)
        _axes(panels[place], scale, limits)
        for epoch, shade in shades.items():
            _marks(panels[place], reading.trials, name, scale, epoch, shade)
    _key(figure, reading, shades)
    return figure


def _axes(panel: "Axes", scale: Scale, limits: tuple[float, float]) -> None:
    places, labels = zip(*scale.ticks(), strict=True)
    panel.set_xticks(places, labels)
    if scale.words and len(labels) > _MOST_WORDS:
        panel.tick_params(axis="x", labelsize=7, labelrotation=20)
    panel.set_xlim(-0.04, 1.04)
    panel.set_ylim(*limits)
    panel.grid(color=GRID)


def _marks(panel: "Axes", trials: Sequence[Trial], name: str, scale: Scale, epoch: int, shade: float) -> None:
    low = panel.get_ylim()[0]
    for family, mark in MARKS.items():
        having = [t for t in trials if t.family == family and name in t.frozen.params and epoch in t.values]
        shown = [trial for trial in having if scale.holds(trial.frozen.params[name])]
        x = [scale.place(trial.frozen.params[name], trial.number) for trial in shown]
        y = np.maximum([trial.values[epoch] for trial in shown], low)
        panel.scatter(x, y, s=18, color=HUES[family], marker=mark, alpha=shade, linewidths=0, clip_on=False)


def _key(figure: "Figure", reading: Reading, shades: dict[int, float]) -> None:
    from matplotlib.lines import Line2D

    dots = [
        Line2D([], [], linestyle="", marker="o", color=GREY, alpha=shade, label=f"value at epoch {epoch}")
        for epoch, shade in shades.items()
    ]
    legend(figure, reading.families, *dots)
