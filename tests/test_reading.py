"""A sweep read back, of which nothing is touched."""

import math

import optuna
import pytest
from sweeping import open_study, report, search

from sweep.begun import read_settings
from sweep.reading import compared_at, ordered, read
from vae.errors import UserError


def test_what_was_told_is_read_back(folder):
    study = open_study(folder.journal, 5)
    search(study, 3, lambda record: None if record.number == 2 else -5.0 - record.number)
    study.ask()  # still runs
    read_back = read(folder)
    assert [trial.record.state for trial in read_back.trials] == ["completed", "stopped", "failed", "paused"]
    assert [trial.values for trial in read_back.trials] == [{1: -5, 3: -5, 9: -5, 27: -5}, {1: -6, 3: -6}, {}, {}]
    assert [trial.family for trial in read_back.ranked()] == ["recurrent", "dense"]
    assert read_back.epochs == 27 + 3
    assert read_back.requested == 4  # no summary yet that says more


def test_a_lost_trial_that_wins_is_the_winner_here_too(folder):
    study = open_study(folder.journal, 5)
    search(study, 2, lambda record: -5.0 - record.number)
    best = study.ask()
    study.report(best.number, report(1, -4.0), rung=True)
    best.lost = True
    study.finish(best.number, "failed", "its node died (4 times)")
    assert next(iter(read(folder).ranked())).number == study.top(1)[0].number == best.number


def test_a_running_sweep_keeps_its_journal_to_the_byte_a_half_written_line_included(folder):
    study = open_study(folder.journal, 5)
    search(study, 2, lambda _: -5.0)
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder.journal)))
    optuna.load_study(study_name="test", storage=storage).ask()  # at this moment: a sweep that resumes would end it
    with folder.journal.open("ab") as file:
        file.write(b'{"op_code": 8, "trial')
    before = folder.journal.read_bytes()
    assert len(read(folder).trials) == 2
    assert folder.journal.read_bytes() == before
    assert [path.name for path in folder.path.iterdir()] == ["study.log"]


def test_trials_are_ordered_as_the_sampler_sees_them_and_those_without_a_number_come_last(folder):
    study = open_study(folder.journal, 9, families=("dense",))
    for number, (epoch, value) in enumerate([(1, -9.0), (3, -8.0), (1, -2.0), (3, math.nan), (3, -7.0)]):
        study.ask()
        for rung in sorted({1, epoch}):
            study.report(number, report(rung, value), rung=True)
        study.finish(number, "stopped")
    trials = read(folder).trials
    assert compared_at(trials) == 3
    assert [trial.number for trial in ordered(trials)] == [4, 1, 2, 0, 3]
    assert 3 not in [trial.number for trial in read(folder).ranked()]


@pytest.mark.parametrize(("text", "said"), [("", "not a readable"), ("no journal\n", "not a readable")])
def test_a_journal_that_is_none_is_told_in_a_line(folder, text, said):
    folder.journal.write_text(text)
    with pytest.raises(UserError, match=said):
        read(folder)


def test_a_journal_of_a_later_version_is_told_in_a_line(folder):
    open_study(folder.journal, 5)
    text = folder.journal.read_text()
    assert '"min_kl"' in text
    folder.journal.write_text(text.replace('"min_kl"', '"least_kl"'))
    with pytest.raises(UserError, match="not a readable study journal"):
        read(folder)
    with pytest.raises(UserError, match="not a readable study journal"):
        read_settings(folder.journal, "test")


def test_a_sweep_without_a_trial_is_told_in_a_line(folder):
    open_study(folder.journal, 5)
    with pytest.raises(UserError, match="no trial has begun yet"):
        read(folder)
