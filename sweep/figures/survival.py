"""How many trials reached each rung, and what became of them there."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sweep.figures.style import GREY, HUES, label, make_figure
from sweep.reading import Reading, Trial
from vae.canvas import TEXT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WENT_ON, _STOPPED, _UNENDED, _FAILED = "went on, or completed", "stopped", "not ended yet", "failed"
_FATES = (_WENT_ON, _STOPPED, _UNENDED, _FAILED)
_ENDS = {"completed": _WENT_ON, "stopped": _STOPPED, "failed": _FAILED}


def draw(reading: Reading) -> "Figure":
    """Stacked bars: a bar a rung, a panel a family."""
    groups = {"all families": reading.trials} if len(reading.families) > 1 else {}
    groups |= {family: reading.of(family) for family in reading.families}
    figure, panels = make_figure(3.4, 1, len(groups))
    for panel, (name, trials) in zip(panels, groups.items(), strict=True):
        color = HUES.get(name, TEXT)
        _bars(panel, trials, reading.rungs, color)
        label(panel, "epoch", "trials" if panel is panels[0] else "", name, color)
    _key(figure)
    return figure


def fates(trials: Sequence[Trial], rungs: Sequence[int]) -> list[Counter[str]]:
    """What became of the trials at their start, and at each rung that they reached."""
    counts: list[Counter[str]] = [Counter() for _ in range(len(rungs) + 1)]
    for trial in trials:
        passed = sum(rung in trial.record.values for rung in rungs)
        for place in range(passed):
            counts[place][_WENT_ON] += 1
        counts[passed][_ENDS.get(trial.record.state, _UNENDED)] += 1
    return counts


def _bars(panel: "Axes", trials: Sequence[Trial], rungs: Sequence[int], color: str) -> None:
    counts = fates(trials, rungs)
    bottom = [0] * len(counts)
    for fate in _FATES:
        heights = [count[fate] for count in counts]
        for place, height in enumerate(heights):
            if height:  # else a bar of no height would show its edge
                panel.bar(place, height, 0.74, bottom[place], **_look(fate, color))
            bottom[place] += height
    for place, count in enumerate(bottom):
        panel.annotate(str(count), (place, count), (0, 2), textcoords="offset points", ha="center", fontsize=8)
    panel.set_xticks(range(len(counts)), ["drawn", *map(str, rungs)])
    panel.set_ylim(0, 1.12 * max(bottom))
    panel.locator_params(axis="y", integer=True)


def _look(fate: str, color: str) -> dict[str, Any]:
    looks: dict[str, dict[str, Any]] = {
        _WENT_ON: {"color": color},
        _STOPPED: {"color": color, "alpha": 0.3},
        _UNENDED: {"facecolor": "white", "edgecolor": color, "linewidth": 1.0},
        _FAILED: {"facecolor": "white", "edgecolor": "black", "linewidth": 0.8, "hatch": "xxx"},
    }
    return looks[fate]


def _key(figure: "Figure") -> None:
    from matplotlib.patches import Patch

    handles = [Patch(label=fate, **_look(fate, GREY)) for fate in _FATES]
    figure.legend(handles=handles, loc="outside upper left", ncols=4, fontsize=9, labelcolor=TEXT, frameon=False)
