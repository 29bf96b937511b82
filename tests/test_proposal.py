"""What a study tries next."""

import math
import random
from collections import Counter

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from sweep import space
from sweep.proposal import Given, failure_risk, key_of, propose
from sweep.sampler import is_drawn, ranked
from sweep.variation import Variation
from vae.encoding import DataSpec

MUSIC = DataSpec("roll_onset", 176, 4, 12, 90.5, window=64, longest_song=400, typical_song=200)
TASK = space.Task(space.fitting_families(MUSIC), MUSIC, 0.1, 2_700_000)
BORDER = 5e-4 * 20 ** (2 / 3)
"""Of the upper third of the learning rates that are drawn."""


def suggest(trial):
    return space.suggest(trial, TASK)


def drive(count, draw, value_of, at_random=0):
    """Proposes and tells, one trial after another; what was drawn. A value of None is a failure."""
    study = optuna.create_study(direction="maximize")
    for number in range(count):
        drawn = [trial for trial in study.trials if is_drawn(trial)]
        seen, tried = drawn if number >= at_random else [], {key_of(trial.params) for trial in drawn}
        study.sampler = Given(propose(seen, draw, number, tried))
        asked = study.ask()
        draw(asked)
        asked.set_user_attr("drawn", True)
        value = value_of(asked.params)
        if value is not None:
            asked.report(value, 1)
        study.tell(asked, state=TrialState.FAIL if value is None else TrialState.PRUNED)
    return study.trials


def test_a_region_that_fails_is_left_though_the_best_lies_on_its_border():
    def worth(params):
        rate = params["learning_rate"]
        return None if rate > BORDER else math.log(rate / BORDER) - 0.1 * params["dropout"]

    trials = drive(60, suggest, worth, at_random=10)
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


def test_failures_by_chance_are_seen_nowhere_in_particular():
    """A twentieth of a thousand fails, or a fiftieth, of which so many more are looked at."""
    dice = random.Random(0)
    ranges = {f"x{i}": FloatDistribution(0.0, 1.0) for i in range(20)}
    points = [{name: dice.random() for name in ranges} for _ in range(400)]
    for failed, failing in ((20, None), (100, 0.02)):
        states = [TrialState.FAIL] * failed + [TrialState.PRUNED] * (300 - failed)
        made = [
            optuna.trial.create_trial(state=state, params=point, distributions=ranges)
            for state, point in zip(states, points[:300], strict=True)
        ]
        risk_of = failure_risk(made, 0, failing)
        assert sum(risk_of(point) > 0.2 for point in points[300:]) < 25


def test_equal_seeds_give_equal_proposals():
    trials = drive(12, suggest, lambda params: -params["dropout"])
    for seed in range(6):  # of both kinds
        first, second, other = (propose(trials, suggest, number, ()) for number in (seed, seed, seed + 1))
        assert first == second != other


# Variations


def told(draw, points, worths):
    """Trials of given parameters, with values at the first rung; None: failed there."""
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(0))
    for point, worth in zip(points, worths, strict=True):
        study.enqueue_trial(point)
        asked = study.ask()
        draw(asked)
        asked.set_user_attr("drawn", True)
        asked.report(1.0 if worth is None else worth, 1)
        study.tell(asked, state=TrialState.FAIL if worth is None else TrialState.PRUNED)
    return study.trials


def two(trial):
    return trial.suggest_float("rate", 1e-4, 1.0, log=True), trial.suggest_int("width", 8, 80, step=8)


def variations(trials, count, draw):
    study = optuna.create_study(sampler=Variation(ranked(trials), random.Random(0)))
    for _ in range(count):
        trial = study.ask()
        draw(trial)
        yield trial.params


def test_a_variation_is_a_good_trial_but_for_one_parameter_or_two():
    good = told(suggest, space.first_points(TASK)[:1], [0.0])
    (known,) = [trial.params for trial in good]
    counts, changed = [], set()
    for params in variations(good, 300, suggest):
        if params["family"] != known["family"]:
            continue  # has parameters that the good one knows nothing of
        differ = {name for name, value in known.items() if params.get(name) != value}
        counts.append(len(differ))
        changed |= differ
    assert len(counts) > 250
    assert 1 in counts
    assert max(counts) == 2
    assert counts.count(0) < 10  # of whole numbers some stay
    assert changed == known.keys() - {"family"}


def test_another_family_is_varied_from_its_own_best():
    points = [{**point, "learning_rate": 1e-3 + 1e-4 * i} for i, point in enumerate(space.first_points(TASK))]
    trials = told(suggest, points, [0.0, -1.0, -2.0, -3.0, -4.0])
    best = {trial.params["family"]: trial.params for trial in trials}
    switched = 0
    for params in variations(trials, 600, suggest):
        known = best[params["family"]]
        assert sum(params.get(name) != value for name, value in known.items()) <= 2
        switched += params["family"] == trials[-1].params["family"]
    assert switched > 10


def test_the_best_is_varied_most_and_those_without_a_value_are_not():
    points = [{"width": 8 * (i + 1)} for i in range(8)]
    trials = told(two, points, [-1.0, None, -3.0, 0.0, -2.0, None, -4.0, -5.0])
    sampler, parents = Variation(ranked(trials), random.Random(0)), Counter()
    for _ in range(4000):
        sampler.before_trial(None, None)
        parents[sampler._parent.number] += 1
    assert [number for number, _ in parents.most_common()][:4] == [3, 0, 4, 2]
    assert set(parents) == {3, 0, 4, 2, 6, 7}
    assert parents[3] / 4000 == pytest.approx(0.5, abs=0.03)
    assert parents[0] / 4000 == pytest.approx(0.25, abs=0.03)


def test_numbers_move_near_by_on_their_scale_within_their_range():
    made = list(variations(told(two, [{"rate": 1e-4, "width": 40}], [1.0]), 2000, two))
    decades = sorted(math.log10(params["rate"]) + 4.0 for params in made if params["rate"] != 1e-4)
    assert decades[0] > 0.0
    assert decades[len(decades) // 2] == pytest.approx(0.2 * 4.0 * 0.6745, rel=0.15)  # of a normal number's size
    assert {params["width"] for params in made} == set(range(8, 81, 8))
    assert sum(abs(params["width"] - 40) <= 16 for params in made) > 1500


def test_of_few_choices_another_is_taken():
    def draw(trial):
        return trial.suggest_categorical("kind", "xyz"), trial.suggest_int("layers", 1, 2)

    made = list(variations(told(draw, [{"kind": "y", "layers": 1}], [1.0]), 200, draw))
    assert {(params["kind"], params["layers"]) for params in made} == {
        ("x", 1), ("z", 1), ("y", 2), ("x", 2), ("z", 2)
    }  # fmt: skip


def test_what_hangs_on_another_choice_is_as_the_best_that_knows_it_has_it():
    def draw(trial):
        kind = trial.suggest_categorical("kind", ("wide", "deep", "odd"))
        if kind != "odd":
            trial.suggest_float(kind, 0.0, 1.0)

    points = [{"kind": "wide", "wide": 0.25}, {"kind": "deep", "deep": 0.5}, {"kind": "deep", "deep": 0.75}]
    trials = told(draw, points, [3.0, 2.0, 1.0])
    changed = [params for params in variations(trials, 400, draw) if params["kind"] == "deep"]
    shares = Counter(params["deep"] for params in changed)
    assert shares.most_common(1)[0][0] == 0.5


def test_what_does_not_fit_the_range_is_drawn_at_random():
    """Such as by another version of the space."""

    def old(trial):
        return trial.suggest_float("x", 0.0, 10.0), trial.suggest_categorical("kind", ("old", "older"))

    def new(trial):
        return trial.suggest_float("x", 0.0, 1.0), trial.suggest_categorical("kind", ("new", "newer"))

    made = list(variations(told(old, [{"x": 5.0, "kind": "old"}], [1.0]), 50, new))
    assert len({params["x"] for params in made}) == 50
    assert {params["kind"] for params in made} == {"new", "newer"}


def test_seven_proposals_in_ten_are_variations():
    trials = told(two, [{"rate": 0.1, "width": 40}], [1.0])
    made = [propose(trials, two, seed, ()) for seed in range(300)]
    alike = sum((params["rate"] == 0.1) != (params["width"] == 40) for params in made)
    assert 0.25 < alike / len(made) < 0.45  # one of two parameters, in half of them


@pytest.mark.parametrize("worths", [[None] * 12, []])
def test_without_values_there_is_nothing_to_vary(worths):
    points = [{"rate": 10.0 ** -(i % 4), "width": 8 * (i % 10 + 1)} for i in range(len(worths))]
    trials = told(two, points, worths)
    made = [propose(trials, two, seed, {key_of(point) for point in points}) for seed in range(20)]
    assert len({params["rate"] for params in made}) == 20


def test_what_is_proposed_is_often_better_than_the_best_while_little_is_known():
    """In twenty parameters, of which each costs the square of its distance; draws of TPE hardly ever are."""

    def draw(trial):
        return [trial.suggest_float(f"x{i}", 0.0, 1.0) for i in range(20)]

    def worth(params):
        return -sum((value - 0.5) ** 2 for value in params.values())

    points = [{f"x{i}": 0.35 + 0.3 * (i % 2) for i in range(20)}, *({} for _ in range(4))]
    trials = told(draw, points, [0.0] * 5)
    for trial in trials:
        trial.intermediate_values = {1: worth(trial.params)}
    values = [worth(propose(trials, draw, seed, ())) for seed in range(60)]
    assert sum(value > worth(points[0]) for value in values) > 6
