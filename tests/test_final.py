"""The end of a sweep: what is told of its winner, or of having none."""

import json
import signal
from dataclasses import replace

import pytest
from sweeping import SETTINGS, new_folder

from sweep.board import Board
from sweep.callback import Clock, SweepCallback
from sweep.crash import WORKER
from sweep.final import _tell, _tell_longer, finish_without
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


@pytest.mark.parametrize(
    ("val_elbo", "feasible", "warnings"),
    [
        (-5.0, True, []),
        (-7.0, True, ["it foretells less than the baseline does. Search longer"]),
        (-5.0, False, ["no trial has a code that says enough (kl >= 0.1 and code_gain >= 0.05 nats a step)"]),
        (-7.0, False, ["it foretells less than the baseline does", "no trial has a code that says enough"]),
    ],
)
def test_a_winner_that_is_no_good_is_told_with_a_warning(folder, capsys, val_elbo, feasible, warnings):
    best = {"trial": 3, "params": {"family": "dense"}, "epoch": 9.0, "kl": 0.2, "code_gain": 0.5, "test_elbo": -5.5}
    best |= {"val_elbo": val_elbo, "feasible": feasible, "seeds": None}
    baseline = {"marginal_elbo": -6.0, "marginal_test_elbo": -6.5}
    _tell({"trials": {"stopped": 4}, "epochs_trained": 12, "best": best, "baseline": baseline}, folder, min_kl=0.1)
    told = capsys.readouterr()
    assert f"best: trial 3 (dense) at epoch 9, nats a step: val_elbo {val_elbo:.3f} (baseline -6.000)" in told.out
    lines = told.err.splitlines()
    assert len(lines) == len(warnings)
    assert all(line.startswith(f"warning: {warning}") for line, warning in zip(lines, warnings, strict=True))


@pytest.mark.parametrize(
    ("best", "trained", "final_seeds", "final_epochs", "way"),
    [
        (27, 27, 3, None, "it was still getting better at its last epoch; {} --final-epochs 81"),
        (27, 27, 1, None, "it was still getting better at its last epoch; {} --final-seeds 3 --final-epochs 81"),
        (81, 27, 3, 81, "it was still getting better at its last epoch; {} --final-epochs 243"),
        (9, 9, 1, None, "its trial came to epoch 9 of 27; {} --final-seeds 3"),
        (21, 27, 1, None, None),
        (9, 9, 3, None, None),  # final runs came to the last epoch
        (9, 0, 1, None, None),  # the study has forgotten it
    ],
)
def test_a_winner_that_could_be_trained_longer_is_told_with_the_way(
    folder, capsys, best, trained, final_seeds, final_epochs, way
):
    settings = replace(SETTINGS, final_seeds=final_seeds, final_epochs=final_epochs)
    _tell_longer(best, trained, folder, settings)
    how = "to train the best to it" if best < settings.last_epoch else "to train the best longer"
    expected = "" if way is None else way.format(f"{how}: python -m sweep.run --resume test --results {folder.place}")
    assert capsys.readouterr().out == expected + "\n" * bool(expected)


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
