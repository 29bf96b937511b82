"""What a study tries next."""

import math

import optuna
import pytest
from optuna.trial import TrialState

from sweep import space
from sweep.proposal import Given, failure_risk, key_of, propose
from sweep.sampler import is_drawn
from vae.encoding import DataSpec

MUSIC = DataSpec("roll_onset", 176, 4, 12, 90.5, window=64, longest_song=400, typical_song=200)
TASK = space.Task(space.fitting_families(MUSIC), MUSIC, 0.1, 2_700_000)
BORDER = 5e-4 * 20 ** (2 / 3)
"""Of the upper third of the learning rates that are drawn."""


def drive(count, draw, value_of):
    """Proposes and tells, one trial after another; what was drawn. A value of None is a failure."""
    study = optuna.create_study(direction="maximize")
    for number in range(count):
        drawn = [trial for trial in study.trials if is_drawn(trial)]
        study.sampler = Given(propose(drawn, draw, number, {key_of(trial.params) for trial in drawn}))
        asked = study.ask()
        draw(asked)
        asked.set_user_attr("drawn", True)
        value = value_of(asked.params)
        if value is not None:
            asked.report(value, 1)
        study.tell(asked, state=TrialState.FAIL if value is None else TrialState.PRUNED)
    return study.trials


def test_a_region_that_fails_is_left_though_the_best_lies_on_its_border():
    """The sampler by itself keeps to two fifths."""

    def worth(params):
        rate = params["learning_rate"]
        return None if rate > BORDER else math.log(rate / BORDER) - 0.1 * params["dropout"]

    trials = drive(60, lambda trial: space.suggest(trial, TASK), worth)
    rates = [trial.params["learning_rate"] for trial in trials]
    assert sum(rate > BORDER for rate in rates[:20]) >= 2
    assert sum(rate > BORDER for rate in rates[30:]) < 3
    assert max(rate for rate in rates if rate <= BORDER) > 0.9 * BORDER


def test_nothing_is_tried_twice_while_there_is_something_new():
    def draw(trial):
        return trial.suggest_categorical("a", "xyz"), trial.suggest_int("b", 0, 3)

    trials = drive(10, draw, lambda params: -float(params["b"]))
    assert len({tuple(trial.params.items()) for trial in trials}) == 10
    assert len(drive(14, draw, lambda params: -float(params["b"]))) == 14  # of twelve that there are


@pytest.mark.parametrize("failures", [0, 1])
def test_hardly_a_failure_teaches_nothing(failures):
    trials = drive(12, lambda trial: trial.suggest_float("x", 0.0, 1.0), lambda params: params["x"])
    failed = [
        optuna.trial.create_trial(state=TrialState.FAIL, params=t.params, distributions=t.distributions) for t in trials
    ]
    assert failure_risk(trials + failed[:failures], 0)(trials[0].params) == 0.0
    assert failure_risk(trials[:6] + failed[6:], 0)(failed[11].params) > 0.5


def test_equal_seeds_give_equal_proposals():
    trials = drive(12, lambda trial: space.suggest(trial, TASK), lambda params: -params["dropout"])
    first, second, other = (propose(trials, lambda trial: space.suggest(trial, TASK), seed, ()) for seed in (3, 3, 4))
    assert first == second != other
