"""Optuna's proposals as Ray Tune asks for them."""

import pytest
from ray.tune.experiment import Trial
from ray.tune.search import Searcher
from sweeping import report

from sweep.crash import WORKER, Crash
from sweep.record import Report
from sweep.rungs import STOPPING
from sweep.scheduler import Asha
from sweep.searcher import StudySearcher


@pytest.fixture
def stopping():
    return []


@pytest.fixture
def searcher_of(make_study, stopping):
    def make(trials=3):
        study = make_study(trials)
        asha = Asha(study, lambda: bool(stopping))
        return study, StudySearcher(asha, lambda: bool(stopping), lambda prefix: f"checkpoint-{int(prefix[:-1])}")

    return make


def test_it_hands_out_numbers_and_params_until_there_are_no_more(searcher_of):
    study, searcher = searcher_of(trials=2)
    configs = [searcher.suggest(name) for name in "ab"]
    assert [config["number"] for config in configs] == [0, 1]
    assert [config["params"] for config in configs] == [study.records[0].params, study.records[1].params]
    assert all(config["checkpoint"] is None for config in configs)
    assert searcher.suggest("c") is None  # they may be promoted


def test_a_trial_that_waits_is_handed_out_again_once_it_is_saved_and_promoted(searcher_of):
    _, searcher = searcher_of(trials=3)
    for name, value in zip("abc", (-5.0, -6.0, -7.0), strict=True):
        number = searcher.suggest(name)["number"]
        searcher._scheduler.judge(number, report(1, value))
    assert searcher.suggest("d") is None
    searcher.on_trial_complete("b")
    assert searcher.suggest("d") is None
    searcher.on_trial_complete("a")
    config = searcher.suggest("d")
    assert (config["number"], config["turn"], config["checkpoint"]) == (0, 4, "checkpoint-0")


def test_the_search_is_over_when_some_wait_and_nothing_else_can_come(searcher_of):
    study, searcher = searcher_of(trials=1)
    searcher.suggest("a")
    searcher._scheduler.judge(0, report(1, -5.0))
    assert searcher.suggest("b") is None
    searcher.on_trial_complete("a")
    assert searcher.suggest("b") == Searcher.FINISHED
    assert study.records[0].waits


def test_nothing_is_proposed_once_the_sweep_is_asked_to_stop(searcher_of, stopping):
    study, searcher = searcher_of()
    stopping.append(True)
    assert searcher.suggest("a") == Searcher.FINISHED
    assert study.records == {}


def test_a_trial_cut_off_earlier_goes_on_from_its_newest_checkpoint(searcher_of):
    searcher_of()[1].suggest("a")
    config = searcher_of()[1].suggest("b")
    assert (config["number"], config["checkpoint"]) == (0, "checkpoint-0")


def test_a_trial_that_lost_its_worker_is_handed_out_again_before_anything_new(searcher_of):
    """From its newest checkpoint, and in a turn of its own: each has a folder."""
    study, searcher = searcher_of()
    for name in "ab":
        searcher.suggest(name)
    searcher._scheduler.crashed(0, Crash(WORKER, "its worker died"))
    searcher.on_trial_complete("a", error=True)
    searcher.on_trial_complete("b")
    assert [study.records[number].state for number in (0, 1)] == ["paused", "paused"]
    config = searcher.suggest("c")
    assert (config["number"], config["turn"], config["checkpoint"]) == (0, 3, "checkpoint-0")


def test_a_trial_that_the_scheduler_ended_is_not_ended_again(searcher_of):
    study, searcher = searcher_of()
    searcher.suggest("a")
    study.report(0, Report(0, [], {}, 0.0, "here", "diverged"), rung=False)
    study.finish(0, "failed", "diverged")
    searcher.on_trial_complete("a", error=True)
    assert study.records[0].failure == "diverged"


@pytest.mark.parametrize("saved", [0, 1, 3])
def test_who_waits_unsaved_is_trained_again_to_its_rung_and_waits_there(searcher_of, saved):
    """Killed after its report, and before its checkpoint."""
    searcher = searcher_of(trials=1)[1]
    searcher.suggest("a")
    searcher._scheduler.study.promote(0, goal=3)
    for epoch in (1, 3):
        ended = searcher._scheduler.judge(0, report(epoch, -5.0))
    assert ended == "paused"
    study, again = searcher_of(trials=2)  # killed here
    study.miss(lambda _: saved, 5)
    config = again.suggest("b")
    assert (config["number"], config["epoch"]) == ((1, 0) if saved == 3 else (0, saved))
    if saved < 3:
        assert again._scheduler.judge(0, report(3, -5.0)) == "paused"
        again.on_trial_complete("b")
        assert study.records[0].waits


def test_a_trial_is_stopped_once_it_is_saved_and_comes_again_if_a_crash_was_first(make_study):
    study = make_study(9, scheduler=STOPPING)
    asha = Asha(study, lambda: False)
    searcher = StudySearcher(asha, lambda: False, lambda _: None)
    for name, elbo in zip("abc", (-5.0, -6.0, -7.0), strict=True):
        trial = Trial("made up", config=searcher.suggest(name), trial_id=name, stub=True)
        decision = asha.on_trial_result(None, trial, {"report": report(1, elbo)})
    assert (decision, study.records[2].state) == (Asha.STOP, "stopped")
    assert make_study(9, scheduler=STOPPING).records[2].state == "paused"  # killed here
    searcher.on_trial_complete("c")
    assert make_study(9, scheduler=STOPPING).records[2].state == "stopped"


def test_a_trial_at_the_top_is_completed_once_it_is_saved_and_comes_again_if_a_crash_was_first(searcher_of):
    study, searcher = searcher_of(trials=1)
    searcher.suggest("a")
    for epoch in (1, 3, 9, 27):
        study.promote(0, 28)
        assert searcher._scheduler.judge(0, report(epoch, -5.0)) == ("completed" if epoch == 27 else None)
    assert study.records[0].state == "pending"
    again, searcher_again = searcher_of(trials=1)  # killed here
    assert searcher_again.suggest("b")["number"] == 0
    searcher_again.on_trial_complete("b")  # asked to stop before it ran
    assert again.records[0].state == "paused"
    again, searcher_again = searcher_of(trials=1)
    assert searcher_again.suggest("c")["number"] == 0
    assert searcher_again._scheduler.judge(0, report(27, -5.0)) == "completed"
    searcher_again.on_trial_complete("c", {"report": report(27, -5.0)})
    assert again.records[0].state == "completed"
    assert again.records[0].values == {1: -5.0, 3: -5.0, 9: -5.0, 27: -5.0}
