"""What the figures of a sweep share: a hue and mark a family throughout, a size, ranges that outliers don't widen."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vae.canvas import TEXT, tidy
from vae.config import FAMILY_NAMES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HUES = dict(zip(FAMILY_NAMES, ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00"), strict=True))
"""Told apart by the colour-blind too (Okabe and Ito 2008)."""
MARKS = dict(zip(FAMILY_NAMES, ("o", "s", "^", "D", "P"), strict=True))
GREY, GRID = "#7b8494", "#eceef2"

_WIDTH = 11.0  # inches, of every figure


def make_figure(height: float, rows: int = 1, columns: int = 1, **axes: Any) -> "tuple[Figure, list[Axes]]":
    """A figure of the page's width with a grid of axes, row by row."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False, **axes).flat)
    for panel in panels:
        tidy(panel)
        panel.set_axisbelow(True)
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
    return figure, panels


def label(panel: "Axes", x: str = "", y: str = "", title: str = "", color: str = TEXT) -> None:
    """Names axes, with their units, and what they show."""
    panel.set_xlabel(x, fontsize=9, color=TEXT)
    panel.set_ylabel(y, fontsize=9, color=TEXT)
    if title:
        panel.set_title(title, loc="left", fontsize=9.5, fontweight="bold", color=color)


def legend(figure: "Figure", families: Iterable[str], *others: Any) -> None:
    """Families and further handles, above all axes."""
    from matplotlib.lines import Line2D

    marks = [_handle(Line2D, family) for family in families]
    handles = [*marks, *others]
    figure.legend(
        handles=handles, loc="outside upper left", ncols=len(handles), fontsize=9, labelcolor=TEXT, frameon=False
    )


def _handle(line: Any, family: str) -> Any:
    return line([], [], linestyle="", marker=MARKS[family], color=HUES[family], markersize=6, label=family)


def span(values: Sequence[float]) -> tuple[float, float]:
    """Limits that show the better half well; what lies far below is to be drawn on the lower one."""
    high, middle = max(values), float(np.median(values))
    low = max(min(values), middle - 1.5 * (high - middle))
    margin = 0.06 * (high - low) or 0.5
    return low - margin, high + margin


def jitter(number: int) -> float:
    """Of a trial, in -0.5..0.5: spread evenly, and the same in every figure."""
    return (number * 0.618034) % 1.0 - 0.5
