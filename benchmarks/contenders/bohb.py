"""BOHB (Falkner et al. 2018) as its authors wrote it, in hpbandster: its model, its brackets, no servers.

hpbandster has not been released since 2018, and is no dependency of this project: `pip install hpbandster ConfigSpace`
makes it a contender of `benchmarks.search_efficiency`. Its space can't be defined by run, so it draws every family's
parameters, and the model is fitted to all of them. A configuration that goes on to a larger budget continues.
"""

import warnings
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from sweep import space
from sweep.replay import Point, Run
from sweep.rungs import REDUCTION_FACTOR, rungs
from vae.ranking import rank_value
from vae.trainer import MAX_EPOCHS

_DRAWS = 500  # of the space, that show all of its parameters


def distributions(task: space.Task) -> dict[str, BaseDistribution]:
    """All parameters of the space, whatever they depend on."""
    found: dict[str, BaseDistribution] = {}
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    for _ in range(_DRAWS):
        trial = study.ask()
        space.suggest(trial, task)
        found |= trial.distributions
    return {name: distribution for name, distribution in found.items() if not distribution.single()}


class Bohb:
    """A search by BOHB.

    Args:
        task: what the space depends on.
        seed: of its draws.

    Raises:
        ImportError: hpbandster or ConfigSpace is not installed.
    """

    def __init__(self, task: space.Task, seed: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its age
            from hpbandster.core.dispatcher import Job
            from hpbandster.optimizers.bohb import BOHB
            from hpbandster.optimizers.config_generators import bohb

        np.random.seed(seed)  # noqa: NPY002 - hpbandster draws from it
        self._task, self._job = task, Job
        self._distributions = distributions(task)
        self._generator = bohb.BOHB(configspace=_config_space(self._distributions, seed))
        budgets = [float(epoch) for epoch in rungs(MAX_EPOCHS)]
        optimizer = SimpleNamespace(
            max_SH_iter=len(budgets), eta=REDUCTION_FACTOR, budgets=budgets, config_generator=self._generator
        )
        self._bracket = lambda index: BOHB.get_next_iteration(optimizer, index)
        self._brackets: list[Any] = []
        self._epochs: dict[tuple[int, ...], int] = {}

    def next(self) -> Run:
        """The next run of the first bracket that has one; a new bracket if none has."""
        for bracket in self._brackets:
            found = bracket.get_next_run()
            if found is not None:
                return self._run(*found)
        self._brackets.append(self._bracket(len(self._brackets)))
        return self._run(*self._brackets[-1].get_next_run())

    def _run(self, identifier: tuple[int, ...], config: dict[str, Any], budget: float) -> Run:
        drawn = {name: _plain(config[name], of) for name, of in self._distributions.items()}
        params = space.suggest(optuna.trial.FixedTrial(drawn), self._task)
        job = self._job(identifier, config=config, budget=budget)
        return Run(params, job, self._epochs.get(identifier, 0))

    def report(self, run: Run, point: Point) -> bool:
        """Goes on to the budget."""
        self._epochs[run.trial.id] = point.epoch
        if point.epoch < run.trial.kwargs["budget"]:
            return True
        run.trial.result = {"loss": -rank_value(point.metrics, self._task.min_kl), "info": {}}
        self._register(run)
        return False

    def fail(self, run: Run, reason: str) -> None:
        """A crash, as hpbandster calls it."""
        run.trial.exception = reason
        self._register(run)

    def _register(self, run: Run) -> None:
        self._brackets[run.trial.id[0]].register_result(run.trial)
        self._generator.new_result(run.trial)


def _config_space(found: Mapping[str, BaseDistribution], seed: int) -> Any:
    import ConfigSpace

    made = ConfigSpace.ConfigurationSpace(seed=seed)
    for name, of in found.items():
        if isinstance(of, CategoricalDistribution):
            made.add(ConfigSpace.CategoricalHyperparameter(name, [str(choice) for choice in of.choices]))
        elif isinstance(of, IntDistribution):
            made.add(ConfigSpace.UniformIntegerHyperparameter(name, of.low, of.high, log=of.log))
        elif isinstance(of, FloatDistribution):
            made.add(ConfigSpace.UniformFloatHyperparameter(name, of.low, of.high, log=of.log))
    return made


def _plain(value: Any, of: BaseDistribution) -> Any:
    """A value of ConfigSpace's as the space draws it."""
    if isinstance(of, CategoricalDistribution):
        return next(choice for choice in of.choices if str(choice) == str(value))
    if isinstance(of, IntDistribution):
        return of.low + of.step * round((int(value) - of.low) / of.step)
    return float(min(max(float(value), of.low), of.high)) if isinstance(of, FloatDistribution) else value
