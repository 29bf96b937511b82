"""What is done between Ray Tune's events."""

import time

import pytest
from ray.tune import Checkpoint
from ray.tune.experiment import Trial
from ray.tune.result import SHOULD_CHECKPOINT
from sweeping import new_folder, raised, report, write_checkpoint

from sweep.board import Board
from sweep.callback import SAVE_SECONDS, Clock, SweepCallback
from sweep.live import LiveView
from sweep.rungs import rungs
from sweep.workers import keep_error
from vae.checkpoint import MODEL


def callback_of(study, folder, on_lead=lambda: None):
    view = LiveView(study, rungs(27), 1, lambda: None)
    return SweepCallback(study, folder, view, Board(folder.tensorboard), Clock(0.0, {}), lambda: 1, {}, on_lead)


@pytest.fixture
def told(make_study, tmp_path):
    """Makes a report of a trial, or of its failure, and tells whether it was taken for better than all before."""
    study, folder, better = make_study(trials=2), new_folder(tmp_path), []
    callback = callback_of(study, folder, lambda: better.append(True))

    def tell(number, epoch, val_elbo):
        if val_elbo is None:
            study.finish(number, "failed", "diverged")
            val_elbo = -1.0
        else:
            study.report(number, report(epoch, val_elbo), rung=False)
        trial = Trial("made up", config={"number": number}, stub=True)
        callback._saved_at[number] = float("inf")
        before = len(better)
        callback.on_trial_result(0, [], trial, {"report": report(epoch, val_elbo)})
        return len(better) > before

    for number in range(2):
        study.ask()
        callback._board.begin(study.records[number])
    return tell


def test_what_is_reported_is_better_before_it_is_saved(told):
    assert told(0, 1, -9.0)
    assert not told(1, 1, -9.5)
    assert told(0, 2, -8.0)
    assert told(1, 2, -7.0)
    assert not told(0, 3, -7.5)
    assert not told(1, 3, None)  # the best has failed


@pytest.mark.parametrize(
    ("epoch", "state", "seconds", "saved"),
    [
        (3, "running", 0.0, True),
        (4, "running", SAVE_SECONDS - 60.0, False),
        (4, "running", SAVE_SECONDS + 1.0, True),
        (4, "paused", 0.0, True),  # for the sweep is to stop
        (3, "stopped", 0.0, True),  # among the best
    ],
)
def test_a_trial_is_saved_at_rungs_and_where_it_stops_and_in_between_now_and_then(
    make_study, tmp_path, epoch, state, seconds, saved
):
    study, folder = make_study(trials=1), new_folder(tmp_path)
    callback, result = callback_of(study, folder), {"report": report(epoch, -4.0)}
    callback._board.begin(study.ask())
    study.report(0, result["report"], rung=epoch == 3)
    study.records[0].state = state
    callback._saved_at[0] = time.monotonic() - seconds
    callback.on_trial_result(0, [], Trial("made up", config={"number": 0}, stub=True), result)
    assert result.get(SHOULD_CHECKPOINT, False) is saved


ENDS = ("stopped", "completed", *("stopped",) * 4, "completed", "completed", "paused", "running")
"""Of trials, the best first. Final runs are made of the first, and of the two best that were completed."""


def test_of_trials_that_have_ended_the_best_are_saved_and_keep_their_checkpoints(make_study, tmp_path):
    """The best five, and those that final runs are made of; who waits or trains keeps its own whatever its worth."""
    folder = new_folder(tmp_path)
    study = make_study(len(ENDS), folder.journal)
    callback = callback_of(study, folder)
    for number, end in enumerate(ENDS):
        callback._board.begin(study.ask(goal=1))
        study.report(number, report(27 if end == "completed" else 9, -1.0 - number), rung=True)
        study.records[number].state = end
        if study.records[number].ended:
            study.finish(number, end)
        (folder.path / "trials" / "session-0" / f"{number:05d}-00001" / "checkpoint_000000").mkdir(parents=True)

    def asked_to_save(number):
        result = {"report": report(9, -1.0 - number)}
        callback.on_trial_result(0, [], Trial("made up", config={"number": number}, stub=True), result)
        return SHOULD_CHECKPOINT in result

    assert [asked_to_save(number) for number in (4, 5)] == [True, False]
    for ending in (lambda: None, study.end):  # the search; who waits might be promoted all the same
        ending()
        callback.update()
        kept = {int(path.parent.name[:5]) for path in folder.path.glob("trials/*/*/checkpoint_*")}
        assert kept == {0, 1, 2, 3, 4, 6, 8, 9}


@pytest.mark.parametrize("crashes", [False, True])
def test_who_fails_after_it_has_led_leads_no_more(make_study, tmp_path, crashes):
    study, folder, better = make_study(trials=2), new_folder(tmp_path), []
    callback = callback_of(study, folder, lambda: better.append(True))
    places = []
    for number, val_elbo in ((0, -4.0), (1, -5.0)):
        callback._board.begin(study.ask())
        study.report(number, report(9, val_elbo), rung=False)
        places.append(write_checkpoint(folder.path / "trials" / "session-0" / f"{number:05d}-00001", 0, epochs=1))
    callback.export(0, str(places[0]))
    study.finish(0, "failed", "diverged in epoch 10")
    (callback.on_trial_error if crashes else callback.on_trial_complete)(
        0, [], Trial("made up", config={"number": 0}, stub=True)
    )
    assert callback.best["trial"] == 1
    trial = Trial("made up", config={"number": 1}, stub=True)
    callback._saved_at[1] = float("inf")
    study.report(1, report(10, -4.5), rung=False)
    callback.on_trial_result(0, [], trial, {"report": report(10, -4.5)})
    assert better == [True, True]  # as the other failed, and now, though that had more


def test_who_has_failed_is_beaten_by_whatever_is_saved_next(make_study, tmp_path):
    study, folder = make_study(trials=2), new_folder(tmp_path)
    callback = callback_of(study, folder)
    places, elsewhere = [], tmp_path / "not saved yet"
    for number, epochs in ((0, 2), (1, 1)):
        callback._board.begin(study.ask())
        study.report(number, report(9, -5.0 + epochs), rung=False)
        places.append(write_checkpoint(folder.path / "trials" / "session-0" / f"{number:05d}-00001", 0, epochs))
    callback.export(0, str(places[0]))
    places[1].rename(elsewhere)
    study.finish(0, "failed", "diverged in epoch 10")
    failed, other = (Trial("made up", config={"number": number}, stub=True) for number in (0, 1))
    callback.on_trial_complete(0, [], failed)
    assert callback.best["trial"] == 0  # of nothing else there is a checkpoint
    elsewhere.rename(places[1])
    callback.on_checkpoint(0, [], other, Checkpoint(str(places[1])))
    assert callback.best["trial"] == 1
    callback.export(0, str(places[0]))  # as a kill before it was deposed leaves it
    resumed = callback_of(study, folder)
    resumed.catch_up()
    assert resumed.best["trial"] == 1


def test_a_winner_that_the_disk_does_not_give_is_said_and_tried_again(make_study, tmp_path, monkeypatch):
    study, folder = make_study(trials=1), new_folder(tmp_path)
    callback, said = callback_of(study, folder), []
    callback._board.begin(study.ask())
    study.report(0, report(9, -4.0), rung=False)
    place = write_checkpoint(folder.path / "trials" / "session-0" / "00000-00001", 0, epochs=1)
    monkeypatch.setattr(callback._view, "note", said.append)
    folder.journal.touch()
    weights = (place / MODEL).rename(tmp_path / "weights")
    callback.on_checkpoint(0, [], Trial("made up", config={"number": 0}, stub=True), Checkpoint(str(place)))
    assert len(said) == 1
    weights.rename(place / MODEL)
    callback.on_step_end(0, [])
    assert callback.best["trial"] == 0


NOT_KEPT = "trial 0 on here has ended, but its checkpoint could not be kept: No space left on device"


@pytest.mark.parametrize(
    ("state", "error", "told"),
    [
        ("stopped", RuntimeError("gone"), []),
        ("stopped", OSError(28, "No space left on device"), [NOT_KEPT]),
        ("failed", RuntimeError("gone"), ["trial 0 on here failed: why"]),
    ],
)
def test_a_worker_that_dies_as_its_trial_ends_has_not_failed_it(make_study, tmp_path, monkeypatch, state, error, told):
    study, folder = make_study(trials=1), new_folder(tmp_path)
    callback, said = callback_of(study, folder), []
    monkeypatch.setattr(callback._view, "note", said.append)
    callback._board.begin(study.ask())
    study.report(0, report(9, -4.0), rung=True)
    study.finish(0, state, "why" if state == "failed" else None)
    trial = Trial("made up", config={"number": 0}, stub=True)
    keep_error(trial, raised(error).as_instanceof_cause())
    callback.on_trial_error(0, [], trial)
    assert [line.partition(" (")[0] for line in said] == told


def test_the_share_of_training_stays_where_nothing_more_is_searched():
    earlier = {"search_seconds": 10.0, "train_share": 0.5}
    assert Clock(0.0, earlier).times(1, 10.0)["train_share"] == 0.5
    assert Clock(0.0, {}).times(1, 0.0)["train_share"] is None
    earlier |= {"train_seconds": 5.0}
    assert Clock(0.0, earlier, 5.0, 15.0).times(1, 10.0)["train_share"] == 0.5


def test_the_share_of_training_is_of_as_many_trials_at_a_time_as_each_start_had():
    first = Clock(0.0, {}, 10.0, 3610.0).times(8, 25_000.0) | {"train_seconds": 25_000.0}
    assert first["train_share"] == pytest.approx(25_000 / (8 * 3600))
    second = Clock(5000.0, first, 5010.0, 5110.0).times(1, 25_090.0)
    assert second["search_seconds"] == 3700.0
    assert second["train_share"] == pytest.approx(25_090 / (8 * 3600 + 100))


def test_a_start_that_came_to_no_trial_says_nothing_of_when_the_first_starts():
    first = Clock(0.0, {}).times(1, 0.0)
    assert (first["startup_seconds"], first["search_seconds"]) == (None, None)
    second = Clock(1000.0, first, 1480.0, 1500.0).times(1, 10.0)
    assert (second["startup_seconds"], second["search_seconds"]) == (480.0, 20.0)
    third = Clock(2000.0, second).times(1, 10.0)
    assert (third["startup_seconds"], third["search_seconds"]) == (480.0, 20.0)


def test_who_has_won_final_runs_stays_the_winner_until_the_next(make_study, tmp_path):
    study, folder = make_study(trials=8, final_seeds=3), new_folder(tmp_path)
    callback = callback_of(study, folder)
    for number in range(8):
        study.ask()
        study.report(number, report(27, -9.0 + number), rung=True)
    place = write_checkpoint(folder.path / "trials" / "session-0" / "00000-00001", 0, epochs=1)
    callback.export(0, str(place), [{"seed": 0}])
    assert callback.winner == 0
    callback._export_if_best(7, str(place))
    callback.best["val_elbo"] = -1e9
    callback._export_if_best(7, str(place))
    assert callback.winner == 0
    assert 0 in callback._kept()
