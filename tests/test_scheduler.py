"""ASHA's rungs and decisions."""

import math

import pytest
from ray.tune.experiment import Trial

from sweep.record import Report
from sweep.rungs import PROMOTION, STOPPING, rungs
from sweep.scheduler import MOST_WAITING, Asha

ALONE = ("dense",)
"""Trials of one family compete as of ASHA itself."""


@pytest.mark.parametrize(
    ("max_epochs", "expected"), [(27, (1, 3, 9, 27)), (9, (1, 3, 9)), (20, (1, 3, 9, 20)), (1, (1,)), (2, (1, 2))]
)
def test_rungs_grow_threefold_up_to_max_epochs(max_epochs, expected):
    assert rungs(max_epochs) == expected


def report(epoch, val_elbo, kl=0.2, failure=None):
    metrics = {"epoch": epoch, "val_elbo": val_elbo, "kl": kl, "code_gain": 1.0}
    return Report(epoch, [] if failure else [metrics], metrics, 1.0, "here", failure)


@pytest.fixture
def asha(make_study):
    study = make_study(trials=20, scheduler=STOPPING, families=ALONE)
    for _ in range(6):
        study.ask()
    return Asha(study, lambda: False)


@pytest.fixture
def promoting(make_study):
    return Asha(make_study(trials=60, families=ALONE), lambda: False)


def run_to(asha, epoch, val_elbo):
    """The next trial runs to a rung; its number, and how it ended there."""
    record = asha.next()
    end = asha.judge(record.number, report(epoch, val_elbo))
    record.state = end or "running"
    return record.number, end


def test_a_trial_goes_on_between_rungs_whatever_its_value(asha):
    asha.judge(0, report(1, -5.0))
    assert asha.judge(0, report(2, -500.0)) is None


def test_the_worse_of_two_is_stopped_at_a_rung(asha):
    assert asha.judge(2, report(1, -5.0)) is None
    assert asha.judge(3, report(1, -6.0)) == "stopped"


@pytest.mark.parametrize("kind", [PROMOTION, STOPPING])
def test_a_family_that_is_behind_by_less_than_a_rung_is_shown_to_the_top(make_study, kind):
    """And another, which is further behind, is not."""
    families = ("sequential", "hierarchical", "transformer")
    asha = Asha(make_study(trials=40, scheduler=kind, families=families), lambda: False)
    slow = {
        "sequential": {1: -7.3, 3: -5.5, 9: -4.7, 27: -4.3},
        "hierarchical": {1: -7.1, 3: -5.3, 9: -4.8, 27: -4.6},
        "transformer": {1: -8.9, 3: -7.4},
    }
    for _ in range(40):
        record = asha.next()
        end = None
        while end is None:
            rung = next(rung for rung in asha.rungs if rung > record.epoch)
            end = asha.judge(record.number, report(rung, slow[record.family][rung] - 1e-3 * record.number))
        record.state = end
    tops = {family: max(r.epoch for r in asha.study.records.values() if r.family == family) for family in families}
    assert tops == {"sequential": 27, "hierarchical": 27, "transformer": 3}


def test_half_of_the_epochs_are_left_to_those_that_show_nothing(make_study):
    families = ("sequential", "hierarchical", "recurrent")
    asha = Asha(make_study(trials=60, families=families), lambda: False)
    standings, led = asha.study.standings, []
    while (record := asha.next()) is not None:
        if record.epoch > 0:
            better = standings.better(record.family, record.epoch, record.values[record.epoch])
            if better >= standings.count(record.epoch) // 3:
                led.append((record.family, min(record.goal, 27)))
                others = sorted(standings.reached(family) for family in families if family != record.family)
                assert led[-1][1] + sum(others[:-1]) <= standings.epochs / 2  # the furthest goes on anyway
        end = None
        while end is None:
            rung = next(rung for rung in asha.rungs if rung > record.epoch)
            end = asha.judge(record.number, report(rung, -9.0 + rung / 9 + families.index(record.family) / 99))
        record.state = end
    assert ("sequential", 27) in led


def test_a_trial_of_a_family_that_learns_slowly_is_promoted_by_what_it_may_come_to(make_study):
    study = make_study(trials=60, families=("sequential", "hierarchical"))
    asha = Asha(study, lambda: False)
    for values in ({1: -7.3, 3: -5.5, 9: -4.7, 27: -4.3}, {1: -7.1, 3: -5.3, 9: -4.8, 27: -4.6}):
        number = study.ask(goal=1).number
        for rung, value in values.items():
            end = asha.judge(number, report(rung, value))
        study.finish(number, end)
    wait = {"sequential": -7.25, "hierarchical": -7.05}
    numbers = {}
    while len(numbers) < len(wait):
        record = study.ask(goal=1)
        numbers.setdefault(record.family, record.number)
        record.state = "paused"
        study.report(record.number, report(1, wait[record.family]), rung=True)
    assert asha.next().number == numbers["sequential"]


def test_a_better_value_without_the_kl_ranks_lower(asha):
    assert asha.judge(2, report(1, -5.0, kl=0.2)) is None
    assert asha.judge(3, report(1, -4.5, kl=0.0)) == "stopped"  # 10 * 0.1 nats are taken off


def test_a_trial_completes_at_the_top_rung(asha):
    assert asha.judge(0, report(27, -5.0)) == "completed"


def test_a_failure_ends_a_trial_at_once_and_leaves_no_value(asha):
    assert asha.judge(0, report(1, -5.0, failure="diverged in epoch 2")) == "failed"
    assert asha.study.records[0].values == {}
    assert asha.judge(2, report(1, -900.0)) is None  # nothing to compare with


def test_trials_that_fail_later_give_their_places_to_others(make_study):
    asha = Asha(make_study(trials=60, families=ALONE), lambda: False)
    for record in [asha.next() for _ in range(6)]:
        record.state = asha.judge(record.number, report(1, -4.0 - record.number))
    others = [2, 3, 4, 5]
    for number in (0, 1):
        assert asha.next().number == number
        assert asha.judge(number, report(2, -4.0, failure="diverged in epoch 2")) == "failed"
        asha.study.finish(number, "failed", "diverged in epoch 2")
    for study in (asha.study, make_study(trials=60, families=ALONE)):  # read back too
        assert study.standings.best(1, 9) == others
    assert asha.next().number == others[0]


def test_a_trial_that_was_stopped_when_the_driver_died_is_stopped(make_study):
    asha = Asha(make_study(trials=20, scheduler=STOPPING, families=ALONE), lambda: False)
    for _ in asha.study.settings.task.families:
        run_to(asha, 3, -4.0)
    number, end = run_to(asha, 3, -9.0)
    assert end == "stopped"
    survivor, _ = run_to(asha, 3, -3.0)
    for value in (-2.0, -1.0):
        run_to(asha, 3, value)
    again = Asha(make_study(trials=20, scheduler=STOPPING, families=ALONE), lambda: False)
    handed_out = [again.next().number for _ in range(number + 1)]
    assert number not in handed_out
    assert survivor in handed_out  # though by now it is not among the best third
    assert again.study.records[number].state == "stopped"


def test_a_trial_that_comes_to_a_rung_again_is_not_judged_again(make_study):
    asha = Asha(make_study(trials=20, scheduler=STOPPING, families=ALONE), lambda: False)
    first, end = run_to(asha, 3, -4.0)
    assert end is None
    for value in (-3.0, -2.0, -1.0):
        run_to(asha, 3, value)
    for scheduler in (asha, Asha(make_study(trials=20, scheduler=STOPPING, families=ALONE), lambda: False)):
        assert scheduler.judge(first, report(3, -4.0)) is None


@pytest.mark.parametrize("kind", [PROMOTION, STOPPING])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_finite_number_fails_and_counts_nowhere(make_study, kind, value):
    asha = Asha(make_study(trials=20, scheduler=kind, families=ALONE), lambda: False)
    told = {"val_elbo": report(1, value), "kl": report(1, -5.0, kl=value)}
    for number, (name, bad) in enumerate(told.items()):
        assert asha.next().number == number
        assert asha.judge(number, bad) == "failed"
        record = asha.study.records[number]
        assert (record.values, record.failure) == ({}, f"diverged in epoch 1: {name} is {value:g}")


def test_a_bad_value_between_rungs_fails_too(asha):
    asha.judge(0, report(1, -5.0))
    assert asha.judge(0, report(2, math.nan)) == "failed"


def test_the_first_to_come_to_a_rung_wait_for_others(promoting):
    assert [run_to(promoting, 1, value) for value in (-5.0, -6.0)] == [(0, "paused"), (1, "paused")]


def test_one_of_the_best_third_goes_on_at_once(promoting):
    for value in (-5.0, -6.0):
        run_to(promoting, 1, value)
    assert run_to(promoting, 1, -4.0) == (2, None)
    assert promoting.study.records[2].goal == 3


def test_who_waits_is_promoted_once_enough_have_come(promoting):
    for value in (-5.0, -6.0, -7.0):
        run_to(promoting, 1, value)
    record = promoting.next()
    assert (record.number, record.goal) == (0, 3)
    assert promoting.next().number == 3  # only one in three


def test_the_highest_rung_is_promoted_from_first(promoting):
    for at_three in (-2.0, -3.0, -4.0):
        for value in (-5.0, -6.0, -7.0):
            run_to(promoting, 1, value)
        run_to(promoting, 3, at_three)
    waiting = [record for record in promoting.study.records.values() if record.waits]
    assert sorted(record.epoch for record in waiting) == [1, 1, 1, 1, 1, 1, 3, 3, 3]
    assert promoting.next().goal == 9


def test_what_goes_on_takes_a_worker_before_what_was_handed_out_to_begin(promoting):
    for number in range(3):
        run_to(promoting, 1, -4.0 - number)
    begins, goes_on = promoting.study.ask(1), promoting.next()
    assert goes_on.number == 0
    trials = [Trial("made up", config={"number": r.number, "turn": r.turn}, stub=True) for r in (begins, goes_on)]
    assert min(trials, key=promoting.place) is trials[1]


def test_a_trial_cut_off_runs_to_its_goal_before_it_is_judged_again(promoting, make_study):
    for value in (-5.0, -6.0, -7.0):
        run_to(promoting, 1, value)
    assert promoting.next().number == 0
    again = Asha(make_study(trials=60, families=ALONE), lambda: False)
    assert again.next().number == 0
    assert again.judge(0, report(1, -5.0)) is None
    assert again.judge(0, report(3, -4.0)) == "paused"


def test_of_too_many_that_wait_the_worst_ends(promoting):
    """More are new than can be promoted: each is worse than the one before."""
    for number in range(60):
        record = promoting.study.ask(goal=1)
        record.state = promoting.judge(number, report(1, -float(number))) or "running"
    counts = promoting.study.counts()
    assert counts["paused"] == MOST_WAITING
    assert counts["stopped"] == 60 - MOST_WAITING
    assert [n for n, record in promoting.study.records.items() if record.waits] == list(range(MOST_WAITING))


def test_who_waits_in_vain_is_stopped_at_the_end(promoting, make_study):
    for value in (-5.0, -6.0):
        run_to(promoting, 1, value)
    promoting.study.end()
    assert [promoting.study.records[number].state for number in (0, 1)] == ["stopped", "stopped"]
    again = make_study(trials=61, families=ALONE)
    assert again.over
    assert [again.records[number].state for number in (0, 1)] == ["stopped", "stopped"]
    again.go_on(61)
    more = Asha(again, lambda: False)  # more trials may have them promoted after all
    assert [record.number for record in more.study.waiting()] == [0, 1]
    run_to(more, 1, -7.0)
    assert more.next().number == 0
