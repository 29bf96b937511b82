"""The study and its journal."""

import optuna
import pytest
from sweeping import SETTINGS, report

from sweep import space
from sweep.begun import read_settings
from sweep.earlier import Earlier
from sweep.record import Report
from sweep.study import Study
from vae.encoding import DataSpec
from vae.errors import UserError

MUSIC = DataSpec("roll_onset", 176, 4, 12, 90.5, window=64, longest_song=400, typical_song=200)
ROWS = DataSpec("real", 5, 1, None, 100.0, window=1, longest_song=1, unit_interval=True)


def test_states_always_sum_to_what_was_requested(make_study):
    study = make_study(trials=5)
    assert sum(study.counts().values()) == study.counts()["pending"] == 5
    study.ask()
    study.report(0, report(1, -5.0), rung=True)
    study.finish(0, "stopped")
    study.ask()
    study.finish(1, "failed", "diverged")
    assert study.counts()["stopped"] == study.counts()["failed"] == 1
    assert sum(study.counts().values()) == 5


def test_what_can_not_be_set_up_again_keeps_what_it_has_trained(make_study):
    study = make_study(trials=1)
    study.ask()
    study.report(0, report(3, -5.0), rung=True)
    study.report(0, Report(0, [], {}, 0.0, "elsewhere", "out of memory"), rung=False)
    record = study.records[0]
    assert (record.epoch, record.train_seconds, record.best["val_elbo"]) == (3, 2.5, -5.0)
    assert (record.failure, record.node) == ("out of memory", "elsewhere")


def test_where_all_trials_so_far_were_lost_there_is_a_next(make_study):
    study = make_study(trials=9, families=("dense",))
    for number in range(len(space.first_points(study.settings.task))):
        study.ask().lost = True
        study.finish(number, "failed", "its node died (4 times)")
    assert study.ask().number == number + 1


def test_no_more_trials_than_requested(make_study):
    study = make_study(trials=2)
    assert [study.ask() is None for _ in range(4)] == [False, False, True, True]


def test_the_winner_is_feasible_before_it_is_good(make_study):
    study = make_study(trials=4)
    reports = [report(3, -9.0), report(3, -5.0, code_gain=0.0), report(3, -8.0), report(3, -1.0)]
    for number, told in enumerate(reports):
        study.ask()
        study.report(number, told, rung=True)
    study.finish(3, "failed", "diverged")
    assert [record.number for record in study.top(9)] == [2, 0, 1]


def test_the_best_trains_on_until_it_ends_or_waits(make_study):
    study = make_study(trials=2)
    for number, val_elbo in enumerate((-5.0, -6.0)):
        study.ask()
        study.report(number, report(1, val_elbo), rung=True)
    study.records[1].state = "running"
    for state, goal, trains_on in (
        ("pending", 3, True),  # for a worker
        ("running", 3, True),
        ("paused", 3, True),  # by a crash
        ("paused", 1, False),
        ("stopped", 3, False),
    ):
        study.records[0].state, study.records[0].goal = state, goal
        assert study.best_trains_on is trains_on


def test_finalists_are_the_best_that_reached_the_top_rung_after_those_that_are_better_without(make_study):
    study = make_study(trials=6, max_epochs=3)
    for number, val_elbo in enumerate([-9.0, -5.0, -8.0, -7.0, -6.0]):
        study.ask()
        study.report(number, report(3, val_elbo), rung=True)
    assert [record.number for record in study.finalists()] == [1, 4, 3]  # none has, the best there are
    study.finish(0, "completed")
    study.finish(2, "completed")
    study.finish(4, "stopped")
    study.finish(3, "failed", "diverged")
    assert [record.number for record in study.finalists()] == [1, 4, 2]
    study.finish(1, "completed")
    assert [record.number for record in study.finalists()] == [1, 2, 0]


def test_of_very_many_trials_a_proposal_looks_at_the_best_the_newest_and_those_that_failed(make_study, monkeypatch):
    for name, count in {"MOST_LOOKED_AT": 40, "BEST_LOOKED_AT": 4, "_NEWEST_LOOKED_AT": 8}.items():
        monkeypatch.setattr(f"sweep.study.{name}", count)
    study = make_study(trials=70)
    worth = [float(number * 37 % 70) for number in range(70)]
    failed = set(range(3, 70, 10))
    for number in range(70):
        study.ask()
        study.report(number, report(1, worth[number]), rung=True)
        if number % 7 == 0:
            study.report(number, report(3, worth[number]), rung=True)
        if number in failed:
            study.finish(number, "failed", "diverged")

    def looked_at(study):
        return {trial.number for trial in study.telling(study.drawn())}

    best = sorted(range(70), key=worth.__getitem__)[-4:] + sorted(range(0, 70, 7), key=worth.__getitem__)[-4:]
    assert looked_at(study) >= {*best, *range(62, 70), *failed}
    assert len(looked_at(study)) == 40
    assert looked_at(make_study(trials=70)) == looked_at(study)  # so that a resumed sweep keeps to its course


def test_a_study_read_back_knows_what_it_knew(make_study):
    study = make_study(trials=4)
    for number in range(3):
        study.ask()
        study.report(number, report(1, -5.0 - number), rung=True)
    study.finish(0, "stopped")
    study.report(1, report(2, -4.0), rung=False)
    study.finish(2, "failed", "diverged in epoch 2")
    again = make_study(trials=4)
    for number in (0, 2):
        assert again.records[number] == study.records[number]
    assert again.records[1].state == "paused"
    assert again.records[1].values == {1: -6.0}


def test_what_a_later_version_keeps_of_a_trial_too_is_passed_over(make_study):
    """So that who went on with it, and was told to check out the former version, can."""
    study = make_study(trials=4)
    record = study.ask()
    study.report(0, report(1, -5.0), rung=True)
    study._trial(0).set_user_attr("record", record.kept() | {"temper": 0.5})
    assert make_study(trials=4).records[0].kept() == record.kept()


def test_cut_off_trials_are_had_back_and_new_ones_asked_for(make_study):
    study = make_study(trials=3)
    cut_off = [study.ask().params for _ in range(2)]
    again = make_study(trials=3)
    assert [again.cut_off().params for _ in range(2)] == cut_off
    assert again.cut_off() is None
    assert again.ask().number == 2
    assert again.ask() is None


def test_cut_off_trials_come_in_the_order_in_which_they_were_handed_out(make_study):
    """A promoted one after the new ones that were begun before it, and one that waited is not cut off."""
    study = make_study(trials=4)
    for number in range(3):
        study.ask(goal=1)
        study.report(number, report(1, -5.0), rung=True)
    for number in (1, 0):
        study.records[number].state = "paused"
    study.ask(goal=1)
    study.promote(0, goal=3)
    study.records[0].state = "running"
    again = make_study(trials=4)
    assert again.records[1].waits
    assert again.records[2].waits
    assert [again.cut_off().number for _ in range(2)] == [3, 0]
    assert again.cut_off() is None
    assert again.promote(1, goal=3).turn == 6


def test_a_resumed_study_proposes_what_an_uninterrupted_one_would(make_study, tmp_path):
    def drive(study, numbers):
        proposed = []
        for number in numbers:
            proposed.append(study.ask().params)
            study.report(number, report(1, -float(number % 5)), rung=True)
            study.finish(number, "stopped")
        return proposed

    whole = drive(make_study(trials=16, path=tmp_path / "whole.log"), range(16))
    halves = drive(make_study(trials=16), range(12))  # TPE takes over at the tenth
    halves += drive(make_study(trials=16), range(12, 16))
    assert halves == whole


def test_a_trial_can_end_in_a_later_process(make_study):
    study = make_study(trials=2)
    study.ask()
    study.report(0, report(1, -5.0), rung=True)
    again = make_study(trials=2)
    again.ask()
    again.report(0, report(27, -3.0), rung=True)
    again.finish(0, "completed")
    assert make_study(trials=2).records[0].values == {1: -5.0, 27: -3.0}


def test_the_journal_is_an_optuna_study_that_a_person_can_read(make_study, tmp_path):
    study = make_study(trials=3)
    for number, end in enumerate(("stopped", "completed", "failed")):
        study.ask()
        study.report(number, report(1, -5.0), rung=True)
        study.finish(number, end, "diverged" if end == "failed" else None)
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(tmp_path / "study.log")))
    read = optuna.load_study(study_name="test", storage=storage)
    assert [trial.state.name for trial in read.trials[:3]] == ["PRUNED", "COMPLETE", "FAIL"]
    assert read.best_value == -5.0
    assert read.trials[2].user_attrs["record"]["failure"] == "diverged"


@pytest.mark.parametrize("spec", [MUSIC, ROWS], ids=["music", "rows"])
def test_settings_are_read_back_from_the_journal(make_study, tmp_path, spec):
    study = make_study(trials=3, spec=spec, families=("dense",), min_kl=0.1 + 0.2)
    read = read_settings(tmp_path / "study.log", "test")
    assert read == study.settings
    assert read.spec == spec
    assert read.task == space.Task(("dense",), spec, 0.1 + 0.2, 27 * 100_000)


def test_a_resumed_study_may_have_other_final_runs(make_study, tmp_path):
    make_study(trials=1)
    changed = make_study(trials=1, final_seeds=5, final_epochs=54).settings
    assert read_settings(tmp_path / "study.log", "test") == changed


def test_the_defaults_of_each_family_are_tried_first(make_study):
    study = make_study(trials=5, families=("dense", "transformer", "recurrent"))
    points = space.first_points(study.settings.task)
    params = [study.ask().params for _ in points]
    assert [p["family"] for p in params] == [point["family"] for point in points]
    assert [p["learning_rate"] for p in params] == [point["learning_rate"] for point in points]


def test_a_family_that_cannot_take_the_data_is_refused_and_leaves_no_journal(make_study, tmp_path):
    with pytest.raises(UserError, match="family hierarchical needs a metre"):
        make_study(trials=3, spec=ROWS, families=("hierarchical",))
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_that_ended_while_it_began_can_begin_again(make_study, tmp_path):
    path = tmp_path / "study.log"
    with pytest.raises(TypeError, match="not JSON serializable"):
        Study(path, SETTINGS, 3, [Earlier("earlier", [{"family": object()}], [], "")])
    assert not path.exists()
    study = make_study(trials=3)
    assert study.ask().number == 0
    assert read_settings(path, "test") == study.settings


def test_nothing_to_resume_is_said_in_a_line(tmp_path):
    with pytest.raises(UserError, match="no sweep to resume"):
        read_settings(tmp_path / "none" / "study.log", "none")


@pytest.mark.parametrize(
    ("text", "said"), [("this is no journal", "damaged after record 0"), ('{"no": 1}', "not a readable study journal")]
)
def test_a_journal_that_is_none_is_refused(tmp_path, text, said):
    path = tmp_path / "study.log"
    path.write_text(text + "\n")
    with pytest.raises(UserError, match=rf"study\.log: {said}"):
        read_settings(path, "test")


def test_no_fewer_trials_can_be_requested_than_there_are(make_study):
    study = make_study(trials=4)
    for _ in range(3):
        study.ask()
    assert make_study(trials=2).counts() == study.counts() | {"pending": 0, "paused": 3}


def test_without_a_number_of_trials_those_begun_are_what_was_requested(make_study):
    study = make_study(None)
    assert (study.requested, study.counts()["pending"]) == (0, 0)
    for _ in range(3):
        assert study.ask() is not None
    assert study.requested == sum(study.counts().values()) == 3
