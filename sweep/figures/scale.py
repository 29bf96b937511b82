"""Where the values of a drawn parameter lie on an axis, whatever it is: a number, on a log scale or not, or a word."""

import math
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from sweep.figures.style import jitter
from sweep.importance import by_importance
from sweep.reading import Reading, TooFewError

_MOST_STEPS = 8
"""Whole numbers that are shown as so many choices, at most."""
_MOST_LONG = 5
"""Numbers of more than a digit that fit beside each other."""


@dataclass(frozen=True)
class Scale:
    """The axis of one parameter, from 0 to 1.

    Args:
        low: lower end.
        high: upper end; for choices how many there are.
        log: whether equal ratios lie equally far apart.
        choices: all values, or none for a range of numbers.
    """

    low: float
    high: float
    log: bool
    choices: tuple[Any, ...]

    @property
    def words(self) -> bool:
        """Whether the values are words."""
        return bool(self.choices) and isinstance(self.choices[0], str)

    def holds(self, value: Any) -> bool:
        """Whether a value lies on it: those of an earlier start may not, where the space was another."""
        return value in self.choices if self.choices else self.low <= value <= self.high

    def place(self, value: Any, number: int) -> float:
        """Where the value of a trial lies; those of equal choices beside each other."""
        if self.choices:
            return (self.choices.index(value) + 0.5 + 0.5 * jitter(number)) / len(self.choices)
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (float(value) - self.low) / (self.high - self.low)

    def ticks(self) -> list[tuple[float, str]]:
        """Places and labels: every choice, or both ends and the middle, also of many long numbers."""
        if self.choices:
            ticks = [((index + 0.5) / len(self.choices), _say(choice)) for index, choice in enumerate(self.choices)]
            crowded = len(ticks) > _MOST_LONG and not self.words and len(ticks[-1][1]) > 1
            return [ticks[0], ticks[len(ticks) // 2], ticks[-1]] if crowded else ticks
        middle = math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2
        return [(0.0, _say(self.low)), (0.5, _say(middle)), (1.0, _say(self.high))]


def _say(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, int | float) and abs(value) < 1000 else str(value)


def scale_of(distribution: BaseDistribution) -> Scale | None:
    """The axis of a distribution, or None if there is but one value."""
    if distribution.single():
        return None
    if isinstance(distribution, CategoricalDistribution):
        return Scale(0, len(distribution.choices), False, distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = distribution.low, distribution.high
    if isinstance(distribution, IntDistribution) and (high - low) // distribution.step < _MOST_STEPS:
        choices = tuple(range(distribution.low, distribution.high + 1, distribution.step))
        return Scale(0, len(choices), False, choices)
    return Scale(low, high, distribution.log, ())


def scales(reading: Reading) -> dict[str, Scale]:
    """The axes of all parameters that vary, as they were last drawn; the family first, then the most important.

    Raises:
        TooFewError: there is none.
    """
    drawn = {name: kind for trial in reading.trials for name, kind in trial.frozen.distributions.items()}
    found = {name: scale for name, kind in drawn.items() if (scale := scale_of(kind)) is not None}
    if not found:
        raise TooFewError("no parameter varies")
    return {name: found[name] for name in ("family", *by_importance(reading.trials)) if name in found}
