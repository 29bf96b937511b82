"""What a study tries next: a variation of a good trial or a draw of TPE, not tried before, and not likely to fail.

TPE smooths over the border of a region where trials fail, and where the best values lie beside that border, as with
the learning rate, a third of its draws fall beyond. So they are drawn again if a forest (Breiman 2001), which cuts
where failures begin, says so; failing trials count as TPE's worst all the same.
"""

import math
import random
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from sweep.sampler import OneByOne, RungSampler, good_trials, on_grid

_DRAWS = 8
"""At most. Then, of those that are new, the least likely to fail is taken; if none is new, random ones follow."""
_RISK = 0.2
"""Share of the trees that may expect a failure."""
_TREES = 10
_MOST_FITTED = 150
"""The newest of each kind, failed or not, that a forest is fitted to."""
_FEWEST_FAILURES = 2
_VARIED, _MOST_VARIED, _STEP = 0.7, 2, 0.2
"""Share of the proposals that vary a good trial; in how many parameters at most; standard deviation by which a number
moves, as a share of its range."""


def key_of(params: Mapping[str, Any]) -> frozenset[tuple[str, Any]]:
    """Tells what was tried from what was not."""
    return frozenset(params.items())


def propose(
    trials: Sequence[FrozenTrial],
    draw: Callable[[optuna.Trial], Any],
    seed: int,
    tried: Container[frozenset[tuple[str, Any]]],
) -> dict[str, Any]:
    """The parameters of the next trial.

    Args:
        trials: that were drawn so far; of very many those that tell most.
        draw: suggests every parameter of a trial, define-by-run.
        seed: of this proposal.
        tried: `key_of` the parameters of all that were drawn so far.
    """
    risk_of = failure_risk(trials, seed)
    for seen in (trials, ()):
        drafts = []
        for params in _draws(seen, draw, seed):
            if key_of(params) in tried:
                continue
            if (risk := risk_of(params)) <= _RISK:
                return params
            drafts.append((risk, params))
        if drafts:
            return min(drafts, key=lambda draft: draft[0])[1]
    return params


def _draws(seen: Sequence[FrozenTrial], draw: Callable[[optuna.Trial], Any], seed: int) -> Iterator[dict[str, Any]]:
    """What the sampler draws by the trials it sees, or a variation of a good one; at random if it sees none."""
    varies = any(trial.intermediate_values for trial in seen) and random.Random(seed).random() < _VARIED
    scratch = optuna.create_study(sampler=Variation(seen, seed) if varies else RungSampler(seen, seed))
    for _ in range(_DRAWS):
        trial = scratch.ask()
        draw(trial)
        yield trial.params


def failure_risk(trials: Sequence[FrozenTrial], seed: int) -> Callable[[dict[str, Any]], float]:
    """How likely parameters are to fail, 0 to 1, by the trials so far."""
    failed = [trial.params for trial in trials if trial.state == TrialState.FAIL][-_MOST_FITTED:]
    others = [trial.params for trial in trials if trial.state != TrialState.FAIL][-_MOST_FITTED:]
    if len(failed) < _FEWEST_FAILURES or not others:
        return lambda _: 0.0
    # Imported here, for it takes a second, and most sweeps need none of it.
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.feature_extraction import DictVectorizer

    vectors = DictVectorizer(sparse=False)
    forest = RandomForestClassifier(_TREES, max_features=0.5, random_state=seed)
    forest.fit(vectors.fit_transform(failed + others), [True] * len(failed) + [False] * len(others))
    return lambda params: float(forest.predict_proba(vectors.transform([params]))[0, 1])


class Variation(OneByOne):
    """Proposes the parameters of a good trial, but for one or a few: a number is moved, a choice is made anew.

    A draw of TPE departs from what is good in all of some twenty parameters at once, and as long as it knows little,
    by far: hardly one is as good. Evolution (as of Real et al. 2019) changes a few.

    Args:
        trials: that were drawn so far, of which some have values.
        seed: of the proposals.
    """

    def __init__(self, trials: Sequence[FrozenTrial], seed: int) -> None:
        self._good = [trial.params for trial in good_trials(trials)]
        self._random, self._uniform = random.Random(seed), optuna.samplers.RandomSampler(seed)
        self._parent: dict[str, Any] = {}
        self._varied: set[str] = set()

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """A trial begins: whom it takes after, and where not."""
        del study, trial
        self._parent = self._random.choice(self._good)
        names = sorted(self._parent)
        self._varied = set(self._random.sample(names, self._random.randint(1, min(_MOST_VARIED, len(names)))))

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The parameter as the good trial has it, or varied; at random if that has none that fits."""
        value, known = self._parent.get(param_name), param_name in self._parent
        if known and _fits(value, param_distribution):
            if param_name not in self._varied:
                return value
            if _is_range(param_distribution):
                return self._moved(value, param_distribution)
        return self._uniform.sample_independent(study, trial, param_name, param_distribution)

    def _moved(self, value: Any, distribution: Any) -> Any:
        """Somewhere near on the scale of its range; beyond an end as far within."""
        to, back = (math.log, math.exp) if distribution.log else (float, float)
        low, high = to(distribution.low), to(distribution.high)
        moved = to(value) + self._random.gauss(0.0, _STEP * (high - low))
        moved = high - abs(high - low - abs(moved - low))
        return on_grid(min(max(back(moved), distribution.low), distribution.high), distribution)


def _fits(value: Any, distribution: BaseDistribution) -> bool:
    """Whether a distribution may give a value."""
    try:
        return distribution._contains(distribution.to_internal_repr(value))
    except ValueError:
        return False


def _is_range(distribution: BaseDistribution) -> bool:
    """Of numbers among which a step is a step: not of so few whole ones that it would hardly ever lead to another."""
    few = isinstance(distribution, IntDistribution) and distribution.high - distribution.low < distribution.step / _STEP
    return isinstance(distribution, FloatDistribution | IntDistribution) and not few


class Given(OneByOne):
    """Hands a trial the parameters that were proposed."""

    def __init__(self, params: dict[str, Any]) -> None:
        self._params = params

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The parameter as proposed."""
        del study, trial, param_distribution
        return self._params[param_name]
