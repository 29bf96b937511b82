"""When a search ends early, and final runs; what is said of that at the end."""

import signal
from dataclasses import replace

import pytest
from sweeping import report

from sweep.callback import Clock
from sweep.finals import _End
from sweep.run import _tell_left
from sweep.stop import GRACE_SECONDS, Stop


@pytest.fixture
def now(monkeypatch):
    """A clock to set, seconds since the first trial began at 1000."""
    at = [0.0]
    monkeypatch.setattr("sweep.stop.time.time", lambda: 1000.0 + at[0])
    return at


@pytest.fixture
def stop_of():
    def make(budget=None, patience=None, ended=lambda: 0.0, room=None):
        clock = Clock(990.0, {})
        clock.first_trial_started = 1000.0
        return Stop(budget, patience, clock, ended, room=room)

    return make


def test_a_search_without_limits_goes_on(stop_of, now):
    stop = stop_of()
    now[0] = 1e6
    assert not stop.asked()
    assert not stop.stop_all()
    assert stop.left() is None


def test_the_budget_is_asked_for_first_and_cut_off_later(stop_of, now):
    stop = stop_of(budget=60.0)
    now[0] = 59.0
    assert (stop.asked(), stop.left()) == (False, 1.0)
    now[0] = 61.0
    assert (stop.asked(), stop.stop_all()) == (True, False)
    now[0] = 60.0 + GRACE_SECONDS + 1.0
    assert stop.stop_all()


def test_a_budget_counts_from_the_resume_whatever_was_searched_before(now):
    clock = Clock(990.0, {"search_seconds": 1e6})
    stop = Stop(60.0, None, clock, lambda: 0.0)
    assert (stop.left(), stop.spent(), stop.asked()) == (60.0, 0.0, False)
    clock.first_trial_started = 1000.0
    now[0] = 10.0
    assert stop.left() == 50.0


def test_what_takes_more_than_a_minute_after_a_signal_is_cut_off(stop_of, now):
    stop = stop_of()
    stop.catch(signal.SIGINT, None)
    now[0] = GRACE_SECONDS - 1.0
    assert not stop.stop_all()
    now[0] = GRACE_SECONDS + 1.0
    assert stop.stop_all()


def test_a_disk_that_is_nearly_full_stops_a_search_once_and_says_so(stop_of, capsys):
    room = [1]
    stop = stop_of(room=lambda: room[0])
    assert not stop.asked()
    room[0] = 0
    for _ in range(2):
        assert stop.asked()
    assert stop.interrupted
    assert stop.failure == "the disk is nearly full, so the sweep has stopped; make room"
    assert capsys.readouterr().err == "\nstopping: the disk is nearly full\n"


def test_the_first_signal_asks_and_the_second_insists(stop_of, capsys):
    stop = stop_of()
    stop.catch(signal.SIGINT, None)
    assert (stop.interrupted, stop.asked(), stop.stop_all()) == (True, True, False)
    stop.catch(signal.SIGINT, None)
    assert stop.stop_all()
    assert "every trial is kept" in capsys.readouterr().err


def test_a_third_signal_is_heard_by_what_waits(stop_of):
    stop, before = stop_of(), signal.getsignal(signal.SIGINT)
    try:
        signal.signal(signal.SIGINT, stop.catch)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_patience_counts_in_the_share_of_time(stop_of, now):
    stop = stop_of(budget=100.0, patience=0.3)
    now[0] = 50.0
    assert not stop.asked()  # nothing yet that could be bettered
    stop.bettered()
    now[0] = 79.0
    assert not stop.asked()
    now[0] = 81.0
    assert stop.asked()
    assert stop.impatient
    assert not stop.interrupted
    stop.bettered()  # by a trial that saves itself because it was asked to stop
    assert stop.asked()


def test_patience_waits_for_the_best_trial_to_come_to_a_rung(now):
    clock, trains_on = Clock(990.0, {}, 1000.0), [True]
    stop = Stop(100.0, 0.3, clock, lambda: 0.0, lambda: bool(trains_on))
    stop.bettered()
    now[0] = 50.0
    assert not stop.impatient
    trains_on.clear()
    assert stop.impatient


def test_patience_counts_in_the_share_of_trials(stop_of):
    ended = [0.1]
    stop = stop_of(patience=0.5, ended=lambda: ended[0])
    stop.bettered()
    ended[0] = 0.59
    assert not stop.impatient
    ended[0] = 0.61
    assert stop.impatient


def test_patience_that_has_ended_cuts_nothing_off(stop_of, now):
    ended = [0.1]
    stop = stop_of(patience=0.5, ended=lambda: ended[0])
    stop.bettered()
    ended[0], now[0] = 0.7, 1e6
    assert stop.asked()
    now[0] = 2e6
    assert not stop.stop_all()


def test_final_runs_end_at_their_last_epoch_at_a_failure_and_when_a_person_asks(stop_of, now):
    stop = stop_of()
    end = _End(stop, epochs=9)

    def ends(epoch, failure=None):
        return end("a run", {"report": replace(report(epoch, -5.0), failure=failure)})

    assert [ends(8), ends(9), ends(8, "diverged")] == [False, True, True]
    stop.catch(signal.SIGINT, None)
    assert ends(1)
    assert not end.stop_all()
    now[0] = GRACE_SECONDS + 1.0
    assert end.stop_all()


@pytest.mark.parametrize(
    ("happened", "said"),
    [
        ({}, ""),
        ({"cut_short": True}, "not all final runs ended; go on with: AGAIN\n"),
        ({"interrupted": True}, "not all trials ended, and there were no final runs; go on with: AGAIN\n"),
        ({"interrupted": True, "final_seeds": 1}, "not all trials ended; go on with: AGAIN\n"),
        (
            {"interrupted": True, "trials": None},
            "not all trials ended, and there were no final runs; go on with: AGAIN --time-budget 1h\n",
        ),
        ({"trials": 2}, "to search on: AGAIN --time-budget 1h\n"),
        ({"trials": None}, "to search on: AGAIN --time-budget 1h\n"),
        ({"state": "paused"}, "to search on: AGAIN --time-budget 1h\n"),
        ({"impatient": True}, "to search on: AGAIN --time-budget 1h\n"),
    ],
)
def test_what_a_resume_would_go_on_with_is_said_if_there_is_anything(left, happened, said, folder):
    assert left(**happened) == said.replace("AGAIN", f"python -m sweep.run {folder.again}")


@pytest.fixture
def left(make_study, stop_of, folder, capsys):
    """What is said of a sweep of which a trial has begun."""

    def tell(trials=1, state="stopped", final_seeds=3, interrupted=False, impatient=False, cut_short=False):
        study, ended = make_study(trials, final_seeds=final_seeds), [0.0]
        study.ask().state = state
        stop = stop_of(patience=0.5, ended=lambda: ended[0])
        stop.bettered()
        ended[0] = float(impatient)
        assert stop.asked() == impatient
        if interrupted:
            stop.catch(signal.SIGINT, None)
        _tell_left(study, stop, cut_short, folder)
        return capsys.readouterr().out

    return tell
