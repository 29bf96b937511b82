"""What the figures of a sweep show."""

import itertools
import random
from dataclasses import replace

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from sweeping import new_folder, open_study, search

from sweep.figures import front, progress, survival
from sweep.figures.scale import scale_of
from sweep.figures.style import span
from sweep.reading import read


@pytest.fixture
def sweep(tmp_path):
    """Of 40 trials, of which every eighth fails."""
    folder = new_folder(tmp_path)
    study = open_study(folder.journal, 40)
    search(study, 40, lambda record: None if record.number % 8 == 7 else -5.0 - record.number % 5)
    study.ask()
    return read(folder)


def test_trials_that_went_on_are_those_that_reached_the_next_rung(sweep):
    counts = survival.fates(sweep.trials, sweep.rungs)
    totals = [sum(count.values()) for count in counts]
    assert totals[0] == len(sweep.trials) == 40
    for here, above in itertools.pairwise(range(len(counts))):
        assert counts[here]["went on, or completed"] == totals[above]
    assert totals[1:] == [sum(rung in trial.record.values for trial in sweep.trials) for rung in sweep.rungs]
    assert sum(count["failed"] for count in counts) == counts[0]["failed"] == 5


def test_the_best_so_far_never_gets_worse_and_ends_at_the_winner(sweep):
    course = progress.course(sweep)
    keys = [sweep.rank_key(course.trials[best]) for best in course.best]
    assert keys == sorted(keys)
    assert keys[-1] == sweep.rank_key(sweep.ranked()[0])
    assert course.seconds == sorted(course.seconds)
    assert course.epochs == sorted(course.epochs)
    assert course.epochs[-1] == sweep.epochs


def test_the_front_is_what_no_other_trial_beats_in_both():
    draw = random.Random(0)
    points = [(draw.random(), draw.random()) for _ in range(200)]
    unbeaten = [p for p in points if not any(q[0] >= p[0] and q[1] >= p[1] and q != p for q in points)]
    assert sorted(front.front(points)) == sorted(unbeaten)


@pytest.mark.parametrize("seeds", [None, [{"seed": 0}, {"seed": 1}]])
def test_the_best_of_the_front_is_who_won_final_runs_if_there_were_any(sweep, seeds):
    first, second, *_ = sweep.ranked()
    best, said = (first, "the best") if seeds is None else (second, "the best by its seeds")
    drawn = front.draw(replace(sweep, summary={"best": {"trial": second.number, "seeds": seeds}}))
    (note,) = (text for text in drawn.axes[0].texts if "best" in text.get_text())
    assert note.get_text() == f"trial {best.number}, {said}"
    assert note.xy == (best.record.best["kl"], best.record.best["val_elbo"])


@pytest.mark.parametrize(
    ("distribution", "places"),
    [
        (FloatDistribution(1e-4, 1.0, log=True), {1e-4: 0.0, 1e-2: 0.5, 1.0: 1.0}),
        (FloatDistribution(-1.0, 3.0), {-1.0: 0.0, 0.0: 0.25, 3.0: 1.0}),
        (IntDistribution(2, 200, log=True), {2: 0.0, 20: 0.5, 200: 1.0}),
        (IntDistribution(1, 4), {1: 0.125, 4: 0.875}),
        (CategoricalDistribution(("no", "yes")), {"no": 0.25, "yes": 0.75}),
    ],
)
def test_values_lie_where_their_distribution_has_them(distribution, places):
    scale = scale_of(distribution)
    width = 0.25 / len(scale.choices) if scale.choices else 1e-12
    for value, place in places.items():
        assert all(scale.place(value, number) == pytest.approx(place, abs=width) for number in range(9))


def test_a_parameter_of_one_value_has_no_axis():
    assert scale_of(CategoricalDistribution(("only",))) is None
    assert scale_of(IntDistribution(3, 3)) is None


def test_a_trial_far_below_does_not_hide_the_others():
    low, high = span([-1e9, -5.0, -4.0, -3.5, -3.0])
    assert -7.0 < low < -5.0
    assert high > -3.0
    assert span([2.0]) == (1.5, 2.5)
