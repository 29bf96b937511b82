"""What a code costs and what it buys: the ELBO of each trial against its KL."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sweep.figures.style import GREY, GRID, HUES, MARKS, label, legend, make_figure, span
from sweep.reading import Reading, TooFewError, Trial
from vae.canvas import TEXT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TICKS = (0, 0.5, 1, 1.5, 2, 3, 5, 10, 20, 50, 100, 200, 500)
"""In floors."""


def draw(reading: Reading) -> "Figure":
    """Trials at their best epochs, the front, the floor and the winner.

    Raises:
        TooFewError: no trial has been scored.
    """
    from matplotlib.lines import Line2D

    ranked = reading.ranked()
    if not ranked:
        raise TooFewError("no trial has been scored on validation yet")
    figure, (panel,) = make_figure(4.6)
    low, high = span([trial.record.best["val_elbo"] for trial in ranked])
    panel.set_ylim(low, high)
    floor = reading.settings.min_kl
    _axis(panel, floor, max(2 * floor, 1e-3, *(trial.record.best["kl"] for trial in ranked)))
    _floor(panel, floor)
    _trials(panel, reading, ranked, low)
    label(panel, "KL, nats per time step", "ELBO on validation, nats per time step")
    hollow = Line2D([], [], linestyle="", marker="o", color=GREY, markerfacecolor="white", label="infeasible")
    legend(figure, reading.families, hollow, Line2D([], [], color=TEXT, linewidth=1, label="front"))
    return figure


def front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points (kl, elbo) that none other has both more KL and a better ELBO than, by falling KL."""
    found: list[tuple[float, float]] = []
    for kl, elbo in sorted(points, reverse=True):
        if not found or elbo > found[-1][1]:
            found.append((kl, elbo))
    return found


def _axis(panel: "Axes", floor: float, most: float) -> None:
    """KL from 0 on: as it is around the floor, on a log scale where it is many times that."""
    panel.set_xlim(0, 1.1 * most)
    if floor > 0:
        panel.set_xscale("symlog", linthresh=2 * floor, linscale=1.5)
        ticks = [floor * times for times in _TICKS if floor * times <= 1.1 * most]
        panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        panel.minorticks_off()
    panel.grid(color=GRID)


def _floor(panel: "Axes", floor: float) -> None:
    panel.axvspan(0, floor, color=GRID, zorder=0)
    panel.axvline(floor, color=GREY, linewidth=1, linestyle="--", zorder=1)
    panel.text(floor, 0.02, f" floor {floor:g}", transform=panel.get_xaxis_transform(), fontsize=8.5, color=TEXT)


def _trials(panel: "Axes", reading: Reading, ranked: Sequence[Trial], low: float) -> None:
    points = [(trial.record.best["kl"], max(low, trial.record.best["val_elbo"])) for trial in ranked]
    kl, elbo = np.transpose(front(points))
    panel.step(kl, elbo, where="post", color=TEXT, linewidth=1, zorder=2)
    for trial, (x, y) in zip(ranked, points, strict=True):
        hue = HUES[trial.family]
        panel.plot(
            x,
            y,
            MARKS[trial.family],
            color=hue,
            markersize=6,
            zorder=3,
            clip_on=False,
            markerfacecolor=hue if reading.feasible(trial) else "white",
        )
    winner = reading.winner()
    best = winner or ranked[0]
    place = (best.record.best["kl"], max(low, best.record.best["val_elbo"]))
    panel.plot(*place, "o", markersize=13, markerfacecolor="none", markeredgecolor="black", zorder=4)
    panel.annotate(
        f"trial {best.number}, the best{'' if winner is None else ' by its seeds'}",
        place,
        (10, 6),
        textcoords="offset points",
        fontsize=9,
        fontweight="bold",
        color=TEXT,
        zorder=5,
    )
