"""The best so far, against the clock and against the epochs that it took."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from sweep.figures.style import GRID, HUES, MARKS, label, legend, make_figure, span
from sweep.reading import Reading, TooFewError, Trial
from vae.canvas import TEXT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_UNITS = (("hours", 3600.0, 3 * 3600.0), ("minutes", 60.0, 180.0), ("seconds", 1.0, 0.0))


@dataclass(frozen=True)
class Course:
    """A sweep in the order in which its trials were heard of last.

    Args:
        trials: that have a best epoch.
        seconds: of each one's end, from the first trial's start on.
        epochs: trained by all trials that had ended by then.
        best: the best so far, by its place among `trials`.
    """

    trials: list[Trial]
    seconds: list[float]
    epochs: list[int]
    best: list[int]


def course(reading: Reading) -> Course:
    """Follows a sweep.

    Raises:
        TooFewError: no trial has been scored.
    """
    began = min((trial.frozen.datetime_start for trial in reading.trials if trial.frozen.datetime_start), default=None)
    scored = {trial.number for trial in reading.ranked()}
    if began is None or not scored:
        raise TooFewError("no trial has been scored on validation yet")
    found, total = Course([], [], [], []), 0
    for trial in sorted(reading.trials, key=lambda trial: _end(trial, reading)):
        total += trial.record.epoch
        if trial.number in scored:
            seconds = max(0.0, (_end(trial, reading) - began).total_seconds())  # a copied file may be too old
            _follow(found, trial, seconds, total, reading)
    return found


def _follow(found: Course, trial: Trial, seconds: float, epochs: int, reading: Reading) -> None:
    found.trials.append(trial)
    found.seconds.append(seconds)
    found.epochs.append(epochs)
    here, before = len(found.trials) - 1, found.best[-1] if found.best else 0
    better = reading.rank_key(trial) > reading.rank_key(found.trials[before])
    found.best.append(here if better else before)


def _end(trial: Trial, reading: Reading) -> datetime:
    """When it was heard of last: one that waits, or waited in vain, has been at its rung since then."""
    if trial.record.reported_at is not None:
        return datetime.fromtimestamp(trial.record.reported_at)  # naive, as Optuna's times are
    return trial.frozen.datetime_complete or reading.written


def draw(reading: Reading) -> "Figure":
    """Trials as marks where they ended, the best so far as a line.

    Raises:
        TooFewError: no trial has been scored.
    """
    from matplotlib.lines import Line2D

    found = course(reading)
    figure, (left, right) = make_figure(3.8, 1, 2, sharey=True)
    unit, length, _ = next(unit for unit in _UNITS if found.seconds[-1] >= unit[2])
    _plot(left, found, [seconds / length for seconds in found.seconds], reading)
    label(left, f"{unit} since the first trial began", "ELBO on validation, nats per time step")
    _plot(right, found, found.epochs, reading)
    label(right, "epochs trained, all trials together")
    legend(figure, reading.families, Line2D([], [], color=TEXT, linewidth=1.6, label="best so far; hollow: infeasible"))
    return figure


def _plot(panel: "Axes", found: Course, x: Sequence[float], reading: Reading) -> None:
    elbo = [trial.record.best["val_elbo"] for trial in found.trials]
    low, high = span(elbo)
    heights = np.maximum(elbo, low)
    panel.step(
        [*x, x[-1] * 1.02],
        [*(heights[best] for best in found.best), heights[found.best[-1]]],
        "-",
        where="post",
        color=TEXT,
        linewidth=1.6,
    )
    for place, trial in enumerate(found.trials):
        hue, feasible = HUES[trial.family], reading.feasible(trial)
        panel.plot(
            x[place],
            heights[place],
            MARKS[trial.family],
            color=hue,
            markersize=5.5,
            markerfacecolor=hue if feasible else "white",
            clip_on=False,
        )
    panel.set_ylim(low, high)
    panel.set_xlim(left=0)
    panel.grid(color=GRID)
