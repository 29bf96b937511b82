"""What it takes to propose a configuration, the journal's record included, after some thousand trials.

    python -m benchmarks.proposal_time

Journals are made of random draws from the search space, with values at the rungs that the best third of each rung goes
on from; in half of them every trial in the upper third of the learning rates has failed, so that a forest is fitted to
that too. Then a study that reads such a journal is asked for trials, as a sweep's is. Beside it, without variations,
TPE fitted to all trials that a proposal looks at instead of a few of them.
"""

import argparse
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import optuna
from optuna.trial import FrozenTrial, TrialState

from benchmarks.common import Table, write
from benchmarks.contenders.shared import settings_of
from sweep import proposal, sampler, space
from sweep.record import TrialRecord
from sweep.rungs import REDUCTION_FACTOR, rungs
from sweep.study import Study
from vae.corpus import load_corpus
from vae.encoding import DataSpec
from vae.trainer import EPOCH_STEPS, MAX_EPOCHS

NAME = "proposal_time"
_COUNTS = (100, 1000, 10_000)
_ASKED = 30  # proposals a journal
_ASKED_OF_ALL = 3  # where TPE is fitted to all
_HIGH = 5e-4 * 20 ** (2 / 3)
"""Where the upper third of the learning rates begins."""


def history(task: space.Task, count: int, failing: bool) -> list[FrozenTrial]:
    """Trials that have ended, as `Study` keeps them."""
    noise = random.Random(0)
    scratch = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    drawn = [scratch.ask() for _ in range(count)]
    params = [space.suggest(trial, task) for trial in drawn]
    failed = [failing and one["learning_rate"] > _HIGH for one in params]
    worth = [noise.gauss(-abs(one["learning_rate"] / _HIGH - 1.0), 0.2) for one in params]
    values: list[dict[int, float]] = [{} for _ in drawn]
    going = [number for number in range(count) if not failed[number]]
    for rung in rungs(MAX_EPOCHS):
        for number in going:
            values[number][rung] = worth[number] + noise.gauss(0.0, 0.1)
        going = sorted(going, key=lambda number: values[number][rung])[-max(1, len(going) // REDUCTION_FACTOR) :]
    trials = []
    for number, trial in enumerate(drawn):
        record = TrialRecord(number, params[number], epoch=max(values[number], default=1), turn=number + 1)
        made = optuna.trial.create_trial(
            state=TrialState.FAIL if failed[number] else TrialState.PRUNED,
            params=trial.params,
            distributions=trial.distributions,
            intermediate_values=values[number],
            user_attrs={"record": record.kept()},
        )
        trials.append(made)
    return trials


def ask(study: Study, count: int) -> list[float]:
    """Milliseconds of so many proposals."""
    spent = []
    for _ in range(count):
        began = time.perf_counter()
        study.ask()
        spent.append(1000.0 * (time.perf_counter() - began))
    return spent


def measure(spec: DataSpec, count: int, failing: bool, folder: Path) -> dict[str, Any]:
    """Milliseconds after so many trials: of each proposal, and where TPE is fitted to all."""
    settings = settings_of(spec, EPOCH_STEPS)
    path = folder / f"{count}-{failing}.log"
    Study(path, settings, None)._optuna.add_trials(history(settings.task, count, failing))
    study = Study(path, settings, None)
    ask(study, 1)  # the first imports what it needs
    ours = ask(study, _ASKED)
    with patch.object(sampler, "_MOST_SEEN", sys.maxsize), patch.object(proposal, "_VARIED", 0.0):
        everything = ask(study, _ASKED_OF_ALL)
    return {"trials": count, "failing": failing, "ms": ours, "ms_fitted_to_all": everything}


def _line(row: dict[str, Any]) -> tuple[str, ...]:
    high = statistics.quantiles(row["ms"], n=10)[-1]
    figures = (statistics.median(row["ms"]), high, statistics.median(row["ms_fitted_to_all"]))
    name = f"{row['trials']:,} trials, {'a third failed' if row['failing'] else 'none failed'}"
    return (name, *map("{:.0f}".format, figures))


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(f"python -m benchmarks.{NAME}", description="What a proposal takes.")
    parser.add_argument("--trials", type=int, action="append", metavar="N", help=f"repeatable (default: {_COUNTS})")
    parser.add_argument("--out", type=Path, help=f"default: benchmarks/results/{NAME}.json")
    args = parser.parse_args(argv)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    spec = load_corpus("bach").spec
    with tempfile.TemporaryDirectory() as folder:
        cases = [(count, failing) for count in args.trials or _COUNTS for failing in (False, True)]
        rows = [measure(spec, count, failing, Path(folder)) for count, failing in cases]
    columns = ("a proposal after", "ms, median", "ms, 90th percentile", "TPE fitted to all: ms")
    write(NAME, {"rows": rows}, Table(columns, [_line(row) for row in rows]), args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
