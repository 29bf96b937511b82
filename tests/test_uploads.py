"""A sweep whose results are in an object store."""

import argparse
import os

import pytest
from sweeping import new_folder, wait_for

from sweep import uploads
from sweep.journal import lock_of, snapshot_of
from sweep.results import SweepFolder
from sweep.uploads import Uploads, fetch
from vae import checkpoint
from vae.arguments import chosen_directory
from vae.checkpoint import CONFIG, FINAL_FILES, METRICS, MODEL
from vae.store import Store


@pytest.fixture
def folder(bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return new_folder(f"{bucket}/kept")


def test_what_changes_is_copied_but_scratch_files_locks_and_torn_lines(folder, bucket):
    said = []
    with Uploads(folder, said.append):
        folder.summary.write_text("{}")
        folder.journal.write_text("{}\n{")
        lock_of(folder.journal).symlink_to(folder.journal.absolute())
        (folder.path / ".scratch").write_text("x")
        folder.best.mkdir()
        (folder.best / "config.json").write_text("1")
    store = Store(f"{bucket}/kept")
    assert store.read("latest") == b"test"
    assert set(store.files("test")) == {"test/summary.json", "test/study.log", "test/best/config.json"}
    assert store.read("test/study.log") == b"{}\n"
    assert said == []


def test_a_store_that_is_away_for_a_while_is_told_of_once_and_loses_nothing(folder, bucket, away, monkeypatch):
    said = []
    monkeypatch.setattr(uploads, "_SECONDS", 0.1)
    with Uploads(folder, said.append):
        with away():
            wait_for(lambda: said)  # though nothing has changed
            folder.summary.write_text("{}")
            folder.journal.write_text("{}\n")
        wait_for(lambda: len(said) > 1)
    assert len(said) == 2
    assert said[0].startswith(f"results wait in {folder.path}: {bucket}/kept: cannot be reached")
    assert said[1] == f"results are in {bucket}/kept again"
    assert set(Store(f"{bucket}/kept").files("test")) == {"test/summary.json", "test/study.log"}


def test_a_best_that_is_replaced_while_it_is_copied_counts_once_all_of_it_is_copied(folder, bucket, monkeypatch):
    monkeypatch.setattr(uploads, "_SECONDS", 0.1)
    store, names = Store(f"{bucket}/kept"), [f"test/best/{name}" for name in FINAL_FILES]
    folder.journal.write_text("{}\n")
    with checkpoint.replacing(folder.best) as scratch:
        for name in (MODEL, METRICS):
            (scratch / name).write_text("old")
        os.mkfifo(scratch / CONFIG)
    with Uploads(folder, print):
        with (folder.best / CONFIG).open("w") as read:  # opens when the copying has come to it
            monkeypatch.setattr(uploads, "_SECONDS", 3600.0)  # till the end no copies but these
            with checkpoint.replacing(folder.best) as scratch:
                for name in FINAL_FILES:
                    (scratch / name).write_text("new")
            read.write("old")
        wait_for(lambda: store.read("test/study.log"))
        assert store.read(f"test/best/{METRICS}") is None
    assert [store.read(name) for name in names] == 3 * [b"new"]


def test_fetching_brings_all_but_checkpoints_and_leaves_what_is_newer_here(folder, bucket, tmp_path, monkeypatch):
    with Uploads(folder, print):
        folder.summary.write_text("{}")
        folder.journal.write_text("{}\n")
    Store(f"{bucket}/kept").write("test/trials/session-0/00000-00001/checkpoint_000000/training.json", b"{}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other machine"))
    there = SweepFolder(f"{bucket}/kept", "test")
    assert there.path != folder.path
    fetch(there)
    assert sorted(path.name for path in there.path.iterdir()) == ["study.log", "summary.json"]
    there.journal.write_text("{}\n{}\n")
    fetch(there)
    assert there.journal.read_text() == "{}\n{}\n"
    there.journal.write_text("[]\n")
    snapshot_of(there.journal).write_text("[]\n")
    fetch(there)
    assert there.journal.read_text() == "{}\n"
    assert not snapshot_of(there.journal).exists()
    Store(f"{bucket}/kept").write("test/study.log", b"{}\ntorn\n{}\n")
    fetch(there)
    assert there.journal.read_text() == "{}\n"


def test_while_a_sweep_runs_from_here_nothing_of_it_is_fetched(folder, bucket):
    chosen = argparse.Namespace(checkpoint=None, results=f"{bucket}/kept", sweep="test")
    written = [folder.journal, *(folder.best / name for name in FINAL_FILES)]
    folder.best.mkdir()

    def write(text):
        for path in written:
            path.write_text(text)

    with Uploads(folder, print):
        write("{}\n")
    write("[]\n")
    with folder.driven():
        fetch(folder)
        assert chosen_directory(chosen) == folder.best
        assert {path.read_text() for path in written} == {"[]\n"}
    assert chosen_directory(chosen) == folder.best
    assert {path.read_text() for path in written[1:]} == {"{}\n"}
    fetch(folder)
    assert folder.journal.read_text() == "{}\n"
