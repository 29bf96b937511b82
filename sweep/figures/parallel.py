"""Trials as lines across the parameters that matter most, to what they were worth."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sweep.figures.scale import Scale, scales
from sweep.figures.style import GREY, HUES, jitter, legend, make_figure, span
from sweep.importance import best_count
from sweep.reading import Reading, Trial, ordered
from vae.canvas import RULE, TEXT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_AXES = 8
_ABSENT = -0.16
"""Height of what a trial doesn't have: a parameter that it did not draw so, a rung that it did not reach."""


def draw(reading: Reading) -> "Figure":
    """A line a trial; those that the sampler holds for the best stand out.

    Raises:
        TooFewError: no trial has a value, or nothing varies.
    """
    axes = dict(list(scales(reading).items())[:_MOST_AXES])
    rungs, limits = reading.compared_rungs(), span(reading.rank_values())
    figure, (panel,) = make_figure(4.6)
    _axes(panel, axes, rungs, limits)
    places = ordered([trial for trial in reading.trials if trial.values])[::-1]
    good = best_count(len(places))
    for place, trial in enumerate(places):
        heights = [*_params(trial, axes), *_values(trial, rungs, limits)]
        alpha, width = (0.75, 1.5) if place >= len(places) - good else (0.22, 0.8)
        panel.plot(range(len(heights)), heights, color=HUES[trial.family], alpha=alpha, linewidth=width)
    _key(figure, reading, good)
    return figure


def _params(trial: Trial, axes: dict[str, Scale]) -> list[float]:
    drawn, absent = trial.frozen.params, _ABSENT + 0.06 * jitter(trial.number)
    return [
        scale.place(drawn[name], trial.number) if name in drawn and scale.holds(drawn[name]) else absent
        for name, scale in axes.items()
    ]


def _values(trial: Trial, rungs: Sequence[int], limits: tuple[float, float]) -> list[float]:
    low, high = limits
    absent = _ABSENT + 0.06 * jitter(trial.number)
    return [max(0.0, (trial.values[rung] - low) / (high - low)) if rung in trial.values else absent for rung in rungs]


def _axes(panel: "Axes", axes: dict[str, Scale], rungs: Sequence[int], limits: tuple[float, float]) -> None:
    low, high = limits
    ends = [(0.0, f"{low:.2f}"), (0.5, f"{(low + high) / 2:.2f}"), (1.0, f"{high:.2f}")]
    names = [*map(_two_lines, axes), *(f"value at\nepoch {rung}" for rung in rungs)]
    for place, ticks in enumerate([*(scale.ticks() for scale in axes.values()), *(ends for _ in rungs)]):
        panel.vlines(place, 0, 1, color=RULE, linewidth=1, zorder=2)
        for height, text in ticks:
            _write(panel, place, height, text)
    panel.axhspan(_ABSENT - 0.05, _ABSENT + 0.05, color="#f4f5f7", zorder=0)
    panel.set_xticks(range(len(names)), names)
    panel.set_yticks([_ABSENT], ["has none"])
    panel.set_ylim(_ABSENT - 0.06, 1.04)
    panel.set_xlim(-0.1, len(names) - 0.6)
    panel.tick_params(labeltop=True, labelbottom=False, labelsize=9)
    panel.spines[["left", "bottom"]].set_visible(False)


def _two_lines(name: str) -> str:
    """A long name, broken at an underscore near its middle."""
    breaks = [place + 1 for place, letter in enumerate(name) if letter == "_"]
    if len(name) <= 13 or not breaks:
        return name
    middle = min(breaks, key=lambda place: abs(place - len(name) / 2))
    return f"{name[:middle]}\n{name[middle:]}"


def _write(panel: "Axes", place: int, height: float, text: str) -> None:
    box = {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 0.8}
    panel.text(place + 0.04, height, text, va="center", fontsize=8, color=TEXT, bbox=box, zorder=4)


def _key(figure: "Figure", reading: Reading, good: int) -> None:
    from matplotlib.lines import Line2D

    legend(figure, reading.families, Line2D([], [], color=GREY, linewidth=1.5, label=f"the best {good}"))
