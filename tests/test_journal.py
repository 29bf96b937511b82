"""The study's file after a crash."""

import threading

import pytest
from sweeping import report

from sweep.begun import read_study
from sweep.journal import Snapshots, lock_of, mend, snapshot_of
from vae.errors import UserError


@pytest.fixture
def journal(make_study, tmp_path):
    """Of three trials, the last one running."""
    study = make_study(trials=9)
    for number in range(3):
        study.ask()
        study.report(number, report(1, -5.0 - number), rung=True)
    study.finish(0, "stopped")
    study.finish(1, "stopped")
    return tmp_path / "study.log"


def test_a_whole_journal_stays_as_it_is(journal):
    before = journal.read_bytes()
    mend(journal)
    assert journal.read_bytes() == before


def test_a_torn_last_line_is_taken_off_and_the_study_goes_on(journal, make_study):
    whole = journal.read_bytes()
    journal.write_bytes(whole + whole.splitlines(keepends=True)[-1][:-9])
    mend(journal)
    assert journal.read_bytes() == whole
    again = make_study(trials=9)
    again.ask()
    again.finish(2, "stopped")
    assert make_study(trials=9).counts()["stopped"] == 3


def test_a_journal_cut_in_half_is_refused_and_its_snapshot_goes_on(journal, make_study):
    Snapshots(journal).take()
    whole = journal.read_bytes()
    journal.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        UserError, match=r"study\.log: damaged after record \d+, of trial 0; `cp .*snapshot .*study\.log`"
    ):
        mend(journal)
    journal.write_bytes(snapshot_of(journal).read_bytes())
    mend(journal)
    assert make_study(trials=9).counts()["stopped"] == 2


def test_half_a_journal_is_refused_however_young_its_snapshot(make_study, tmp_path, monkeypatch):
    monkeypatch.setattr("sweep.journal.time.monotonic", lambda: 0.0)
    study, path = make_study(trials=20), tmp_path / "study.log"
    snapshots = Snapshots(path)
    for number in range(20):
        study.ask()
        study.report(number, report(1, -5.0 - number), rung=True)
        study.finish(number, "stopped")
        snapshots.take()
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(UserError, match=r"study\.log: damaged after record \d+"):
            mend(path)
        path.write_bytes(whole)


def test_a_folder_that_was_renamed_is_no_damage(journal):
    with pytest.raises(UserError, match=r"it holds no sweep renamed; a sweep's folder must keep its name"):
        read_study(journal, "renamed")


def test_records_missing_at_the_end_are_noticed(journal):
    Snapshots(journal).take()
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:-3]))
    with pytest.raises(UserError, match=f"damaged after record {len(lines) - 3}, of trial"):
        mend(journal)


def test_a_lock_that_a_killed_driver_left_is_not_waited_for(journal, make_study, monkeypatch):
    """Killed while it wrote; results are under a relative path, as by default."""
    monkeypatch.chdir(journal.parents[1])
    relative = journal.relative_to(journal.parents[1])
    lock_of(relative).symlink_to(relative)
    resumed = threading.Thread(target=lambda: make_study(trials=9, path=relative).finish(2, "stopped"), daemon=True)
    resumed.start()
    resumed.join(timeout=10.0)
    assert not resumed.is_alive()
    assert make_study(trials=9).counts()["stopped"] == 3


def test_damage_in_the_middle_is_refused_even_without_a_snapshot(journal):
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[4] = lines[4][:10]
    journal.write_bytes(b"".join(lines))
    with pytest.raises(UserError, match=r"damaged after record 4.*there is no snapshot yet"):
        mend(journal)


def test_snapshots_are_taken_now_and_then_and_hold_whole_records(journal, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("sweep.journal.time.monotonic", lambda: now[0])
    snapshots = Snapshots(journal)
    snapshots.take()
    first = snapshot_of(journal).read_bytes()
    assert first == journal.read_bytes()
    with journal.open("ab") as file:
        file.write(b'{"op_code": 5}\n{"torn')
    now[0] = 20.0
    snapshots.take()
    assert snapshot_of(journal).read_bytes() == first
    now[0] = 40.0
    snapshots.take()
    assert snapshot_of(journal).read_bytes() == first + b'{"op_code": 5}\n'
