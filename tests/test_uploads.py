"""A sweep whose results are in an object store."""

import json
import os
import shutil
import signal

import pytest
from moto.server import ThreadedMotoServer
from sweeping import new_folder, rows_of, run, start, wait_for

from sweep import uploads
from sweep.results import SweepFolder
from sweep.uploads import Uploads, fetch
from vae.sample import main as sample
from vae.store import Store, copy_of


@pytest.fixture
def folder(bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return new_folder(f"{bucket}/kept")


def test_what_changes_is_copied_but_scratch_files_and_torn_lines(folder, bucket):
    said = []
    with Uploads(folder, said.append):
        folder.summary.write_text("{}")
        folder.journal.write_text("one\ntw")
        (folder.path / ".scratch").write_text("x")
        folder.best.mkdir()
        (folder.best / "config.json").write_text("1")
    store = Store(f"{bucket}/kept")
    assert store.read("latest") == b"test"
    assert set(store.files("test")) == {"test/summary.json", "test/study.log", "test/best/config.json"}
    assert store.read("test/study.log") == b"one\n"
    assert said == []


def test_a_store_that_is_away_for_a_while_is_told_of_once_and_loses_nothing(folder, bucket, s3, monkeypatch):
    said = []
    monkeypatch.setattr(uploads, "_SECONDS", 0.1)
    host, port = s3.get_host_and_port()
    with Uploads(folder, said.append):
        s3.stop()
        folder.summary.write_text("{}")
        wait_for(lambda: said)
        folder.journal.write_text("one\n")
        back = ThreadedMotoServer(ip_address=host, port=port, verbose=False)  # the same buckets: it is this process's
        back.start()
        wait_for(lambda: len(said) > 1)
    assert len(said) == 2
    assert said[0].startswith(f"results wait in {folder.path}: {bucket}/kept: cannot be reached")
    assert said[1] == f"results are in {bucket}/kept again"
    assert set(Store(f"{bucket}/kept").files("test")) == {"test/summary.json", "test/study.log"}
    back.stop()


def test_fetching_brings_all_but_checkpoints_and_leaves_what_is_newer_here(folder, bucket, tmp_path, monkeypatch):
    with Uploads(folder, print):
        folder.summary.write_text("{}")
        folder.journal.write_text("one\n")
    Store(f"{bucket}/kept").write("test/trials/session-0/00000-00001/checkpoint_000000/training.json", b"{}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other machine"))
    there = SweepFolder(f"{bucket}/kept", "test")
    assert there.path != folder.path
    fetch(there)
    assert sorted(path.name for path in there.path.iterdir()) == ["study.log", "summary.json"]
    there.journal.write_text("one\ntwo\n")
    fetch(there)
    assert there.journal.read_text() == "one\ntwo\n"
    there.journal.write_text("another\n")
    fetch(there)
    assert there.journal.read_text() == "one\n"


def test_a_sweep_killed_on_one_machine_is_resumed_on_another_and_played(bucket, chords, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    results = f"{bucket}/kept"
    store, copy = Store(results), copy_of(results)
    process = start(
        *("--data", chords, "--results", results, "--name", "far", "--trials", 5, "--max-epochs", 9),
        *("--epoch-steps", 2000, "--family", "dense", "--seed", 1),
    )
    wait_for(lambda: store.read("far/best/model.safetensors") is not None, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert not (copy / "far" / "trials").exists()
    assert store.folders("far/trials/session-0")
    shutil.rmtree(copy)  # the other machine has none
    code, output = run("--resume", "far", "--results", results)
    assert code == 0, output
    summary = json.loads(store.read("far/summary.json"))
    assert summary["best"]["test_elbo"] is not None
    assert len(rows_of(copy, "far")) == 5
    assert store.files("far/tensorboard")
    shutil.rmtree(copy)
    monkeypatch.chdir(tmp_path)
    assert sample(["--best", "--results", results, "-n", "2"]) == 0
    assert "results/far/samples" in capsys.readouterr().out
    assert (tmp_path / "results" / "far" / "samples" / "001.mid").exists()
    assert sample(["--sweep", "none", "--results", results]) == 2
    assert "there are: far" in capsys.readouterr().err
