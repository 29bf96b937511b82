"""Which parameters set the best trials apart, over all families and within each."""

import math
from typing import TYPE_CHECKING

from sweep.figures.style import GRID, HUES, label, make_figure
from sweep.importance import Importance, importance
from sweep.reading import Reading, TooFewError
from vae.canvas import TEXT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 3
_SHOWN = 12
"""Parameters in a panel, at most."""


def draw(reading: Reading) -> "Figure":
    """Bars of shares, and marks for what chance would give.

    Raises:
        TooFewError: too few trials, over all families.
    """
    found = _by_family(reading)
    rows, columns = math.ceil(len(found) / _COLUMNS), min(_COLUMNS, len(found))
    figure, panels = make_figure(0.5 + 3.1 * rows, rows, columns)
    for panel in panels[len(found) :]:
        panel.set_visible(False)
    for panel, (family, result) in zip(panels, found.items(), strict=False):
        _bars(panel, result, HUES.get(family, TEXT))
        label(
            panel,
            f"share of importance, by epoch {result.rung}",
            title=f"{family}: best {result.good} of {result.trials} trials",
            color=HUES.get(family, TEXT),
        )
    return figure


def _by_family(reading: Reading) -> dict[str, Importance]:
    found = {"all families" if len(reading.families) > 1 else reading.families[0]: importance(reading.trials)}
    for family in reading.families if len(reading.families) > 1 else ():
        try:
            found[family] = importance(reading.of(family))
        except TooFewError:
            continue  # the others may have enough
    return found


def _bars(panel: "Axes", result: Importance, color: str) -> None:
    names = list(result.shares)[:_SHOWN]
    shares, chance = [result.shares[name] for name in names], [result.chance[name] for name in names]
    bars = panel.barh(names, shares, height=0.62, color=color)
    for bar, share, luck in zip(bars, shares, chance, strict=True):
        bar.set_alpha(1.0 if share > luck else 0.3)
    places = range(len(names))
    panel.vlines(chance, [y - 0.38 for y in places], [y + 0.38 for y in places], color="black", linewidth=1.4)
    panel.grid(axis="x", color=GRID)
    panel.invert_yaxis()
    panel.set_xlim(0, 1.08 * max(*shares, *chance))
