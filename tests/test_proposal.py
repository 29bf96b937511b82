"""What a study tries next."""

import math

import optuna
import pytest
from optuna.trial import TrialState

from sweep import space
from sweep.proposal import Given, Variation, failure_risk, key_of, propose
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
    assert sum(rate > BORDER for rate in rates[:30]) >= 2
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


# Variations


def told(params, value, number=0):
    """A trial of given parameters, as drawn from the space, with a value at the first rung."""
    study = optuna.create_study(direction="maximize")
    study.enqueue_trial(params)
    asked = study.ask()
    space.suggest(asked, TASK)
    asked.set_user_attr("drawn", True)
    asked.report(value, 1)
    study.tell(asked, state=TrialState.PRUNED)
    made = study.trials[0]
    made.number = number
    return made


def variations(trials, count, draw=lambda trial: space.suggest(trial, TASK)):
    study = optuna.create_study(sampler=Variation(trials, 0))
    for _ in range(count):
        trial = study.ask()
        draw(trial)
        yield trial


def test_a_variation_is_a_good_trial_but_for_one_parameter_or_two():
    worse, good = (told(point, value) for value, point in enumerate(space.first_points(TASK)[:2]))
    counts, moved = [], set()
    for trial in variations([good, worse], 300):
        if trial.params["family"] != good.params["family"]:
            continue  # has parameters that the good one knows nothing of
        differ = {name for name, value in good.params.items() if trial.params.get(name) != value}
        counts.append(len(differ))
        moved |= differ
    assert len(counts) > 270
    assert max(counts) <= 3  # with one that depends on another
    assert 0.5 < sum(count == 1 for count in counts) / len(counts) < 0.8  # some moves come back to the same number
    assert moved >= good.params.keys() - {"family"}


def test_numbers_move_near_by_on_their_scale_within_their_range():
    def draw(trial):
        trial.suggest_float("rate", 1e-4, 1.0, log=True)
        trial.suggest_int("width", 8, 80, step=8)

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(0))
    study.enqueue_trial({"rate": 1e-4, "width": 40})
    asked = study.ask()
    draw(asked)
    asked.report(1.0, 1)
    study.tell(asked, state=TrialState.PRUNED)
    made = [trial.params for trial in variations(study.trials, 2000, draw)]
    decades = sorted(math.log10(params["rate"]) + 4.0 for params in made if params["rate"] != 1e-4)
    assert decades[0] > 0.0
    assert decades[len(decades) // 2] == pytest.approx(0.2 * 4.0 * 0.6745, rel=0.15)  # of a normal number's size
    assert {params["width"] for params in made} == set(range(8, 81, 8))
    assert sum(abs(params["width"] - 40) <= 16 for params in made) > 1500


def test_what_does_not_fit_the_range_is_drawn_at_random():
    """Such as of an earlier sweep with another space."""
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(0))
    study.enqueue_trial({"x": 5.0, "kind": "old"})
    asked = study.ask()
    asked.suggest_float("x", 0.0, 10.0)
    asked.suggest_categorical("kind", ("old", "older"))
    asked.report(1.0, 1)
    study.tell(asked, state=TrialState.PRUNED)

    def draw(trial):
        return trial.suggest_float("x", 0.0, 1.0), trial.suggest_categorical("kind", ("new", "newer"))

    made = [trial.params for trial in variations(study.trials, 50, draw)]
    assert len({params["x"] for params in made}) == 50
    assert {params["kind"] for params in made} == {"new", "newer"}


def test_what_is_proposed_is_often_better_than_the_best_while_little_is_known():
    """In twenty parameters, of which each costs the square of its distance; draws of TPE hardly ever are."""

    def draw(trial):
        return [trial.suggest_float(f"x{i}", 0.0, 1.0) for i in range(20)]

    def worth(params):
        return -sum((value - 0.5) ** 2 for value in params.values())

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(0))
    study.enqueue_trial({f"x{i}": 0.35 + 0.3 * (i % 2) for i in range(20)})
    for _ in range(5):
        asked = study.ask()
        draw(asked)
        asked.set_user_attr("drawn", True)
        asked.report(worth(asked.params), 1)
        study.tell(asked, state=TrialState.PRUNED)
    values = [worth(propose(study.trials, draw, seed, ())) for seed in range(60)]
    assert sum(value > worth(study.trials[0].params) for value in values) > 12
