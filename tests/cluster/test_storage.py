"""Where results go: an object store, one that is away for a while, a disk that fills up."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from sweeping import rows_of, run, start, wait_for

from sweep.status import main as status
from vae.sample import main as sample
from vae.store import Store, copy_of

SMALL = ("--max-epochs", 9, "--epoch-steps", 4000, "--family", "dense", "--seed", 1)


def test_a_sweep_killed_on_one_machine_is_resumed_on_another_and_played(bucket, chords, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    results = f"{bucket}/kept"
    store, copy = Store(results), copy_of(results)
    music = Path(shutil.copy(chords, tmp_path))
    process = start(
        *("--data", music, "--results", results, "--name", "far", "--trials", 5, *SMALL),
    )
    wait_for(lambda: store.read("far/best/model.safetensors") is not None, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert not (copy / "far" / "trials").exists()
    assert store.folders("far/trials/session-0")
    shutil.rmtree(copy)  # the other machine has none of it
    music.unlink()
    code, output = run("--resume", "far", "--results", results)
    assert code == 0, output
    summary = json.loads(store.read("far/summary.json"))
    assert summary["best"]["test_elbo"] is not None
    assert len(rows_of(copy, "far")) == 5
    assert store.files("far/tensorboard")
    shutil.rmtree(copy)
    monkeypatch.chdir(tmp_path)
    assert status(["--results", results]) == 0
    assert "sweep far of" in capsys.readouterr().out
    assert sample(["--best", "--results", results, "-n", "2"]) == 0
    assert "results/far/samples" in capsys.readouterr().out
    assert (tmp_path / "results" / "far" / "samples" / "001.mid").exists()
    assert sample(["--sweep", "none", "--results", results]) == 2
    assert "there are: far" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", [30, 80])
def test_a_store_that_is_away_for_a_while_costs_no_trial(seconds, bucket, away, chords, tmp_path, monkeypatch):
    """Also for longer than what writes a checkpoint waits, so that its trial goes on from an earlier one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    results, output = f"{bucket}/kept", tmp_path / "output"
    store = Store(results)
    options = ("--time-budget", f"{seconds + 45}s", "--max-concurrent", 2, *SMALL)  # it outlasts what happens
    process = start("--data", chords, "--results", results, "--name", "away", *options, output=output)
    wait_for(lambda: store.read("away/best/model.safetensors") is not None, process)
    with away():
        time.sleep(seconds)
        assert f"results wait in {copy_of(results) / 'away'}: " in output.read_text()
        before = _epochs(copy_of(results), "away")
    assert process.wait(timeout=300) == 0, output.read_text()
    assert f"results are in {results} again" in output.read_text()
    states = {row["state"] for row in rows_of(copy_of(results), "away").values()}
    assert states <= {"stopped", "completed", "paused"}, output.read_text()
    assert _epochs(copy_of(results), "away") > before
    assert json.loads(store.read("away/summary.json"))["best"]["test_elbo"] is not None


def _epochs(results, name):
    """Those trained by all."""
    return sum(int(row["epochs"]) for row in rows_of(results, name).values())


@pytest.fixture
def small_disk(tmp_path, _able):
    """A disk of 400 MiB; of that a sweep of two trials at a time keeps 256 for its end."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400m", "tmpfs", disk], check=True)
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_disk_that_fills_up_stops_the_sweep_with_what_to_do(small_disk, chords):
    options = ("--results", small_disk, "--max-concurrent", 2)
    process = start("--data", chords, "--name", "full", "--trials", 12, *SMALL, *options)
    wait_for(lambda: any(row["epochs"] != "0" for row in _rows(small_disk, "full").values()), process)
    filler = small_disk / "filler"
    filler.write_bytes(bytes(160 * 2**20))
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2, output
    assert "Traceback" not in output
    assert "the disk is nearly full, so the sweep has stopped; make room, then go on with --resume full" in output
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=1g", small_disk], check=True)
    code, output = run("--resume", "full", *options)
    assert code == 0, output
    assert len(_rows(small_disk, "full")) == 12


def _rows(results, name):
    return rows_of(results, name) if (results / name / "trials.csv").exists() else {}
