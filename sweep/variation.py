"""Variations: a good trial but for a parameter or two.

A draw of TPE departs from what is good in all of some twenty parameters at once and, as long as it knows little, by
far: hardly one is as good. Evolution (as of Real et al. 2019) changes a few.
"""

import math
import random
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial

from sweep.sampler import OneByOne, lies_in, on_grid

_MOST_VARIED = 2
"""Parameters, in how many a variation is drawn to depart; what hangs on a choice comes on top."""
_STEP = 0.2
"""Standard deviation by which a number moves, as a share of its range."""
_NEXT = 0.5
"""How likely the next best is varied instead."""


class Variation(OneByOne):
    """Proposes the parameters of a good trial, but for one or two: a number is moved, another choice is made.

    The best is varied in half of the proposals, the second in a quarter, and so on: values at low rungs mislead, and
    other families shall stay in play. What hangs on another choice is as the best trial has it that knows it; and if
    another family is chosen, its best is varied instead, for what suits one says little of another.

    Args:
        ranked: trials with values, best first; one at least.
        dice: of this proposal.
    """

    def __init__(self, ranked: Sequence[FrozenTrial], dice: random.Random) -> None:
        self._ranked, self._dice = ranked, dice
        self._uniform = optuna.samplers.RandomSampler(dice.getrandbits(32))
        self._parent = ranked[0]
        self._varied: set[str] = set()

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """A trial begins: whom it takes after, and where not."""
        del study, trial
        place = 0
        while place + 1 < len(self._ranked) and self._dice.random() < _NEXT:
            place += 1
        self._parent = self._ranked[place]
        self._varied = self._some(self._parent, self._dice.randint(1, _MOST_VARIED))

    def _some(self, trial: FrozenTrial, count: int) -> set[str]:
        names = sorted(name for name, known in trial.distributions.items() if not known.single())
        return set(self._dice.sample(names, min(len(names), count)))

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The parameter as a good trial has it, or varied; at random if none has one in this range."""
        known = (other.params[param_name] for other in (self._parent, *self._ranked) if param_name in other.params)
        for value in known:
            if lies_in(value, param_distribution):
                return self._varied_from(value, param_name, param_distribution)
        return self._uniform.sample_independent(study, trial, param_name, param_distribution)

    def _varied_from(self, value: Any, name: str, distribution: BaseDistribution) -> Any:
        if name not in self._varied:
            return value
        another = self._another(value, distribution)
        if name == "family" and (kin := [trial for trial in self._ranked if trial.params[name] == another]):
            self._parent, self._varied = kin[0], self._some(kin[0], 1)
        return another

    def _another(self, value: Any, distribution: BaseDistribution) -> Any:
        if few := _few(distribution):
            return self._dice.choice([other for other in few if other != value] or [value])
        assert isinstance(distribution, FloatDistribution | IntDistribution)
        return self._moved(value, distribution)

    def _moved(self, value: float, distribution: FloatDistribution | IntDistribution) -> Any:
        """Somewhere near on the scale of its range; beyond an end as far within."""
        to, back = (math.log, math.exp) if distribution.log else (float, float)
        low, high = to(distribution.low), to(distribution.high)
        moved = to(value) + self._dice.gauss(0.0, _STEP * (high - low))
        moved = high - abs(high - low - abs(moved - low))
        return on_grid(min(max(back(moved), distribution.low), distribution.high), distribution)


def _few(distribution: BaseDistribution) -> Sequence[Any]:
    """All that a distribution gives, if a step would hardly ever lead from one to another; else nothing."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    if isinstance(distribution, IntDistribution) and distribution.high - distribution.low < distribution.step / _STEP:
        return range(distribution.low, distribution.high + 1, distribution.step)
    return ()
