"""Which configurations are trained on further seeds, and which wins: values by hand, runs found again."""

import json

import pytest
from sweeping import report, write_checkpoint

from sweep.board import Board
from sweep.callback import Clock, SweepCallback
from sweep.finals import adopt
from sweep.live import LiveView
from sweep.results import SweepFolder
from sweep.seeds import FinalRun, decide, median, plan, standing
from vae import checkpoint


def seed(val_elbo, kl=0.2, code_gain=1.0):
    return {"epoch": 9, "val_elbo": val_elbo, "kl": kl, "code_gain": code_gain}


MUTE = seed(-1.0, code_gain=0.0)  # the best bound, but the code says nothing


# The choice


def test_the_standing_of_a_configuration_by_hand():
    assert standing([seed(-5.0), seed(-4.0), seed(-6.0, kl=0.05)], min_kl=0.1) == (2, pytest.approx(-15.5 / 3))


def test_a_configuration_has_more_feasible_seeds_before_it_has_the_better_mean():
    assert standing([seed(-9.0), seed(-9.0)], min_kl=0.1) > standing([seed(-2.0), MUTE], min_kl=0.1)


@pytest.mark.parametrize(
    ("seeds", "index"),
    [
        ([seed(-5.0)], 0),
        ([seed(-5.0), seed(-3.0), seed(-4.0)], 2),
        ([seed(-5.0), seed(-4.0)], 0),  # of two the lower
        ([seed(-3.0), MUTE, MUTE], 0),  # the only one that qualifies
        ([seed(-3.0), MUTE, seed(-4.0)], 2),
        ([MUTE, seed(-2.0, code_gain=0.0), seed(-3.0, code_gain=0.0)], 1),
    ],
)
def test_the_median_seed_by_hand(seeds, index):
    assert median(seeds, min_kl=0.1) == index


@pytest.fixture
def run_of(tmp_path):
    """A final run that has been trained and has come to something."""

    def make(trial, number, metrics):
        path = tmp_path / f"{trial}-{number}"
        path.mkdir()
        (path / checkpoint.METRICS).write_text(json.dumps(metrics))
        run = FinalRun(trial, number, {}, epochs=9)
        run.saved(path, 9)
        return run

    return make


def failed(trial, number):
    return FinalRun(trial, number, {}, epochs=9, failure="diverged")


def test_the_mean_decides_and_no_lucky_seed(run_of):
    runs = [run_of(4, 0, seed(-3.0)), run_of(4, 1, seed(-7.0)), run_of(2, 0, seed(-4.5)), run_of(2, 1, seed(-4.7))]
    winner, seeds = decide(runs, min_kl=0.1)
    assert (winner.trial, winner.seed) == (2, 1)
    assert seeds == runs[2:]


def test_a_failed_seed_counts_as_one_that_does_not_qualify(run_of):
    runs = [run_of(4, 0, seed(-3.0)), failed(4, 1), run_of(2, 0, seed(-4.5)), run_of(2, 1, seed(-4.7))]
    assert decide(runs, min_kl=0.1)[0].trial == 2
    winner, seeds = decide(runs[:2], min_kl=0.1)
    assert winner is runs[0]
    assert seeds == runs[:1]


def test_nothing_is_decided_while_runs_are_left_or_if_all_failed(run_of):
    assert decide([run_of(4, 0, seed(-3.0)), FinalRun(4, 1, {}, epochs=9)], min_kl=0.1) is None
    assert decide([failed(4, 0), failed(4, 1)], min_kl=0.1) is None


# What is to be trained


@pytest.fixture
def sweep(make_study, tmp_path):
    """A study whose only trial, with a cosine schedule, ran to the top rung, and its folder."""

    def make(**changes):
        study = make_study(1, max_epochs=3, final_seeds=2, **changes)
        if study.ask() is not None:
            study.report(0, report(3, -5.0), rung=True)
            study.finish(0, "completed")
        return study, SweepFolder(tmp_path, "sweep")

    return make


def test_the_searchs_own_run_is_one_of_the_seeds(sweep):
    study, folder = sweep(seed=7)
    own = write_checkpoint(folder.path / "trials" / "session-0" / "00000-00001", 0, epochs=3)
    runs = plan(study, folder)
    assert [(run.trial, run.seed, run.trained, run.checkpoint) for run in runs] == [
        (0, 7, True, str(own)),
        (0, 8, False, None),
    ]
    assert all(run.params == study.records[0].params for run in runs)


def test_where_final_runs_are_longer_the_schedule_is_and_the_searchs_run_is_none_of_them(sweep):
    study, folder = sweep(final_epochs=6)
    write_checkpoint(folder.path / "trials" / "session-0" / "00000-00001", 0, epochs=3)
    drawn = study.records[0].params
    for run in plan(study, folder):
        assert (run.epoch, run.checkpoint, run.epochs) == (0, None, 6)
        assert run.params["lr_decay"] == 600_000 > drawn["lr_decay"]


def test_who_has_won_final_runs_is_not_beaten_by_luck_in_a_longer_search(make_study, tmp_path):
    study = make_study(4, max_epochs=3, final_seeds=2)
    for number, val_elbo in enumerate((-9.0, -5.0, -6.0, -7.0)):
        study.ask()
        study.report(number, report(3, val_elbo), rung=True)
        study.finish(number, "completed")
    folder = SweepFolder(tmp_path, "sweep")
    assert [run.trial for run in plan(study, folder, winner=0)] == [1, 1, 2, 2, 3, 3, 0, 0]
    assert [run.trial for run in plan(study, folder, winner=2)] == [1, 1, 2, 2, 3, 3]
    assert [run.trial for run in plan(study, folder, winner=9)] == [1, 1, 2, 2, 3, 3]  # forgotten with the snapshot


def test_final_runs_go_on_from_their_own_checkpoints_alone(sweep):
    study, folder = sweep(final_epochs=6)
    half = write_checkpoint(folder.path / "finals" / "session-0" / "00000-seed-0-epochs-6.0", 0, epochs=2)
    whole = write_checkpoint(folder.path / "finals" / "session-1" / "00000-seed-1-epochs-6.0", 0, epochs=6)
    write_checkpoint(
        folder.path / "finals" / "session-0" / "00000-seed-0-epochs-5.0", 0, epochs=5
    )  # of another schedule
    first, second = plan(study, folder)
    assert (first.checkpoint, first.epoch, first.trained) == (str(half), 2, False)
    assert (second.checkpoint, second.epoch, second.trained) == (str(whole), 6, True)


def test_as_long_as_final_runs_are_left_the_searchs_winner_stays(sweep):
    study, folder = sweep()
    board, view = Board(folder.tensorboard), LiveView(study, (1, 3), 1, lambda: None)
    callback = SweepCallback(study, folder, view, board, Clock(0.0, {}), lambda: 1, {}, lambda: None)
    write_checkpoint(folder.path / "trials" / "session-0" / "00000-00001", 0, epochs=3)
    callback.catch_up()
    own, other = plan(study, folder)
    assert adopt([own, other], callback, min_kl=0.1) is False
    assert (callback.best["trial"], callback.best["seeds"], callback.winner) == (0, None, None)
    other.saved(str(write_checkpoint(folder.path / "finals" / "session-0" / f"{other.prefix}0", 0, epochs=3)), 3)
    assert adopt([own, other], callback, min_kl=0.1) is True
    assert [told["seed"] for told in callback.best["seeds"]] == [0, 1]
    board.close()
