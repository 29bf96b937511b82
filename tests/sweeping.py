"""Sweeps as a user starts them, and what trials report."""

import contextlib
import csv
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from processes import begin
from ray.exceptions import RayTaskError
from tiny import make_trainer

from sweep.record import Report
from sweep.results import SweepFolder
from sweep.rungs import STOPPING
from sweep.scheduler import Asha
from sweep.settings import Settings
from sweep.study import Study
from vae.encoding import DataSpec

ROOT = Path(__file__).parents[1]
SETTINGS = Settings(
    name="test",
    data="bach",
    spec=DataSpec("roll", 88, 4, 16, 100.0, window=64, longest_song=200),
    fingerprint="0" * 64,
    families=("dense", "recurrent"),
    max_epochs=27,
    epoch_steps=100_000,
    seed=0,
    min_kl=0.1,
)


def start(*arguments, cwd=ROOT, final_seeds=1, output=None):
    """A sweep in a process group of its own; without final runs, for they take time, or with a user's if None.

    What it prints goes to a pipe, or to a file: a pipe that nobody reads would fill up.
    """
    finals = [] if final_seeds is None else ["--final-seeds", final_seeds]
    command = [sys.executable, "-m", "sweep.run", *map(str, [*arguments, *finals])]
    with contextlib.nullcontext(subprocess.PIPE) if output is None else output.open("w") as told:
        return begin(command, told, cwd=cwd, env=os.environ | {"PYTHONPATH": str(ROOT), "RAY_ADDRESS": "local"})


def run(*arguments, cwd=ROOT, final_seeds=1):
    """A sweep to its end: exit code and output."""
    process = start(*arguments, cwd=cwd, final_seeds=final_seeds)
    output, _ = process.communicate(timeout=240)
    return process.returncode, output


def rows_of(results, name):
    """`trials.csv` by number."""
    with (results / name / "trials.csv").open() as file:
        return {int(row["id"]): row for row in csv.DictReader(file)}


def wait_for(condition, process=None, seconds=120, pause=0.1):
    """Until a condition holds, while a sweep runs; looks again after a pause."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(pause)


def records_of(journal):
    """How many the journal of a sweep has."""
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def kill_at(process, journal, records):
    """A sweep and its workers, by SIGKILL, once its journal has so many records."""
    wait_for(lambda: records_of(journal) >= records, process, pause=0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)


def write_checkpoint(run, index, epochs):
    """As Ray Tune does into the folder of a run."""
    path = run / f"checkpoint_{index:06d}"
    path.mkdir(parents=True)
    trainer = make_trainer()
    for _ in range(epochs):
        trainer.train_epoch()
    trainer.save(path)
    return path


def report(epoch, val_elbo, kl=0.2, code_gain=1.0):
    """Of one epoch."""
    metrics = {"epoch": epoch, "val_elbo": val_elbo, "kl": kl, "code_gain": code_gain}
    return Report(epoch, [metrics], metrics, 2.5, "here")


def raised(cause):
    """An error out of a trial's worker."""
    return RayTaskError("train", f"Traceback ...\n{type(cause).__name__}: {cause}", cause, "train", 1, "127.0.0.1")


def open_study(path, trials, earlier=(), **changes):
    """A study in which trials end at rungs; twice the same journal is what a resumed sweep does."""
    return Study(path, replace(SETTINGS, **{"scheduler": STOPPING} | changes), trials, earlier)


def search(study, trials, worth, kl=lambda _: 0.2):
    """Draws trials and runs each to its end under ASHA; `worth` gives their bound from params, None: they fail."""
    asha = Asha(study, lambda: False)
    for _ in range(trials):
        record, end, elbo = study.ask(), None, None
        while end is None:
            elbo = worth(record)
            rung = next(rung for rung in asha.rungs if rung > record.epoch)
            told = Report(0, [], {}, 0.0, "here", "diverged") if elbo is None else report(rung, elbo, kl(record))
            end = asha.judge(record.number, told)
        study.finish(record.number, end, told.failure)


def new_folder(results, name="test"):
    """The folder of a sweep that begins."""
    folder = SweepFolder(results, name)
    folder.create()
    folder.make_latest()
    return folder
