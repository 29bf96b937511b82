"""When a search ends early."""

import signal

import pytest

from sweep.callback import Clock
from sweep.stop import GRACE_SECONDS, Stop


@pytest.fixture
def now(monkeypatch):
    """A clock to set, seconds since the first trial began at 1000."""
    at = [0.0]
    monkeypatch.setattr("sweep.stop.time.time", lambda: 1000.0 + at[0])
    return at


@pytest.fixture
def stop_of():
    def make(budget=None, patience=None, ended=lambda: 0.0):
        clock = Clock(990.0, {})
        clock.first_trial_started = 1000.0
        return Stop(budget, patience, clock, ended)

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
