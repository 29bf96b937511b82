"""The end of a sweep that has no winner."""

import json
import signal

import pytest
from sweeping import new_folder

from sweep.board import Board
from sweep.callback import Clock, SweepCallback
from sweep.crash import WORKER
from sweep.final import finish_without
from sweep.live import LiveView
from sweep.rungs import rungs
from sweep.stop import Stop
from vae.errors import UserError


@pytest.fixture
def finish(make_study, tmp_path):
    """Ends a sweep of two trials that have not trained an epoch, one of which may have failed; gives its summary."""

    def end(budget=None, failure=None, interrupts=0, crashed=False):
        folder, clock = new_folder(tmp_path), Clock(0.0, {}, first_trial_started=1.0)
        study = make_study(2, folder.journal)
        board, stop = Board(folder.tensorboard), Stop(budget, None, clock, lambda: 0.0)
        view = LiveView(study, rungs(27), 1, stop.left)
        callback = SweepCallback(study, folder, view, board, clock, lambda: 1, {}, stop.bettered)
        for _ in range(2):
            board.begin(study.ask())
        if crashed:
            study.records[0].crash(WORKER)
        if failure is not None:
            study.finish(0, "failed", failure)
        for _ in range(interrupts):
            stop.catch(signal.SIGINT, None)
        finish_without(callback, folder, study, board, stop)
        return json.loads(folder.summary.read_text())

    return end


@pytest.mark.parametrize("failure", [None, "diverged in epoch 1"])
def test_who_stops_it_is_told_of_no_error(finish, failure):
    summary = finish(budget=9.0, failure=failure, interrupts=2)
    assert summary["trials"]["requested"] == 2
    assert summary["best"]["trial"] is None


def test_a_time_budget_that_was_too_short_is_told(finish):
    with pytest.raises(UserError, match=r"the time budget was shorter than an epoch; .* a longer --time-budget\.$"):
        finish(budget=9.0)


def test_a_time_in_which_workers_were_killed_was_not_too_short(finish):
    with pytest.raises(UserError, match="no trial finished an epoch; the lines above say why"):
        finish(budget=9.0, crashed=True)


@pytest.mark.parametrize("budget", [None, 9.0])
def test_why_every_trial_failed_has_been_said(finish, budget):
    with pytest.raises(UserError, match="no trial finished an epoch; the lines above say why"):
        finish(budget, "diverged in epoch 1")
