"""Searches played against known curves."""

import math
from types import SimpleNamespace

import optuna
import pytest
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from sweep.replay import METRIC, Curve, Point, Run, TuneSearch, _Prepared, replay
from sweep.rungs import PROMOTION, STOPPING
from sweep.scheduler import Asha
from sweep.searcher import StudySearcher

SCORED = (1, 2, 3, 6, 9, 18, 27)


def curve_of(params):
    """Better the nearer the learning rate is to 2e-3; an epoch of dense takes 1 s, of others 2 s."""
    distance = abs(math.log(params["learning_rate"] / 2e-3))
    pace = 1.0 if params["family"] == "dense" else 2.0
    if params["learning_rate"] > 8e-3:
        return Curve((), "diverged in epoch 1")
    return Curve(tuple(Point(e, pace * e, metrics(-distance - 1.0 / e)) for e in SCORED))


def metrics(val_elbo):
    return {"val_elbo": val_elbo, "kl": 0.2, "code_gain": 0.2}


def ours(make_study, tmp_path, scheduler, trials=60, seed=0):
    study = make_study(trials, tmp_path / f"{scheduler}-{seed}.log", scheduler=scheduler, seed=seed)
    asha = Asha(study, lambda: False)
    return study, TuneSearch(StudySearcher(asha, lambda: False, lambda _: None), asha, 0.1)


@pytest.mark.parametrize("scheduler", [PROMOTION, STOPPING])
def test_it_runs_to_the_end_of_the_trials_and_counts_each_epoch_once(make_study, tmp_path, scheduler):
    study, search = ours(make_study, tmp_path, scheduler, trials=30)
    moments = replay(search, curve_of, 4, 10_000, 0.1)
    study.end()
    counts = study.counts()
    assert counts["stopped"] + counts["completed"] + counts["failed"] == 30
    assert counts["completed"] >= 1
    trained = sum(record.epoch + (record.state == "failed") for record in study.records.values())
    assert moments[-1].epochs <= trained
    assert moments[-1].best == max(record.best["val_elbo"] for record in study.top(1))
    assert [m.best for m in moments] == sorted(m.best for m in moments)


def test_what_goes_on_begins_before_what_is_new():
    goes_on, new = Run({}, None, epoch=3), [Run({}, None) for _ in range(3)]
    asked = iter([*new[:2], goes_on, new[2]])
    prepared = _Prepared(SimpleNamespace(next=lambda: next(asked)), ahead=2)
    assert prepared.take(1) == [goes_on]
    assert prepared.take(1) == new[:1]


def test_a_budget_of_epochs_ends_it(make_study, tmp_path):
    study, search = ours(make_study, tmp_path, PROMOTION)
    replay(search, curve_of, 4, 40, 0.1)
    trained = sum(record.epoch + (record.state == "failed") for record in study.records.values())
    assert 40 <= trained <= 40 + 27


def test_a_failure_costs_the_epoch_it_came_in_and_its_time(make_study, tmp_path):
    study, search = ours(make_study, tmp_path, PROMOTION, trials=1000)
    curves = [*[Curve((), "diverged", 4.0)] * 3, Curve((Point(1, 5.0, metrics(-1.0)),))]
    moments = replay(search, lambda _: curves.pop(0), 1, 4, 0.1)
    assert [(moment.seconds, moment.epochs) for moment in moments] == [(17.0, 4)]
    assert study.counts()["failed"] == 3


def test_a_budget_ends_it_where_all_fail(make_study, tmp_path):
    study, search = ours(make_study, tmp_path, PROMOTION, trials=1000)
    assert replay(search, lambda _: Curve((), "diverged", 4.0), 2, 20, 0.1) == []
    assert study.counts()["failed"] == 20


@pytest.mark.parametrize("ahead", [0, 3])
def test_runs_are_asked_for_before_a_worker_is_free(ahead, make_study, tmp_path):
    study, search = ours(make_study, tmp_path, STOPPING)
    replay(search, curve_of, 2, 1, 0.1, ahead=ahead)
    assert len(study.records) == 2 + ahead


def test_what_is_enough_ends_it(make_study, tmp_path):
    _, search = ours(make_study, tmp_path, PROMOTION, trials=1000)
    moments = replay(search, curve_of, 4, 10_000, 0.1, enough=-1.5)
    assert moments[-1].best >= -1.5
    assert all(moment.best < -1.5 for moment in moments[:-1])


def test_the_clock_is_that_of_the_workers(make_study, tmp_path):
    """A single trial to the top: each point at its own time, however many could have run beside it."""
    _, search = ours(make_study, tmp_path, STOPPING, trials=1)
    moments = replay(search, lambda params: curve_of(params | {"learning_rate": 2e-3}), 8, 400, 0.1)
    pace = moments[0].seconds
    assert [(m.seconds / pace, m.epochs) for m in moments] == [(epoch, epoch) for epoch in SCORED]


def test_a_promoted_trial_goes_on_where_it_waited(make_study, tmp_path):
    """Its points come once each, though it was with three workers or more."""
    study, search = ours(make_study, tmp_path, PROMOTION, trials=30)
    replay(search, curve_of, 2, 10_000, 0.1)
    completed = [record for record in study.records.values() if record.state == "completed"]
    assert completed
    assert all(sorted(record.values) == [1, 3, 9, 27] for record in completed)


def test_stock_searchers_and_schedulers_are_driven_the_same_way(make_study):
    task = make_study(1).settings.task

    def space(trial):
        trial.suggest_categorical("family", task.families)
        trial.suggest_float("learning_rate", 5e-4, 1e-2, log=True)
        return {"params": dict(trial.params)}

    searcher = OptunaSearch(space, metric=METRIC, mode="max", sampler=optuna.samplers.RandomSampler(0))
    scheduler = ASHAScheduler(metric=METRIC, mode="max", max_t=27, grace_period=1, reduction_factor=3)
    moments = replay(TuneSearch(searcher, scheduler, 0.1), curve_of, 4, 300, 0.1)
    assert moments[-1].best > -0.5
    assert {trial.state.name for trial in searcher._ot_study.trials} >= {"COMPLETE", "FAIL"}
