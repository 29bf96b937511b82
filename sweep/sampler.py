"""TPE that compares trials at one fidelity: what each trial was worth at the highest rung that enough have reached.

Optuna's own sampler takes the last value of a trial that ASHA stopped for its final one, counts every running trial as
bad whatever its rungs say, and forgets those that failed. Here TPE (Bergstra et al. 2011; over all parameters at once,
as in BOHB, Falkner et al. 2018) sees a study made anew for each proposal:

- who has a value at the rung is complete, with that value, whether it was stopped, still runs or went on;
- who has values at lower rungs only comes after, the higher the rung the better;
- who failed, or has no value yet, comes last: TPE moves away from it.

Trials count once they have a user attribute, which `sweep.study` sets when all of their parameters are drawn; not if
they were lost with their nodes, see `sweep.crash`.
"""

import math
import random
from collections import Counter
from collections.abc import Container, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

_MOST_SEEN = 125
"""Trials that TPE fits at most, the more the slower: its good set, and of the others, which only tell where trials lie,
so many drawn at random."""

_CANDIDATES = 64
"""Drawn around the good trials, of which TPE proposes one; as many as in BOHB. With Optuna's 24 more fall where trials
fail."""

_RANDOM = 5
"""Trials before TPE proposes. A sweep begins with as many defaults of families, and in replays what varies the best of
those finds more than Optuna's ten, half of them random, do."""


_NOWHERE = (-1, 0.0)
"""Where a trial stands that has no value, or has failed."""


def good_count(trials: int) -> int:
    """How many of the best make the good set: a tenth of those seen, as Optuna has it."""
    return math.ceil(0.1 * min(trials, _MOST_SEEN))


def highest_rung(trials: Sequence[FrozenTrial]) -> int | None:
    """The highest rung at which there are values enough to fill the good set; the lowest if there is none such."""
    reached = Counter(step for trial in trials if trial.state != TrialState.FAIL for step in trial.intermediate_values)
    enough = good_count(len(trials))
    full = [rung for rung, count in reached.items() if count >= enough]
    return max(full) if full else min(reached, default=None)


def ranked(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that have values, best first, as seen from the highest rung that enough have reached."""
    rung = highest_rung(trials)
    standings = [(standing(trial, rung), trial) for trial in trials]
    valued = [(place, trial) for place, trial in standings if place > _NOWHERE]
    return [trial for _, trial in sorted(valued, key=lambda pair: pair[0], reverse=True)]


def comparable(trials: Sequence[FrozenTrial], seed: int) -> list[FrozenTrial]:
    """The trials as TPE shall see them, see the head of this file; of very many all the good ones, others at random."""
    rung, good = highest_rung(trials), ranked(trials)[: good_count(len(trials))]
    numbers = {trial.number for trial in good}
    others = [trial for trial in trials if trial.number not in numbers]
    if len(trials) > _MOST_SEEN:
        others = random.Random(seed).sample(others, _MOST_SEEN - len(good))
    return [_at_rung(trial, rung) for trial in (*good, *others)]


def _of_one_space(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Without those that lie outside of the newest trials' space, which an earlier version of the code drew."""
    space: dict[str, BaseDistribution] = {}
    for trial in sorted(trials, key=lambda trial: trial.number):
        space |= trial.distributions
    return [trial for trial in trials if all(lies_in(value, space[name]) for name, value in trial.params.items())]


def is_drawn(trial: FrozenTrial) -> bool:
    """Whether its parameters are whole: it does not wait to be drawn, and no crash came in between."""
    return trial.state != TrialState.WAITING and bool(trial.user_attrs)


def informs(trial: FrozenTrial) -> bool:
    """Whether its parameters have been tried: drawn, and not lost by what they are not to blame for."""
    return is_drawn(trial) and not trial.user_attrs.get("record", {}).get("lost")


def _values(trial: FrozenTrial, rung: int | None) -> dict[int, float]:
    """Values up to a rung; of failed trials none."""
    if rung is None or trial.state == TrialState.FAIL:
        return {}
    return {step: value for step, value in trial.intermediate_values.items() if step <= rung}


def standing(trial: FrozenTrial, rung: int | None) -> tuple[int, float]:
    """What trials are ordered by, seen from a rung: the highest one reached up to there, then the value at it."""
    values = trial.intermediate_values
    if rung is None or not values or trial.state == TrialState.FAIL:
        return _NOWHERE
    if rung in values:
        return rung, values[rung]
    return max(((step, value) for step, value in values.items() if step < rung), default=_NOWHERE)


def _at_rung(trial: FrozenTrial, rung: int | None) -> FrozenTrial:
    values = _values(trial, rung)
    value = None if rung is None else values.get(rung)
    return FrozenTrial(
        number=trial.number,
        trial_id=trial.number,
        state=TrialState.PRUNED if value is None else TrialState.COMPLETE,
        value=value,
        params=trial.params,
        distributions=trial.distributions,
        intermediate_values=values,
        datetime_start=trial.datetime_start,
        datetime_complete=trial.datetime_start,
        user_attrs={},
        system_attrs={},
    )


class _Seen(optuna.Study):
    """A study of given trials. Optuna's own would copy and check each of them, which takes longer than TPE."""

    def __init__(self, trials: list[FrozenTrial]) -> None:
        storage = optuna.storages.InMemoryStorage()
        storage.create_new_study([StudyDirection.MAXIMIZE], "seen")
        super().__init__("seen", storage)
        self._trials = trials

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        """What `TPESampler` reads its study by."""
        del deepcopy, use_cache
        return [trial for trial in self._trials if states is None or trial.state in states]


def groups(trials: Sequence[FrozenTrial]) -> dict[str, dict[str, BaseDistribution]]:
    """For each parameter, those to draw it with: all that occur in the same trials, in their newest ranges, sorted."""
    where: dict[str, list[int]] = {}
    known: dict[str, BaseDistribution] = {}
    for trial in sorted(trials, key=lambda trial: trial.number):
        for name, distribution in trial.distributions.items():
            where.setdefault(name, []).append(trial.number)
            known[name] = _smooth(distribution)
    together: dict[tuple[int, ...], dict[str, BaseDistribution]] = {}
    for name in sorted(known):
        if not known[name].single():
            together.setdefault(tuple(where[name]), {})[name] = known[name]
    return {name: group for group in together.values() for name in group}


def _smooth(distribution: BaseDistribution) -> BaseDistribution:
    """A range of whole numbers as one of real numbers: TPE is many times as fast there."""
    if not isinstance(distribution, IntDistribution):
        return distribution
    return FloatDistribution(distribution.low, distribution.high, log=distribution.log)


def lies_in(value: Any, distribution: BaseDistribution) -> bool:
    """Whether a value is one that a distribution gives."""
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    on_its_grid = not isinstance(distribution, IntDistribution) or (value - distribution.low) % distribution.step == 0
    return distribution.low <= value <= distribution.high and on_its_grid


def on_grid(value: Any, distribution: BaseDistribution) -> Any:
    """The whole number nearest to one that was drawn as real."""
    if not isinstance(distribution, IntDistribution):
        return value
    return distribution.low + distribution.step * round((value - distribution.low) / distribution.step)


class OneByOne(BaseSampler):
    """A sampler that draws each parameter when it is asked for, none beforehand."""

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """A trial begins."""
        del study, trial
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing, see above."""
        del study, trial, search_space
        return {}


class RungSampler(OneByOne):
    """Proposes by given trials; a generator of its own makes each proposal another.

    Parameters of the space that depend on others are drawn when they are asked for, and jointly with those that are
    there whenever they are. Optuna's own `group=True` draws them beforehand, for every family of models.

    Args:
        trials: that were drawn so far; those of the study it draws for are not looked at.
        seed: of the proposals.
    """

    def __init__(self, trials: Sequence[FrozenTrial], seed: int) -> None:
        self._trials = _of_one_space(comparable(trials, seed))
        self._seen, self._groups = _Seen(self._trials), groups(self._trials)
        self._drawn: dict[str, Any] = {}
        # No liar is needed: those that run are among those seen.
        self._tpe = TPESampler(
            seed=seed,
            multivariate=True,
            constant_liar=False,
            n_startup_trials=_RANDOM,
            n_ei_candidates=_CANDIDATES,
        )

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """A trial begins; no parameter is drawn yet."""
        self._drawn = {}
        return super().infer_relative_search_space(study, trial)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draws a parameter, and with it its group; by itself if no trial so far had it in this range."""
        del study
        group = self._groups.get(param_name, {})
        if group.get(param_name) != _smooth(param_distribution):
            return self._by_itself(trial, param_name, param_distribution)
        if param_name not in self._drawn:
            self._drawn |= self._tpe.sample_relative(self._seen, trial, group)
        if param_name not in self._drawn:  # too few trials yet
            return self._by_itself(trial, param_name, param_distribution)
        return on_grid(self._drawn[param_name], param_distribution)

    def _by_itself(self, trial: FrozenTrial, name: str, distribution: BaseDistribution) -> Any:
        """By those trials alone whose value lies in the range."""
        known = (other for other in self._trials if name in other.params)
        fitting = [other for other in known if lies_in(other.params[name], distribution)]
        return self._tpe.sample_independent(_Seen(fitting), trial, name, distribution)
