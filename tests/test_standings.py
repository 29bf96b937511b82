"""How trials of several families compare at rungs."""

import random

import pytest

from sweep.rungs import rungs
from sweep.standings import Standings

RUNGS = rungs(27)
SLOW, QUICK, OTHER = "sequential", "hierarchical", "dense"


def standings_of(*trials):
    """Of trials by family and values at rungs, numbered as they come."""
    standings = Standings(RUNGS)
    for number, (family, values) in enumerate(trials):
        for rung in values:
            standings.add(number, family, {r: v for r, v in values.items() if r <= rung}, rung)
    return standings


@pytest.mark.parametrize(
    ("value", "others", "better"),
    [(1.0, [], 0), (1.0, [2.0], 1), (2.0, [3.0, 1.0, 0.0], 1), (2.0, [2.0, 2.0], 0), (-9.0, [1.0, 1.0], 2)],
)
def test_within_a_family_values_compare(value, others, better):
    standings = standings_of(*((QUICK, {1: other}) for other in (*others, value)))
    assert standings.better(QUICK, 1, value) == better
    assert standings.count(1) == len(others) + 1


def test_a_value_gains_what_its_family_has_gained_in_the_median():
    curves = [{1: -9.0, 3: -7.0, 9: -5.0}, {1: -9.0, 3: -6.0}, {1: -9.0, 3: -6.5}, {1: -8.0}]
    standings = standings_of(*((SLOW, curve) for curve in curves))
    assert standings.gain(SLOW, 1) == 2.5 + 2.0
    assert standings.gain(SLOW, 3) == 2.0
    assert standings.gain(SLOW, 9) == standings.gain(SLOW, 27) == 0.0  # nobody has been to the top


def test_a_family_that_has_come_less_far_gains_from_there_what_all_have():
    standings = standings_of((SLOW, {1: -9.0, 3: -6.0}), (QUICK, {1: -8.0, 3: -6.0, 9: -5.5}))
    assert standings.gain(SLOW, 1) == 3.0 + 0.5
    assert standings.gain(OTHER, 1) == 2.5 + 0.5


def test_families_compare_by_what_they_may_come_to():
    standings = standings_of(
        (SLOW, {1: -9.0, 3: -6.0}), (QUICK, {1: -8.0, 3: -5.9}), (SLOW, {1: -8.95}), (QUICK, {1: -8.2})
    )
    assert standings.better(SLOW, 1, -8.95) == 1  # -5.95, and the others -6.0, -5.9 and -6.1
    assert standings.better(QUICK, 1, -8.2) == 3
    assert standings.best(1, 3) == [1, 2, 0]


def test_who_leads_a_family_shows_what_it_may_come_to():
    standings = standings_of(
        (SLOW, {1: -9.0}), (SLOW, {1: -8.5}), (QUICK, {1: -7.0, 3: -5.0}), (OTHER, {1: -9.0, 3: -7.1})
    )
    assert [standings.leads(number, SLOW, 1) for number in (0, 1)] == [False, True]
    assert not standings.leads(2, QUICK, 1)  # it has been to the next
    assert standings.leads(2, QUICK, 3)
    assert not standings.leads(3, OTHER, 3)  # it is behind by a rung: the best had -7.0 at the one before


def test_at_the_top_nobody_leads():
    assert not standings_of((SLOW, dict.fromkeys(RUNGS, -5.0))).leads(0, SLOW, 27)


def test_what_is_removed_counts_nowhere():
    """In whatever order trials come and go."""
    dice = random.Random(0)
    trials = [
        (dice.choice([SLOW, QUICK, OTHER]), {rung: dice.uniform(-9.0, -5.0) for rung in RUNGS[: dice.randint(1, 4)]})
        for _ in range(60)
    ]
    standings, kept = standings_of(*trials), [(n, *trial) for n, trial in enumerate(trials) if n % 3]
    for number, (family, values) in enumerate(trials):
        if number % 3 == 0:
            standings.gain(family, 1)
            standings.remove(number, family, values)
    expected = Standings(RUNGS)
    for number, family, values in kept:
        for rung in values:
            expected.add(number, family, {r: v for r, v in values.items() if r <= rung}, rung)
    for family in (SLOW, QUICK, OTHER):
        for rung in RUNGS:
            assert standings.gain(family, rung) == expected.gain(family, rung)
            assert standings.best(rung, 99) == expected.best(rung, 99)
            assert standings.better(family, rung, -7.0) == expected.better(family, rung, -7.0)
