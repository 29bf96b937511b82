"""What becomes of trials that crash; who is to blame is in test_crash."""

import pytest
from ray.exceptions import (
    ActorDiedError,
)
from ray.tune.experiment import Trial
from sweeping import raised, report

from sweep import space
from sweep.crash import (
    MOST_CRASHES,
    NODE,
    NODES_KILLED,
    OUTDATED,
    PLACES,
    SETUP,
    STANDSTILL_SECONDS,
    TRIAL,
    WORKER,
    Crash,
    SetupError,
    Standstill,
    most_crashes,
)
from sweep.finals import _FinalsCallback
from sweep.live import FinalsView
from sweep.proposal import key_of, propose
from sweep.rungs import STOPPING
from sweep.scheduler import Asha
from sweep.seeds import FinalRun, decide
from sweep.workers import keep_error, known


@pytest.fixture
def asha(make_study):
    return Asha(make_study(trials=9), lambda: False)


def crash(asha, blamed, times=1):
    """The trial that is next crashes, again and again; as it is then."""
    for _ in range(times):
        record = asha.next()
        record.state = "running"
        asha.crashed(record.number, Crash(blamed, "said"))
    return record


@pytest.fixture
def told():
    """What a sweep that stops is told of."""
    return []


@pytest.fixture
def tell(told):
    """Takes a reason, and a way out."""
    return lambda *words: told.append(words)


@pytest.fixture
def few(make_study, told, tell):
    """A search of three trials, which stops when it is told to."""
    return Asha(make_study(trials=3), lambda: bool(told), Standstill(tell))


@pytest.mark.parametrize("blamed", PLACES)
def test_a_trial_that_no_place_takes_is_tried_last_and_where_none_trains_the_search_stops(
    few, told, blamed, monkeypatch
):
    (trains,) = hand_out(few, 1)
    record = crash(few, blamed, MOST_CRASHES[blamed])
    assert few.next() is record  # first
    few.crashed(record.number, Crash(blamed, "said"))
    (third,) = hand_out(few, 1)
    assert hand_out(few, 1) == [record]  # nothing else is left
    few.crashed(record.number, Crash(blamed, "said"))
    monkeypatch.setattr("sweep.crash.STANDSTILL_SECONDS", 0.0)
    few.crashed(record.number, Crash(blamed, "said"))
    assert told == []  # for two train
    few.judge(trains.number, report(1, -5.0))
    few.study.finish(trains.number, "stopped")
    few.crashed(third.number, Crash(blamed, "said"))
    few.crashed(record.number, Crash(blamed, "said"))
    assert told == [("no trial can be trained: said", "mend that")]
    assert few.next() is None
    assert (record.state, third.state, record.lost) == ("paused", "paused", False)


def test_a_checkpoint_of_another_version_stops_the_search_and_costs_no_trial(few, told):
    hand_out(few, 2)
    record = crash(few, OUTDATED)
    assert told == [("said", "check out the version that it was begun with")]
    assert few.next() is None
    assert record.state == "paused"


def test_where_a_market_takes_machines_back_a_trial_is_lost_with_the_fourth_and_not_to_blame(make_study):
    asha = Asha(make_study(trials=3), lambda: False, blames=False)
    hand_out(asha, 2)
    record = crash(asha, NODE, MOST_CRASHES[NODE])
    assert record.state == "paused"
    assert crash(asha, NODE) is record
    assert (record.state, record.lost) == ("failed", True)


def test_where_a_market_takes_machines_back_nobody_is_suspected(make_study):
    asha = Asha(make_study(trials=9), lambda: False, blames=False)
    records = hand_out(asha, 2)
    for _ in range(NODES_KILLED):
        lose_node(asha, records)
        assert hand_out(asha, 2) == records  # both at once, before anything new


def test_a_trial_that_is_lost_can_win_and_takes_no_place_at_rungs(make_study):
    alone = ("dense",)
    asha = Asha(make_study(trials=8, families=alone), lambda: False, blames=False)
    for record in hand_out(asha, 3):
        record.state = asha.judge(record.number, report(1, -4.0 - record.number))
    (best,) = hand_out(asha, 1)
    assert best.number == 0
    for _ in range(MOST_CRASHES[NODE] + 1):
        best.state = "running"
        asha.crashed(best.number, Crash(NODE, "said"))
    for study in (asha.study, make_study(trials=8, families=alone)):
        assert (study.records[0].state, study.top(1)) == ("failed", [study.records[0]])
        assert study.standings.best(1, 9) == [1, 2]


@pytest.mark.parametrize("moves", [Standstill.on_checkpoint, Standstill.on_trial_complete])
def test_a_search_that_saves_or_ends_trials_does_not_stand_still(told, tell, monkeypatch, moves):
    now = 1000.0
    monkeypatch.setattr("sweep.crash.time.monotonic", lambda: now)
    standstill = Standstill(tell)
    now += STANDSTILL_SECONDS
    moves(standstill)
    for seconds, stands_still in ((STANDSTILL_SECONDS, False), (1.0, True)):
        now += seconds
        standstill.check(Crash(SETUP, "said"), 99, others_train=False)
        assert bool(told) == stands_still
    standstill.check(Crash(WORKER, "said"), 99, others_train=False)
    assert len(told) == 1


@pytest.mark.parametrize("blamed", PLACES)
def test_a_trial_that_no_place_takes_again_and_again_is_lost(few, told, blamed):
    hand_out(few, 2)
    record = crash(few, blamed, most_crashes(blamed))
    assert record.state == "paused"
    assert crash(few, blamed) is record
    assert (record.state, record.lost, told) == ("failed", True, [])


def test_final_runs_of_which_none_can_be_trained_end_and_are_left(told, tell, folder, monkeypatch):
    monkeypatch.setattr("sweep.crash.STANDSTILL_SECONDS", 0.0)
    run, put_back = FinalRun(trial=3, seed=0, params={}, epochs=9), []
    with FinalsView([run]) as view:
        callback = _FinalsCallback({run.folder: run}, folder, view, put_back.append, Standstill(tell))
        trial = Trial("test", stub=True, config={"folder": run.folder})
        keep_error(trial, known(ActorDiedError(raised(SetupError("no GPU")))))
        for _ in range(MOST_CRASHES[SETUP] + 1):
            assert told == []
            callback.on_trial_error(0, [trial], trial)
    assert told == [("no trial can be trained: its worker could not be set up: SetupError: no GPU", "mend that")]
    assert (run.failure, len(put_back)) == (None, MOST_CRASHES[SETUP] + 1)
    assert decide([run], 0.1) is None


SURVIVED = {blamed: most_crashes(blamed) for blamed in MOST_CRASHES} | {NODE: NODES_KILLED - 1}
"""By a trial that no other shares its nodes with."""


@pytest.mark.parametrize("blamed", [TRIAL, WORKER, NODE])
def test_a_trial_survives_so_many_crashes(asha, blamed):
    """And each time it comes back before anything new."""
    if SURVIVED[blamed]:
        assert crash(asha, blamed, SURVIVED[blamed]).state == "paused"
    record = crash(asha, blamed)
    assert (record.number, record.state) == (0, "failed")
    assert record.failure == ("said" if blamed == TRIAL else f"said ({SURVIVED[blamed] + 1} times)")
    assert asha.next().number == 1


def hand_out(asha, count):
    """The next trials, which train from now on."""
    records = [asha.next() for _ in range(count)]
    for record in records:
        record.state = "running"
    return records


def lose_node(asha, records):
    """The node dies on which some trials train."""
    for record in records:
        asha.crashed(record.number, Crash(NODE, "said"))


def test_of_trials_that_shared_two_dead_nodes_only_the_killer_fails(asha):
    """Each is tried without the others; the killer's next node tells."""
    records = hand_out(asha, 3)
    innocent, killer, neighbour = records
    lose_node(asha, records)
    assert hand_out(asha, 3) == records
    lose_node(asha, records)
    assert hand_out(asha, 1) == [innocent]
    (new,) = hand_out(asha, 1)  # the others wait meanwhile
    assert new not in records
    asha.judge(innocent.number, report(1, -5.0))
    assert hand_out(asha, 1) == [killer]
    lose_node(asha, [new, killer])
    assert (killer.state, killer.failure) == ("failed", "said (3 times)")
    assert hand_out(asha, 2) == [neighbour, new]
    asha.judge(neighbour.number, report(1, -5.0))
    assert [record.state for record in (innocent, neighbour, new)] == ["running", "running", "running"]


def test_a_node_that_was_gone_before_a_trial_trained_there_was_not_killed_by_it(asha):
    crash(asha, NODE)
    record = asha.next()
    asha.crashed(record.number, Crash(NODE, "said"))
    assert record.state == "paused"


SEED = 1
"""Of a sweep whose thirteenth trial TPE draws."""


@pytest.mark.parametrize(
    ("blamed", "blames", "learns"),
    [(TRIAL, True, True), (WORKER, True, True), (NODE, True, True), (NODE, False, False)],
)
def test_what_is_lost_by_no_fault_of_its_own_teaches_nothing(make_study, blamed, blames, learns):
    """The next draw is one of the other trials alone; what fails by itself, or kills its nodes, counts."""
    study = make_study(trials=30, seed=SEED)
    asha = Asha(study, lambda: False, blames=blames)
    for number in range(8):
        asha.judge(asha.next().number, report(1, -5.0 - number))
        study.finish(number, "stopped")
    for _ in range(4):
        crash(asha, blamed, (SURVIVED if blames else MOST_CRASHES)[blamed] + 1)
    assert study.counts()["failed"] == 4
    known = make_study(trials=30, seed=SEED).drawn()  # the journal has it too
    tried = {key_of(trial.params) for trial in known}
    others = propose(
        known[:8], lambda trial: space.suggest(trial, study.settings.task), SEED * 1_000_003 + len(known), tried
    )
    study.ask()
    assert (study.drawn()[-1].params != others) is learns


def test_lost_nodes_do_not_add_to_killed_workers(asha):
    crash(asha, NODE)
    assert crash(asha, WORKER, 2).state == "paused"
    assert crash(asha, WORKER).state == "failed"


@pytest.mark.parametrize("blamed", [WORKER, NODE])
def test_only_crashes_without_a_new_epoch_in_between_add_up(make_study, blamed):
    asha = Asha(make_study(trials=9, scheduler=STOPPING), lambda: False)
    record = crash(asha, blamed, SURVIVED[blamed])
    for epoch in (4, 5):  # between rungs
        assert hand_out(asha, 1) == [record]
        assert asha.judge(record.number, report(epoch, -5.0)) is None
        asha.crashed(record.number, Crash(blamed, "said"))
        assert record.state == "paused"
        for _ in range(SURVIVED[blamed] - 1):
            assert crash(asha, blamed).state == "paused"
    hand_out(asha, 1)
    for epoch in (4, 5):  # again, from an older checkpoint
        asha.judge(record.number, report(epoch, -5.0))
    asha.crashed(record.number, Crash(blamed, "said"))
    assert record.state == "failed"


def test_crashes_count_across_a_resume(asha, make_study):
    crash(asha, WORKER, 2)
    again = Asha(make_study(trials=9), lambda: False)
    assert crash(again, WORKER).failure == "said (3 times)"


def test_a_trial_that_crashes_once_it_has_been_to_its_rung_waits_there(asha):
    number = asha.next().number
    asha.judge(number, report(1, -5.0))
    asha.crashed(number, Crash(WORKER, "said"))
    assert asha.study.records[number].waits
    assert asha.next().number == 1


def test_a_trial_that_has_ended_does_not_crash(asha):
    record = asha.next()
    asha.study.finish(record.number, "stopped")
    asha.crashed(record.number, Crash(TRIAL, "said"))
    assert (record.state, record.failure) == ("stopped", None)
