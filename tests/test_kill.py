"""A sweep whose driver is killed ends as one that never was, to the bit."""

import random

from safetensors.torch import load_file
from sweeping import kill_in_training, rows_of, run, start
from training import assert_same

KILLS = 3
SMALL = ("--trials", 12, "--max-epochs", 9, "--epoch-steps", 700, "--max-concurrent", 1, "--seed", 5)


def test_a_sweep_killed_and_resumed_is_that_which_ran_through(tmp_path):
    """With one worker; results are under a relative path, as a user gives it."""
    where = ("--results", "results", "--family", "dense", "--family", "recurrent")
    code, output = run("--name", "whole", *SMALL, *where, cwd=tmp_path)
    assert code == 0, output
    moments = random.Random(0)
    process = start("--name", "killed", *SMALL, *where, cwd=tmp_path)
    for _ in range(KILLS):
        kill_in_training(process, tmp_path / "results" / "killed" / "study.log", moments.uniform(0.0, 2.0))
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
