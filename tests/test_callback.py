"""What is done between Ray Tune's events."""

import pytest
from ray.tune.experiment import Trial
from sweeping import new_folder, report, write_checkpoint

from sweep.board import Board
from sweep.callback import Clock, SweepCallback
from sweep.live import LiveView
from sweep.rungs import rungs


@pytest.fixture
def told(make_study, tmp_path):
    """Makes a report of a trial, or of its failure, and tells whether it was taken for better than all before."""
    study, folder, better = make_study(trials=2), new_folder(tmp_path), []
    view = LiveView(study, rungs(27), 1, lambda: None)
    board = Board(folder.tensorboard)
    callback = SweepCallback(study, folder, view, board, Clock(0.0, {}), lambda: 1, {}, lambda: better.append(True))

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
        board.begin(study.records[number])
    return tell


def test_what_is_reported_is_better_before_it_is_saved(told):
    assert told(0, 1, -9.0)
    assert not told(1, 1, -9.5)
    assert told(0, 2, -8.0)
    assert told(1, 2, -7.0)
    assert not told(0, 3, -7.5)
    assert not told(1, 3, None)  # the best has failed


@pytest.mark.parametrize("crashes", [False, True])
def test_who_fails_after_it_has_led_leads_no_more(make_study, tmp_path, crashes):
    study, folder, better = make_study(trials=2), new_folder(tmp_path), []
    view, board = LiveView(study, rungs(27), 1, lambda: None), Board(folder.tensorboard)
    callback = SweepCallback(study, folder, view, board, Clock(0.0, {}), lambda: 1, {}, lambda: better.append(True))
    places = []
    for number, val_elbo in ((0, -4.0), (1, -5.0)):
        board.begin(study.ask())
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
    assert better == [True]  # though the other had more


def test_who_has_won_final_runs_stays_the_winner_until_the_next(make_study, tmp_path):
    study, folder = make_study(trials=8, final_seeds=3), new_folder(tmp_path)
    view = LiveView(study, rungs(27), 1, lambda: None)
    board = Board(folder.tensorboard)
    callback = SweepCallback(study, folder, view, board, Clock(0.0, {}), lambda: 1, {}, lambda: None)
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
