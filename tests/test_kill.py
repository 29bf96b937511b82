"""A sweep whose driver is killed ends as one that never was, to the bit; a trial whose worker is killed goes on."""

import contextlib
import os
import random
import signal

import psutil
import pytest
from safetensors.torch import load_file
from sweeping import kill_at, records_of, rows_of, run, start, wait_for
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training import assert_same

from sweep.results import SweepFolder

pytestmark = pytest.mark.xdist_group("ray")  # a core for all that starts Ray, the other for the rest

KILLS = 3
SMALL = ("--trials", 12, "--max-epochs", 9, "--epoch-steps", 700, "--max-concurrent", 1, "--seed", 5)


def test_a_sweep_killed_and_resumed_is_that_which_ran_through(chords, tmp_path):
    """With one worker; results are under a relative path, as a user gives it."""
    where = ("--data", chords, "--results", "results", "--family", "dense", "--family", "recurrent")
    code, output = run("--name", "whole", *SMALL, *where, cwd=tmp_path)
    assert code == 0, output
    moments, records = random.Random(0), records_of(tmp_path / "results" / "whole" / "study.log")
    process = start("--name", "killed", *SMALL, *where, cwd=tmp_path)
    for part in range(KILLS):  # the last part is left, or the search might be over
        moment = round(records * (part + moments.random()) / (KILLS + 1))
        kill_at(process, tmp_path / "results" / "killed" / "study.log", moment)
        process = start("--resume", "killed", "--max-concurrent", 1, "--results", "results", cwd=tmp_path)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    whole, killed = (rows_of(tmp_path / "results", name) for name in ("whole", "killed"))
    assert list(whole) == list(killed)
    for number, row in whole.items():
        for name in ("state", "params", "epochs", "val_elbo", "kl"):
            assert killed[number][name] == row[name], (number, name)
    best = [load_file(tmp_path / "results" / name / "best" / "model.safetensors") for name in ("whole", "killed")]
    assert_same(*best)


def training_worker(driver):
    """The process that trains a trial of a sweep, or None."""
    for process in psutil.Process(driver).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            name = " ".join(process.cmdline())
            if name.startswith("ray::") and ".train" in name:
                return process.pid
    return None


def test_a_trial_whose_worker_is_killed_goes_on_from_its_checkpoint(chords, tmp_path):
    """By SIGKILL, after the first rung."""
    process = start(
        *("--data", chords, "--results", tmp_path, "--name", "shot", "--trials", 1, "--max-concurrent", 1),
        *("--scheduler", "stopping", "--family", "dense", "--max-epochs", 9, "--epoch-steps", 20_000),
    )
    found = []

    def trains_on():
        saved = SweepFolder(tmp_path, "shot").trials.newest("00000-")
        found[:] = [training_worker(process.pid)] if saved is not None else []
        return any(found)

    wait_for(trains_on, process)
    os.kill(found[0], signal.SIGKILL)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert output.count(" goes on from its newest checkpoint: its worker died\n") == 1
    assert "Traceback" not in output
    assert rows_of(tmp_path, "shot")[0]["state"] == "completed"
    events = EventAccumulator(str(SweepFolder(tmp_path, "shot").tensorboard / "00000")).Reload()
    trained = [event.step for event in events.Scalars("train/elbo")]
    assert trained.count(1) == 1
    assert sorted(set(trained)) == list(range(1, 10))
