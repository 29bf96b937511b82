"""Which configurations are trained on further seeds once the search is over, and which of them wins.

A trial that comes out first among many owes some of that to its seed. So the best few configurations are trained on
several seeds, the search's own run being one where it went as far, and the mean decides.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweep import space
from sweep.checkpoints import read_metrics, trained_epochs
from sweep.record import Trained, TrialRecord
from sweep.results import SweepFolder
from sweep.study import Study
from vae.ranking import is_feasible, rank_key, rank_value

Metrics = Mapping[str, float]


@dataclass
class FinalRun(Trained):
    """A configuration, trained with a seed."""

    trial: int
    seed: int
    params: dict[str, Any]
    epochs: int  # to be trained
    checkpoint: str | None = None  # the place of the newest
    saved_epoch: int = 0  # of the checkpoint
    failure: str | None = None  # why it could not go on
    attempts: int = 0  # to train it, since the driver began

    @property
    def name(self) -> str:
        """Tells it from other final runs of its trial."""
        return f"seed-{self.seed}-epochs-{self.epochs}"

    @property
    def folder(self) -> str:
        """The name of its folder."""
        return f"{self.trial:05d}-{self.name}"

    @property
    def prefix(self) -> str:
        """Of the names of the folders in which Ray Tune begins it, one for each attempt."""
        return f"{self.folder}."

    @property
    def trained(self) -> bool:
        """Whether it is trained to its end, and saved."""
        return self.saved_epoch >= self.epochs

    def saved(self, place: str, epoch: int) -> None:
        """Takes note of a checkpoint."""
        self.checkpoint, self.epoch, self.saved_epoch = place, epoch, epoch

    def metrics(self) -> dict[str, Any]:
        """Of its best epoch."""
        assert self.checkpoint is not None
        return read_metrics(self.checkpoint)


def progress(runs: Sequence[FinalRun]) -> dict[str, int]:
    """How far final runs are: how many are trained, and of those left how far the furthest is."""
    epochs = runs[0].epochs
    left = [run.epoch for run in runs if not run.trained and run.failure is None]
    trained = sum(run.trained for run in runs)
    return {"runs": len(runs), "trained": trained, "epoch": max(left, default=epochs), "epochs": epochs}


def plan(study: Study, folder: SweepFolder, winner: int | None = None) -> list[FinalRun]:
    """The final runs of a sweep, a finalist after the other, each as far as its newest checkpoint.

    Args:
        study: of the sweep.
        folder: of the sweep.
        winner: the trial that has won earlier final runs, if any: luckier ones of a longer search must beat its mean.
    """
    settings = study.settings
    seeds = [(settings.seed + further) % 2**32 for further in range(settings.final_seeds)]
    finalists = study.finalists()
    if winner in study.records and winner not in {record.number for record in finalists}:
        finalists.append(study.records[winner])
    return [_run(study, folder, record, seed) for record in finalists for seed in seeds]


def _run(study: Study, folder: SweepFolder, record: TrialRecord, seed: int) -> FinalRun:
    settings = study.settings
    epochs = settings.last_epoch
    params = space.stretched(record.params, epochs * settings.epoch_steps)
    run = FinalRun(record.number, seed, params, epochs)
    # A seed fixes a run: one of the search that was to train in the same way goes on where it stopped.
    same = seed == settings.seed and params == record.params
    for place in (*([folder.trials.newest(record.prefix)] if same else []), folder.finals.newest(run.prefix)):
        epoch = None if place is None else trained_epochs(place)
        if place is not None and epoch is not None and epoch >= run.epoch:
            run.saved(place, epoch)
    return run


def decide(runs: Sequence[FinalRun], min_kl: float) -> tuple[FinalRun, list[FinalRun]] | None:
    """The winner and all seeds of its configuration; None as long as runs are left, or if all failed.

    Args:
        runs: as they are planned, a configuration after the other.
        min_kl: the floor, nats a time step.
    """
    trained = [run for run in runs if run.trained]
    if not trained or any(not run.trained and run.failure is None for run in runs):
        return None
    by_trial: dict[int, list[FinalRun]] = {}
    for run in trained:
        by_trial.setdefault(run.trial, []).append(run)
    seeds = max(by_trial.values(), key=lambda group: standing([run.metrics() for run in group], min_kl))
    return seeds[median([run.metrics() for run in seeds], min_kl)], seeds


def standing(seeds: Sequence[Metrics], min_kl: float) -> tuple[int, float]:
    """What the best configuration has most of: feasible seeds, then mean rank value."""
    feasible = sum(is_feasible(metrics, min_kl) for metrics in seeds)
    return feasible, sum(rank_value(metrics, min_kl) for metrics in seeds) / len(seeds)


def median(seeds: Sequence[Metrics], min_kl: float) -> int:
    """Where the median seed stands, by rank; of two the lower, and of the feasible ones where there are any."""
    some = any(is_feasible(metrics, min_kl) for metrics in seeds)
    able = [index for index, metrics in enumerate(seeds) if is_feasible(metrics, min_kl) or not some]
    return sorted(able, key=lambda index: rank_key(seeds[index], min_kl))[(len(able) - 1) // 2]
