"""What a study tries next: a variation of a good trial or a draw of TPE, not tried before, and not likely to fail.

TPE smooths over the border of a region where trials fail, and where the best values lie beside that border, as with
the learning rate, a third of its draws fall beyond. So they are drawn again if a forest (Breiman 2001), which cuts
where failures begin, says so; failing trials count as TPE's worst all the same.
"""

import random
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from sweep.sampler import OneByOne, RungSampler, ranked
from sweep.variation import Variation

_DRAWS = 8
"""At most. Then, of those that are new, the least likely to fail is taken; if none is new, random ones follow."""
_RISK = 0.2
"""Share of the trees that may expect a failure."""
_TREES = 10
_MOST_FITTED = 150
"""The newest of each kind, failed or not, that a forest is fitted to."""
_FEWEST_FAILURES = 2
_VARIED = 0.7
"""Share of the proposals that vary a good trial; the others are draws of TPE."""


def key_of(params: Mapping[str, Any]) -> frozenset[tuple[str, Any]]:
    """Tells what was tried from what was not."""
    return frozenset(params.items())


def propose(
    trials: Sequence[FrozenTrial],
    draw: Callable[[optuna.Trial], Any],
    seed: int,
    tried: Container[frozenset[tuple[str, Any]]],
    failing: float | None = None,
) -> dict[str, Any]:
    """The parameters of the next trial.

    Args:
        trials: that were drawn so far; of very many those that tell most.
        draw: suggests every parameter of a trial, define-by-run.
        seed: of this proposal.
        tried: `key_of` the parameters of all that were drawn so far.
        failing: as of `failure_risk`.
    """
    risk_of = failure_risk(trials, seed, failing)
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
    """Variations of the best of the trials it sees, or what TPE draws by them; at random if it sees none."""
    dice = random.Random(seed)
    best = ranked(seen) if dice.random() < _VARIED else []
    scratch = optuna.create_study(sampler=Variation(best, dice) if best else RungSampler(seen, seed))
    for _ in range(_DRAWS):
        trial = scratch.ask()
        draw(trial)
        yield trial.params


def failure_risk(
    trials: Sequence[FrozenTrial], seed: int, failing: float | None = None
) -> Callable[[dict[str, Any]], float]:
    """How likely parameters are to fail, 0 to 1, by the trials so far.

    Args:
        trials: of very many those that tell most.
        seed: of the forest.
        failing: share of all trials that failed; None: that of these.
    """
    failed = [trial.params for trial in trials if trial.state == TrialState.FAIL]
    others = [trial.params for trial in trials if trial.state != TrialState.FAIL]
    if len(failed) < _FEWEST_FAILURES or not others:
        return lambda _: 0.0
    failing = len(failed) / len(trials) if failing is None else failing
    failed, others = failed[-_MOST_FITTED:], others[-_MOST_FITTED:]
    # Imported here, for it takes a second, and most sweeps need none of it.
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.feature_extraction import DictVectorizer

    vectors = DictVectorizer(sparse=False)
    forest = RandomForestClassifier(_TREES, max_features=0.5, random_state=seed)
    # Each kind weighs what its share of all trials is, or chance failures would seem to be everywhere.
    weights = [failing / len(failed)] * len(failed) + [(1.0 - failing) / len(others)] * len(others)
    fails = [True] * len(failed) + [False] * len(others)
    forest.fit(vectors.fit_transform(failed + others), fails, sample_weight=weights)
    return lambda params: float(forest.predict_proba(vectors.transform([params]))[0, 1])


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
