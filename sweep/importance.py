"""Which parameters matter: what sets the best trials apart from all the others.

By conditional PED-ANOVA (Watanabe et al. 2023, and for conditional spaces arXiv:2601.20800): the only one of Optuna's
evaluators that takes parameters which some trials lack. It asks for an order of trials, not for values on one scale, so
that trials stopped at lower rungs count too, where the sampler places them.
"""

import math
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

from sweep.reading import TooFewError, Trial, compared_at, ordered
from sweep.sampler import good_count

FEWEST = 15
"""Trials to say anything from: Optuna advises five good ones, and there must be others."""
_FEWEST_GOOD = 5
_SHUFFLES = 40


@dataclass(frozen=True)
class Importance:
    """Of the parameters of some trials.

    Args:
        shares: by name, the largest first; they sum to 1.
        chance: by name, the share that one in twenty random orders of the same trials exceeds; less means nothing. More
            may be descent: variations of a good trial have what it happened to have.
        good: how many trials count as the best.
        trials: how many they are the best of.
        rung: at which those are compared that have reached it.
    """

    shares: dict[str, float]
    chance: dict[str, float]
    good: int
    trials: int
    rung: int | None


def best_count(trials: int) -> int:
    """How many of some trials count as the best: the sampler's good ones, but enough to say something by."""
    return max(_FEWEST_GOOD, good_count(trials))


def importance(trials: Sequence[Trial]) -> Importance:
    """Measures what sets the good trials apart; those that have no value yet, and have not failed, are left out.

    Raises:
        TooFewError: the trials are too few, or differ in nothing.
    """
    study, good = _study_of(trials)
    places = np.arange(len(study.trials))
    found = _evaluate(study, places, good)
    total = sum(found.values())
    if not total > 0.0:
        raise TooFewError("the best trials differ from the others in no parameter")
    shuffled = np.random.default_rng(0).permuted(np.tile(places, (_SHUFFLES, 1)), axis=1)
    by_chance = [_evaluate(study, order, good) for order in shuffled]
    chance = {name: float(np.quantile([one[name] for one in by_chance], 0.95)) / total for name in found}
    return Importance({name: found[name] / total for name in found}, chance, good, len(places), compared_at(trials))


def by_importance(trials: Sequence[Trial]) -> list[str]:
    """Names of drawn parameters, the most important first; where there are too few trials, the most common first."""
    common = [name for name, _ in Counter(name for trial in trials for name in trial.frozen.params).most_common()]
    try:
        study, good = _study_of(trials)
    except TooFewError:
        return common
    found = _evaluate(study, np.arange(len(study.trials)), good)
    return sorted(common, key=lambda name: -found.get(name, 0.0))


def _study_of(trials: Sequence[Trial]) -> tuple[optuna.Study, int]:
    """A study of its own, the best first, and how many count as the best."""
    places = ordered([trial for trial in trials if trial.values or trial.failed])
    valued = sum(bool(trial.values) for trial in places)
    if valued < FEWEST:
        raise TooFewError(f"{FEWEST} trials with a value are needed, but there are {valued} so far")
    study = optuna.create_study(direction="maximize")
    for trial in places:
        params, distributions = trial.frozen.params, trial.frozen.distributions
        study.add_trial(optuna.trial.create_trial(value=0.0, params=params, distributions=distributions))
    return study, best_count(len(places))


def _evaluate(study: optuna.Study, order: "np.ndarray[tuple[int], np.dtype[np.int64]]", good: int) -> dict[str, float]:
    """Importance by name, if trial i has place `order[i]` and places below `good` are the best."""
    quantile = (good - 0.5) / len(order)  # half a trial less, lest rounding add one
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of parameters that few trials have; chance shows that better
        found = get_param_importances(
            study,
            evaluator=PedAnovaImportanceEvaluator(target_quantile=quantile),
            target=lambda trial: float(order[trial.number]),
            normalize=False,
        )
    return {name: value for name, value in found.items() if math.isfinite(value)}
