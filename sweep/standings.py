"""How trials stand at rungs, and what they may come to at the top by the learning curves of their families.

Families learn at paces of their own: one that trains with half of its weights dropped is behind for the first epochs
and ahead at the end. Compared by values at low rungs alone the slow would be given up before anyone saw their end. So
of each family that isn't far behind one trial goes on, and the others are compared by their forecasts: a value and what
the family's trials have gained, in the median, from that rung to the top.
"""

import math
from bisect import bisect_right, insort
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

_Place = tuple[float, int]
"""A rank value, and the number of the trial that has it."""

_ALL = ""
"""In place of a family: all of them together."""


class Standings:
    """Rank values at rungs, by family; of trials that have not failed.

    Args:
        rungs: ascending.
    """

    def __init__(self, rungs: Sequence[int]) -> None:
        self._next = dict(pairwise(rungs))
        self._before = {beyond: rung for rung, beyond in self._next.items()}
        self._places: dict[int, dict[str, list[_Place]]] = {rung: {} for rung in rungs}
        self._gains: dict[int, dict[str, list[float]]] = {rung: {} for rung in rungs}  # to the rung after it
        self._gain: dict[tuple[str, int], float] = {}  # of families, as far as it was asked for

    def add(self, number: int, family: str, values: Mapping[int, float], rung: int) -> None:
        """A trial has come to a rung; `values` are those that it had at rungs so far, this one included."""
        insort(self._places[rung].setdefault(family, []), (values[rung], number))
        self._gain.clear()
        for gains, gain in self._gained(family, values, rung):
            insort(gains, gain)

    def remove(self, number: int, family: str, values: Mapping[int, float]) -> None:
        """A trial has failed; all of its values go."""
        self._gain.clear()
        for rung, value in values.items():
            self._places[rung][family].remove((value, number))
            for gains, gain in self._gained(family, values, rung):
                gains.remove(gain)

    def _gained(self, family: str, values: Mapping[int, float], rung: int) -> Iterator[tuple[list[float], float]]:
        """What a trial has gained from the rung before to this one, with each list where that counts."""
        before = self._before.get(rung)
        if before is not None and before in values:
            for whose in (family, _ALL):
                yield self._gains[before].setdefault(whose, []), values[rung] - values[before]

    def count(self, rung: int) -> int:
        """Trials that have been to a rung."""
        return sum(map(len, self._places[rung].values()))

    @property
    def epochs(self) -> int:
        """Trained by all trials, up to the highest rung that each has been to."""
        return sum(self.count(rung) * (rung - self._before.get(rung, 0)) for rung in self._places)

    def reached(self, family: str) -> int:
        """The highest rung that a trial of a family has been to; 0 if none."""
        return max((rung for rung, places in self._places.items() if places.get(family)), default=0)

    def best(self, rung: int, count: int) -> list[int]:
        """The numbers of those with the best forecasts that have been to a rung, the best first."""
        forecasts = (
            (value + self.gain(family, rung), number)
            for family, places in self._places[rung].items()
            for value, number in places[-count:]
        )
        return [number for _, number in sorted(forecasts, reverse=True)[:count]]

    def gain(self, family: str, rung: int) -> float:
        """What a value at a rung may gain by the top.

        From rung to rung, as far as any trial has come: the median of the family's trials, or of all where none of the
        family has come to the next.
        """
        if (family, rung) not in self._gain:
            gains = self._gains[rung]
            known = gains.get(family) or gains.get(_ALL)
            beyond = self.gain(family, self._next[rung]) if known else 0.0
            self._gain[family, rung] = (_median(known) if known else 0.0) + beyond
        return self._gain[family, rung]

    def better(self, family: str, rung: int, value: float) -> int:
        """How many of the trials that have been to a rung have a better forecast than one of `family` with `value`."""
        forecast, count = value + self.gain(family, rung), 0
        for other, places in self._places[rung].items():
            as_much = value if other == family else forecast - self.gain(other, rung)
            count += len(places) - bisect_right(places, (as_much, math.inf))
        return count

    def leads(self, number: int, family: str, rung: int) -> bool:
        """Whether a trial at a rung shall show what its family may come to.

        It is the best of its family there, nobody of which has been to the next rung, and not far behind the best of
        all: by half at most of what these gained since the rung before.
        """
        if rung != self.reached(family) or rung not in self._next:
            return False
        value, best = self._places[rung][family][-1]
        before = self._before.get(rung)
        return best == number and (before is None or value >= (self._best(rung) + self._best(before)) / 2)

    def _best(self, rung: int) -> float:
        """The highest value of all at a rung."""
        return max((places[-1][0] for places in self._places[rung].values() if places), default=-math.inf)


def _median(sorted_values: Sequence[float]) -> float:
    middle = len(sorted_values) // 2
    return (sorted_values[middle] + sorted_values[~middle]) / 2
