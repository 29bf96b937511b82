"""What a new sweep takes from earlier ones: configurations to try first, and trials that inform its proposals.

A trial informs proposals only if its values at rungs are what this sweep would have found: the same data and encoding,
epochs of the same length, as many of them (a cosine ends with the last), and the same floor under the KL. Its
parameters must all lie in this sweep's space. Any sweep, over whatever data, can say which configurations are good:
the best few become first points, where a value that this space does not have gives way to the family's default.

First points are judged at rungs like any other trial: those that nothing can be compared with yet, the families'
defaults, come before them.
"""

import random
from collections import Counter
from collections.abc import Iterable, Sized
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from sweep import space
from sweep.begun import read_study
from sweep.earlier import Earlier
from sweep.proposal import Given
from sweep.results import SweepFolder
from sweep.sampler import informs, lies_in, ranked
from sweep.settings import Settings
from sweep.study import BEST_LOOKED_AT, MOST_LOOKED_AT
from sweep.uploads import fetch
from vae.errors import UserError
from vae.ranking import rank_key

MOST_POINTS = 5
"""From each earlier sweep."""


def require_sweeps(results: Path | str, names: Iterable[str]) -> None:
    """Checks that there are sweeps to start from.

    Raises:
        UserError: one has not begun.
    """
    for name in names:
        folder = SweepFolder(results, name)
        fetch(folder, folder.summary.name)
        if not folder.journal.exists():
            raise UserError(f"--warm-start {name}: no sweep of this name in {results}.")


def warm_start(results: Path | str, settings: Settings) -> list[Earlier]:
    """What the sweeps that a new one's settings name give to it.

    Raises:
        UserError: the journal of one is damaged.
    """
    learned: list[Earlier] = []
    for name in settings.warm_start:
        folder = SweepFolder(results, name)
        there, trials = read_study(folder.journal, folder.name)
        tried = [point for given in learned for point in given.points]
        learned.append(_learn(there, trials, settings, tried))
    return learned


def _learn(there: Settings, trials: list[FrozenTrial], here: Settings, tried: list[dict[str, Any]]) -> Earlier:
    trials = [trial for trial in trials if "record" in trial.user_attrs]  # all of its parameters are drawn
    searched = [trial for trial in trials if trial.params["family"] in here.families]
    points = _points(_ranked(searched, here.min_kl), here.task, tried)
    obstacle = _obstacle(there, here)
    comparable = [] if obstacle else _comparable(searched, here.task)
    informing = _telling(comparable)
    told = {
        "outside the space, or without a value": 0 if obstacle else len(searched) - len(comparable),
        "of very many": len(comparable) - len(informing),
    }
    said = [
        f"warm start from {there.name}: {_count(points, 'first point')}",
        f"values left out: {obstacle}" if obstacle else f"{_count(informing, 'trial')} to inform proposals",
        *(f"left out: {count} {of}" for of, count in told.items() if count),
        *_left_out(trials, points, here),
    ]
    return Earlier(there.name, [params for _, params in points], informing, "; ".join(said))


def _count(things: Sized, noun: str) -> str:
    return f"{len(things)} {noun}{'s' * (len(things) != 1)}"


def _obstacle(there: Settings, here: Settings) -> str:
    """Why values don't compare; empty if they do."""
    obstacles = {
        "another encoding": there.spec.encoding != here.spec.encoding,
        "other data": there.fingerprint != here.fingerprint,
        f"--epoch-steps was {there.epoch_steps}": there.epoch_steps != here.epoch_steps,
        f"--max-epochs was {there.max_epochs}": there.max_epochs != here.max_epochs,
        f"--min-kl was {there.min_kl:g}": there.min_kl != here.min_kl,
    }
    return next((said for said, holds in obstacles.items() if holds), "")


def _ranked(trials: Iterable[FrozenTrial], min_kl: float) -> list[FrozenTrial]:
    """Those that were scored and did not fail, the best first, by the new sweep's floor."""
    best = {trial.number: trial.user_attrs["record"]["best"] for trial in trials}
    scored = [trial for trial in trials if best[trial.number] and trial.state != TrialState.FAIL]
    return sorted(scored, key=lambda trial: rank_key(best[trial.number], min_kl), reverse=True)


def _points(
    ranked: Iterable[FrozenTrial], task: space.Task, tried: list[dict[str, Any]]
) -> list[tuple[FrozenTrial, dict[str, Any]]]:
    """The best few, and what becomes of them in the space; none twice, and none that is tried anyway."""
    known = tried + [_fit(point, task).params for point in space.first_points(task)]
    points: list[tuple[FrozenTrial, dict[str, Any]]] = []
    for trial in ranked:
        params = _fit(trial.params, task).params
        if params not in known:
            known.append(params)
            points.append((trial, params))
        if len(points) == MOST_POINTS:
            break
    return points


def _left_out(
    trials: Iterable[FrozenTrial], points: Iterable[tuple[FrozenTrial, dict[str, Any]]], here: Settings
) -> list[str]:
    """Which trials, and which values of first points."""
    able = space.fitting_families(here.spec)
    families = Counter(trial.params["family"] for trial in trials if trial.params["family"] not in here.families)
    said = [
        f"{count} of family {family}, which {'is not searched' if family in able else 'this data cannot take'}"
        for family, count in families.items()
    ]
    values = [
        f"{name} {value}"
        for trial, params in points
        for name, value in trial.params.items()
        if params.get(name) != value
    ]
    said += [f"{', '.join(dict.fromkeys(values))}, outside the space"] if values else []
    return [f"left out: {'; '.join(said)}"] if said else []


def _comparable(trials: Iterable[FrozenTrial], task: space.Task) -> list[FrozenTrial]:
    """Those that failed or have been at a rung, and lie in the space, as drawn from it."""
    ended = [trial for trial in trials if trial.state == TrialState.FAIL or trial.intermediate_values]
    known = filter(informs, ended)
    fits = [(trial, _fit(trial.params, task)) for trial in known]
    return [_ended(trial, fit) for trial, fit in fits if fit.params == trial.params]


def _telling(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """All trials; of very many the best, and others at random: each proposal looks at them."""
    if len(trials) <= MOST_LOOKED_AT:
        return trials
    best = ranked(trials)[:BEST_LOOKED_AT]
    among = {id(trial) for trial in best}  # they have no numbers yet
    others = [trial for trial in trials if id(trial) not in among]
    return best + random.Random(0).sample(others, MOST_LOOKED_AT - len(best))


def _fit(params: dict[str, Any], task: space.Task) -> optuna.trial.Trial:
    """A draw from the space that is as close as it can be to some parameters, of a family that is searched."""
    defaults = next(point for point in space.first_points(task) if point["family"] == params["family"])
    trial = optuna.create_study(sampler=_Fitting(params, defaults)).ask()
    space.suggest(trial, task)
    return trial


class _Fitting(Given):
    """Draws given parameters, where they lie in their range; else defaults."""

    def __init__(self, params: dict[str, Any], defaults: dict[str, Any]) -> None:
        super().__init__(params)
        self._defaults = defaults

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The parameter as given, or the family's default, or, if neither is in the range, the range's first value."""
        del study, trial
        values = [given[param_name] for given in (self._params, self._defaults) if param_name in given]
        return next((value for value in values if lies_in(value, param_distribution)), _first(param_distribution))


def _first(distribution: BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[0]
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return distribution.low


def _ended(trial: FrozenTrial, fit: optuna.trial.Trial) -> FrozenTrial:
    """As the new sweep's journal keeps it: in the ranges of its own space; for it, one that still runs has ended."""
    made = optuna.trial.create_trial(
        state=trial.state if trial.state.is_finished() else TrialState.PRUNED,
        value=trial.value,
        params=fit.params,
        distributions=fit.distributions,
        intermediate_values=trial.intermediate_values,
        user_attrs=trial.user_attrs,
    )
    made.datetime_start = trial.datetime_start
    made.datetime_complete = trial.datetime_complete or made.datetime_complete
    return made
